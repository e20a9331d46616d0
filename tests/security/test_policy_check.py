"""Questions to the policy, and answers that name the rule or the missing line."""

import json
from pathlib import Path

import pytest

from messaging.core.envelope import Kind
from messaging.security.bundle import TrustBundle
from messaging.security.policy_check import ask_to_read, ask_to_replay, ask_to_send
from tests.support.trusting import first


@pytest.fixture
def bundle(tmp_path: Path) -> TrustBundle:
    folder = first(tmp_path).folder
    raw = folder.current()
    assert raw is not None
    return folder.verified(raw)


def test_the_rule_that_decided(bundle: TrustBundle) -> None:
    answer = ask_to_send(bundle, "users", Kind.COMMAND, "orders.place_order")

    assert answer.is_allowed
    assert json.loads(answer.because.removeprefix("policy.send: "))["name"] == "orders.place_order"
    assert answer.missing == ""


@pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.REQUEST, Kind.EVENT])
def test_the_line_that_is_missing(bundle: TrustBundle, kind: Kind) -> None:
    answer = ask_to_send(bundle, "users", kind, "orders.wipe")

    line = {"from": "users", "kind": kind.word, "name": "orders.wipe", "to": "orders"}
    assert not answer.is_allowed
    assert answer.missing == f"policy.send: {json.dumps(line)}"


def test_an_owner_publishes_without_a_rule(bundle: TrustBundle) -> None:
    assert ask_to_send(bundle, "orders", Kind.EVENT, "orders.order_placed").is_allowed


def test_who_reads_an_event(bundle: TrustBundle) -> None:
    yes, no = (ask_to_read(bundle, service, "orders.order_placed") for service in ("users", "orders"))

    assert yes.is_allowed
    assert no.missing == 'policy.subscribe: {"orders.order_placed": ["users", "orders"]}'
    assert "seals orders.other to nobody" in ask_to_read(bundle, "users", "orders.other").because


def test_who_replays(bundle: TrustBundle) -> None:
    assert ask_to_replay(bundle, "ops:alice", "orders.place_order", "orders").is_allowed
    assert ask_to_replay(bundle, "ops:alice", "orders.place_order", "orders", force=True).missing.endswith(
        '"force": true}'
    )
    assert "only persons" in ask_to_replay(bundle, "users", "orders.place_order", "orders").because


def test_whoever_has_no_keys_may_nothing(bundle: TrustBundle) -> None:
    answers = [
        ask_to_send(bundle, "nobody", Kind.COMMAND, "orders.place_order"),
        ask_to_send(bundle, "users", Kind.COMMAND, "nobody.act"),
        ask_to_read(bundle, "nobody", "orders.order_placed"),
        ask_to_replay(bundle, "ops:bob", "orders.place_order", "orders"),
    ]

    assert [answer.is_allowed for answer in answers] == [False] * 4
    assert all("messaging trust add" in answer.because and not answer.missing for answer in answers)
