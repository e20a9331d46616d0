"""Services and messages by name, and what a mistake in either looks like."""

from pathlib import Path

import pytest

from messaging.cli.exits import UsageError
from messaging.cli.load import load_message, load_module, load_service
from messaging.core.envelope import Kind
from messaging.core.message import contract_of
from messaging.errors import ConfigurationError
from tests.support.installation import Installation


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


@pytest.fixture(autouse=True)
def _here(offline: Installation) -> None:
    """Work in an installation's folder."""


class TestServices:
    def test_by_module_and_name(self) -> None:
        assert load_service("shop:shop").name == "shop"

    def test_the_only_one_of_a_module_needs_no_name(self) -> None:
        assert load_service("shop").name == "shop"

    def test_one_that_the_module_makes_when_asked(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            "lazy_shop",
            "__all__ = ['late']\ndef __getattr__(name):\n    if name != 'late':\n        raise AttributeError(name)\n"
            "    from messaging import Service\n    return Service('late')\n",
        )

        assert load_service("lazy_shop:late").name == "late"
        assert load_service("lazy_shop").name == "late"

    @pytest.mark.parametrize("target", ["shop:nothing", "shop:PlaceOrder"])
    def test_what_is_none_is_named_with_those_there_are(self, target: str) -> None:
        with pytest.raises(UsageError, match=f"{target} is no service; services there: shop:shop"):
            load_service(target)

    def test_a_module_with_two_needs_a_name(self, tmp_path: Path) -> None:
        write(tmp_path, "two_shops", "from messaging import Service\na = Service('a')\nb = Service('b')\n")

        with pytest.raises(UsageError, match="two_shops:a, two_shops:b"):
            load_service("two_shops")


class TestModules:
    @pytest.mark.parametrize(("name", "missing"), [("nowhere", "nowhere"), ("nowhere.at.all", "nowhere")])
    def test_a_missing_one(self, name: str, missing: str) -> None:
        with pytest.raises(UsageError, match=f"no module '{missing}'"):
            load_module(name)

    def test_a_missing_dependency_is_told_apart(self, tmp_path: Path) -> None:
        write(tmp_path, "needy_shop", "import nowhere_to_be_found")

        with pytest.raises(UsageError, match="needy_shop needs the module 'nowhere_to_be_found'"):
            load_module("needy_shop")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("x = 1\ny = z\n", r"NameError.*odd_shop\.py:2"),
            ("x = (\n", r"SyntaxError.*odd_shop\.py:1"),
            ("raise RuntimeError('no database')", r"RuntimeError: no database \(odd_shop\.py:1\)"),
            ("class Odd(Exception): pass\nraise Odd('of its own')", r"Odd: of its own \(odd_shop\.py:2\)"),
        ],
    )
    def test_a_broken_one_names_the_line(self, tmp_path: Path, text: str, words: str) -> None:
        write(tmp_path, "odd_shop", text)

        with pytest.raises(UsageError, match=words):
            load_module("odd_shop")

    def test_an_error_that_names_its_remedy_is_left_as_it_is(self, tmp_path: Path) -> None:
        write(tmp_path, "bare_shop", "from messaging import Command\nclass C(Command, name='Bad Name'): pass")

        with pytest.raises(ConfigurationError, match="Bad Name"):
            load_module("bare_shop")


class TestMessages:
    def test_the_highest_version_unless_one_is_named(self) -> None:
        assert contract_of(load_message("shop", "shop.place_order", kind=Kind.COMMAND)).version == 2
        assert contract_of(load_message("shop", "shop.place_order/1", kind=Kind.COMMAND)).version == 1

    def test_from_a_service_those_that_it_handles(self) -> None:
        assert contract_of(load_message("shop:shop", "shop.place_order", kind=Kind.COMMAND)).version == 1

        with pytest.raises(UsageError, match="holds no message"):
            load_message("shop:shop", "shop.forget", kind=Kind.COMMAND)

    def test_a_module_without_messages_says_what_to_name(self, tmp_path: Path) -> None:
        write(tmp_path, "empty_shop", "")

        with pytest.raises(UsageError, match=r"services\.orders\.contract"):
            load_message("empty_shop", "shop.place_order", kind=Kind.COMMAND)

    def test_a_far_miss_lists_what_there_is(self) -> None:
        with pytest.raises(UsageError, match=r"it holds shop\.forget, shop\.get_order"):
            load_message("shop", "users.register", kind=Kind.COMMAND)
