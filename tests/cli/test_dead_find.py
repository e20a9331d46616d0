"""Which dead letters the command line means."""

import pytest

from tests.support.installation import Installation

pytestmark = pytest.mark.broker


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(("ffff",), 5, "no dead letter ffff"), (("shop",), 2, "name the dead letter by the id")],
)
def test_what_names_no_letter_says_so(quiet: Installation, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = quiet.call("dead", "show", *arguments)

    assert result.exit_code == code
    assert words in result.stderr
