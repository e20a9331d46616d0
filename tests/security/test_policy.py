import pytest

from messaging.core.envelope import Kind
from messaging.security.policy import Escrow, Policy, ReplayGrant, Rule, is_pattern, matches

POLICY = Policy(
    rules=(
        Rule(sender="users", kind=Kind.COMMAND, name="orders.place_order", to="orders"),
        Rule(sender="users", kind=Kind.REQUEST, name="orders.*", to="orders"),
        Rule(sender="users", kind=Kind.COMMAND, name="orders.admin.*", to="orders"),
    ),
    subscribe={"orders.placed": ("users", "billing")},
    escrow=Escrow(command=True),
    replay=(
        ReplayGrant(operator="ops:alice", name="orders.*", to="orders"),
        ReplayGrant(operator="ops:bob", name="orders.place_order", to="orders", force=True),
    ),
)


@pytest.mark.parametrize(
    ("sender", "kind", "name"),
    [
        ("users", Kind.COMMAND, "orders.place_order"),
        ("users", Kind.REQUEST, "orders.get_order"),
        ("users", Kind.COMMAND, "orders.admin.wipe"),
    ],
)
def test_a_rule_allows_what_it_names(sender: str, kind: Kind, name: str) -> None:
    assert POLICY.rule_for(sender, kind, name, "orders") is not None


@pytest.mark.parametrize(
    ("sender", "kind", "name", "to"),
    [
        ("billing", Kind.COMMAND, "orders.place_order", "orders"),
        ("users", Kind.EVENT, "orders.place_order", "orders"),
        ("users", Kind.COMMAND, "orders.cancel", "orders"),
        ("users", Kind.COMMAND, "orders.place_order", "billing"),
        ("users", Kind.REQUEST, "orders_admin.wipe", "orders"),
        ("users", Kind.COMMAND, "orders.administer", "orders"),
        ("users", Kind.COMMAND, "orders.admin", "orders"),
    ],
)
def test_everything_else_is_denied(sender: str, kind: Kind, name: str, to: str) -> None:
    assert POLICY.rule_for(sender, kind, name, to) is None


def test_an_event_has_the_audience_that_policy_gives_it() -> None:
    assert POLICY.audience_of_event("orders.placed") == ("users", "billing")
    assert POLICY.audience_of_event("orders.other") == ()


@pytest.mark.parametrize(
    ("operator", "name", "to", "force", "allowed"),
    [
        ("ops:alice", "orders.place_order", "orders", False, True),
        ("ops:alice", "orders.place_order", "orders", True, False),
        ("ops:bob", "orders.place_order", "orders", True, True),
        ("ops:bob", "orders.place_order", "orders", False, True),
        ("ops:bob", "orders.cancel", "orders", False, False),
        ("ops:alice", "orders.place_order", "users", False, False),
        ("users", "orders.place_order", "orders", False, False),
    ],
)
def test_replays_need_a_grant(operator: str, name: str, to: str, force: bool, allowed: bool) -> None:
    assert POLICY.may_replay(operator, name, to, force=force) is allowed


@pytest.mark.parametrize("kind", Kind)
def test_escrow_is_demanded_where_policy_says_so(kind: Kind) -> None:
    # A replay carries a command or an event, so it follows them.
    assert POLICY.demands_escrow(kind) is (kind in {Kind.COMMAND, Kind.REPLAY})


@pytest.mark.parametrize("text", ["orders.place_order", "orders.*", "orders.admin.*", "orders.a.b"])
def test_names_and_prefixes_are_patterns(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize(
    "text", ["", "*", ".*", "orders", "orders*", "orders.*.x", "orders.**", "ops.*", "Orders.*", "orders.*\n"]
)
def test_nothing_else_is_a_pattern(text: str) -> None:
    assert not is_pattern(text)


def test_a_prefix_ends_at_its_dot() -> None:
    assert matches("orders.*", "orders.x")
    assert not matches("orders.*", "orders_admin.x")
    assert not matches("orders.*", "orders")
