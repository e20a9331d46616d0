"""Questions to the policy from the shell."""

import pytest

from tests.support.ceremony import Ceremony


def ask(ceremony: Ceremony, *arguments: str, code: int = 0) -> str:
    return ceremony.call("policy", "check", *arguments, "--trust", ceremony.trust, code=code)


def test_what_is_allowed_names_the_rule(ceremony: Ceremony) -> None:
    said = ask(ceremony, "--from", "web", "--kind", "command", "--name", "shop.place_order", "--to", "shop")

    assert said.startswith("allowed: policy.send:")


def test_what_is_denied_names_the_line(ceremony: Ceremony) -> None:
    said = ask(ceremony, "--from", "web", "--kind", "command", "--name", "shop.forget", code=4)

    assert '{"from": "web", "kind": "command", "name": "shop.forget", "to": "shop"}' in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--from", "shop", "--kind", "event", "--name", "shop.order_placed"), 0),
        (("--from", "shop", "--kind", "event", "--name", "shop.order_placed", "--to", "shop"), 0),
        (("--from", "shop", "--kind", "event", "--name", "shop.order_placed", "--to", "web"), 4),
        (("--from", "ops:alice", "--kind", "replay", "--name", "shop.place_order"), 0),
        (("--from", "ops:alice", "--kind", "force", "--name", "shop.place_order", "--to", "shop"), 4),
        (("--from", "nobody", "--kind", "command", "--name", "shop.place_order"), 4),
        (("--from", "No", "--kind", "command", "--name", "shop.place_order"), 2),
        (("--from", "web", "--kind", "command", "--name", "shop"), 2),
        (("--from", "web", "--kind", "fly", "--name", "shop.place_order"), 2),
        (("--from", "web", "--kind", "command", "--name", "shop.place_order", "--to", "web"), 2),
    ],
)
def test_the_exit_code_answers(ceremony: Ceremony, arguments: tuple[str, ...], code: int) -> None:
    ask(ceremony, *arguments, code=code)


def test_as_json(ceremony: Ceremony) -> None:
    found = ceremony.json(
        *("policy", "check", "--from", "web", "--kind", "command", "--name", "shop.forget"),
        *("--trust", ceremony.trust),
        code=4,
    )

    assert found["allowed"] is False
    assert len(found["missing"]) == 1
