"""Development trust from the shell: made, extended, shown."""

import json
from pathlib import Path

import pytest

from tests.support.installation import Installation


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "fresh")


def add_service(installation: Installation, name: str) -> None:
    text = (
        "from messaging import Event, Service\n"
        f"class Shipped(Event, name='{name}.shipped'):\n    pass\n"
        f"{name} = Service('{name}')\n"
        f"@{name}.on_event(Shipped)\nasync def heard(event, context):\n    pass\n"
    )
    (installation.folder / f"{name}.py").write_text(text)


class TestInit:
    def test_one_command_makes_keys_and_bundle(self, offline: Installation, folder: str) -> None:
        result = offline.call("trust", "init", "--dev", folder, "--from", "shop:shop", "--operator", "alice")

        assert result.exit_code == 0, result.stderr
        assert {path.name for path in Path(folder).iterdir()} >= {"shop.key", "ops.alice.key", "trust.bundle"}
        assert f"export MESSAGING_KEYS={folder}" in result.stdout

    def test_a_second_run_adds_a_service_and_keeps_the_keys(self, offline: Installation, folder: str) -> None:
        add_service(offline, "parcels")
        first = offline.json("trust", "init", "--dev", folder, "--from", "shop:shop", "--json")
        before = (Path(folder) / "shop.key").read_bytes()

        second = offline.json("trust", "init", "--dev", folder, "--from", "parcels:parcels", "--json")

        assert second["version"] == first["version"] + 1
        assert second["realm"] == first["realm"]
        assert (Path(folder) / "shop.key").read_bytes() == before
        assert offline.json("trust", "show", folder, "--json")["services"] == ["parcels", "shop"]

    def test_without_dev_it_says_what_real_keys_take(self, offline: Installation, folder: str) -> None:
        result = offline.call("trust", "init", folder, "--from", "shop:shop")

        assert result.exit_code == 2
        assert "keys generate" in result.stderr
        assert not Path(folder).exists()

    def test_beside_real_keys_it_refuses(self, offline: Installation, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        root = "58" + "66" * 31
        offline.call("keys", "generate", "billing", "--keys", str(tmp_path / "real"), "--realm", "r", "--root", root)

        result = offline.call("trust", "init", "--dev", str(tmp_path / "real"), "--from", "shop:shop")

        assert result.exit_code == 2
        assert "name another folder" in result.stderr


class TestShow:
    def test_in_words(self, offline: Installation) -> None:
        shown = offline.call("trust", "show").stdout

        for words in (
            "Trust bundle version 1",
            "expires in 14 d",
            "shop.order_placed",
            "ops:dev",
            "active",
            "May replay",
        ):
            assert words in shown

    def test_as_json(self, offline: Installation) -> None:
        shown = offline.json("trust", "show", str(offline.keys), "--json")

        assert shown["development"] is True
        assert shown["subscribe"] == {"shop.order_placed": ["shop"]}
        assert {key["state"] for key in shown["keys"]} == {"active"}
        assert {"operator": "ops:dev", "name": "shop.*", "to": "shop", "force": True} in shown["replay"]
        assert {"from": "ops:dev", "kind": "command", "name": "shop.*", "to": "shop"} in shown["send"]

    def test_a_single_file_is_not_shown_and_the_words_say_what_is(self, offline: Installation) -> None:
        result = offline.call("trust", "show", str(offline.keys / "trust.bundle"))

        assert result.exit_code == 2
        assert "trust diff" in result.stderr

    def test_an_altered_bundle_is_not_shown(self, offline: Installation) -> None:
        path = offline.keys / "trust.bundle"
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)

        result = offline.call("trust", "show")

        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")

    def test_a_missing_bundle_and_missing_keys(self, offline: Installation, tmp_path: Path) -> None:
        (offline.keys / "trust.bundle").unlink()
        assert "no trust bundle at" in offline.call("trust", "show").stderr

        (tmp_path / "empty").mkdir()
        result = offline.call("trust", "show", str(tmp_path / "empty"))
        assert result.exit_code == 2
        assert "no key file" in result.stderr


def test_json_of_init_lists_files(offline: Installation, folder: str) -> None:
    result = offline.call("trust", "init", "--dev", folder, "--from", "shop:shop", "--json")

    shown = json.loads(result.stdout)
    assert {Path(path).name for path in shown["created"]} >= {"shop.key", "ops.dev.key"}
    assert shown["kept"] == []
