import re
from importlib.util import find_spec

import pytest

from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.environments import PEERS, PINS


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda one: one.name)
def test_every_contestant_has_a_program_and_an_environment(contestant: Contestant) -> None:
    assert find_spec(contestant.module) is not None
    assert contestant.environment is None or contestant.environment in PEERS
    assert contestant.sends or contestant.asks


def test_names_are_different() -> None:
    names = [one.name for one in CONTESTANTS]

    assert len(names) == len(set(names))


def test_ours_use_namespaces_of_their_own() -> None:
    namespaces = [one.variables["MESSAGING_NAMESPACE"] for one in CONTESTANTS if one.is_ours]

    assert len(namespaces) == len(set(namespaces)) == 2


def test_one_that_needs_a_missing_setting_says_so() -> None:
    ours = Contestant(name="x", title="x", module="x", environment=None, needs_setting="no_such_setting")

    assert ours.obstacle == "this version has no setting no_such_setting"


@pytest.mark.parametrize("peer", PEERS)
def test_peers_are_pinned_to_exact_versions_and_name_no_host(peer: str) -> None:
    lines = (PINS / f"{peer}.txt").read_text().splitlines()

    assert [line for line in lines if re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) is None] == []
    assert any(line.startswith("pydantic==") for line in lines)


def test_all_peers_use_one_pydantic() -> None:
    pins = {
        line
        for peer in PEERS
        for line in (PINS / f"{peer}.txt").read_text().splitlines()
        if line.startswith(("pydantic==", "pydantic_core=="))
    }

    assert len(pins) == 2
