"""Every input that the fuzzers found worth keeping, once more: none of them may break anything again."""

import pytest

from tests.fuzz.run import CORPUS
from tests.fuzz.targets import TARGETS, seeds

pytestmark = pytest.mark.attack(68)


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs_of_a_fuzzer_break_nothing(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())

    for path in inputs:
        TARGETS[name](path.read_bytes())

    assert len(inputs) >= len(seeds()[name])


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_inputs_of_a_fuzzer_break_nothing(name: str) -> None:
    for raw in seeds()[name].values():
        TARGETS[name](raw)
