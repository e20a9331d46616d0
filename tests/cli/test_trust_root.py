"""Root keys from the shell: sealed, pinned, compared."""

import stat
from pathlib import Path

import pytest

from messaging.security.roots import load_pins, load_root
from tests.support.installation import Installation

REALM = ("--realm", "prod-eu")


@pytest.fixture
def words(tmp_path: Path) -> str:
    (tmp_path / "words").write_text("correct horse\n")
    return str(tmp_path / "words")


def test_a_root_key_is_made_shown_and_pinned(offline: Installation, tmp_path: Path, words: str) -> None:
    made = offline.json("trust", "root", "generate", "one.root", *REALM, "--passphrase-file", words, "--json")
    public = offline.call("trust", "root", "public", "one.root").stdout.strip()
    offline.call("trust", "root", "pin", public, *REALM)
    shown = offline.json("trust", "root", "show", "--json")

    root, realm = load_root(tmp_path / "one.root", passphrase=b"correct horse")
    assert made["public"] == public == root.public.raw.hex()
    assert realm == "prod-eu"
    assert stat.S_IMODE((tmp_path / "one.root").stat().st_mode) == 0o600
    assert (shown["threshold"], shown["roots"]) == (1, [public])
    assert [key.kid for key in load_pins(tmp_path / "trust.roots").roots] == [root.kid]


def test_in_words(offline: Installation, words: str) -> None:
    said = offline.call("trust", "root", "generate", "one.root", *REALM, "--passphrase-file", words).stdout
    public = said.splitlines()[-1]
    pinned = offline.call("trust", "root", "pin", public, *REALM).stdout
    shown = offline.call("trust", "root", "show").stdout

    assert "stays offline" in said
    assert pinned.splitlines()[-1] == shown.splitlines()[-1]
    assert "1 of 1 root keys sign for realm prod-eu" in pinned


@pytest.mark.parametrize(
    ("arguments", "words_of"),
    [
        (("generate", "words", *REALM), "exists already"),
        (("generate", "x.root", "--realm", "dev-1"), "trust init --dev"),
        (("generate", "x.root", *REALM), "say --passphrase-file or --passphrase-fd"),
        (("pin", "ab", *REALM), "is no public root key"),
        (("show", "nothing"), "messaging trust root pin"),
        (("public", "words"), "is not valid JSON"),
    ],
)
def test_what_cannot_be_says_why(offline: Installation, words: str, arguments: tuple[str, ...], words_of: str) -> None:
    Path(words).chmod(0o600)

    result = offline.call("trust", "root", *arguments)

    assert result.exit_code == 2
    assert words_of in result.stderr
