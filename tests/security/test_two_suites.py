"""Suite 2 beside suite 1: what is sealed in which, who accepts it, and that nothing ever falls back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from messaging.core.envelope import Kind
from messaging.errors import (
    ConfigurationError,
    DecryptionError,
    Disposition,
    MalformedError,
    SealError,
    UnknownKeyError,
    UnsupportedError,
)
from messaging.security import suite
from messaging.security.bundle import OPS_GROUP
from messaging.security.development import encryption_entry
from messaging.security.evidence import look_at, message_key, open_with
from messaging.security.keyblock import KeyBlock, Row, pack_block, parse_block
from messaging.security.keys import DecryptionKey
from messaging.security.outer import split_parts
from messaging.security.verified import ExpectedReply
from tests.support.realm import EVERY_KIND, START_MS, Realm, resign

PAYLOAD = b"\x81\xa1n\x01"
HEADER_SUITE, HEADER_CMT = 0, 15

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def realm() -> Realm:
    return Realm(suites=(2, 1))


def suites(*numbers: int) -> Edit:
    return lambda payload: payload.update(suites=list(numbers))


def suite_of(body: bytes) -> int:
    return look_at(body).header.address.suite


def opened(realm: Realm, body: bytes, name: str = "orders") -> bytes:
    opener = realm.opener(name)
    return opener.decrypt(opener.verify(body, kinds=EVERY_KIND)).payload


def refusal(realm: Realm, body: bytes, name: str = "orders") -> SealError:
    with pytest.raises(SealError) as caught:
        opened(realm, body, name)
    return caught.value


def hybrid(keys: Sequence[DecryptionKey]) -> DecryptionKey:
    return next(key for key in keys if key.suite == suite.SUITE_2)


def without_hybrid(entry: dict[str, Any]) -> None:
    entry["enc"] = [key for key in entry["enc"] if key["alg"] != suite.XWING]


class TestSealing:
    def test_takes_the_first_suite_of_the_bundle(self, realm: Realm) -> None:
        body = realm.sealed()

        block = parse_block(split_parts(body).block, suite=2)
        assert suite_of(body) == 2
        assert {row.rid for row in block.rows} == {"orders", OPS_GROUP}
        assert {row.rkid for row in block.rows} == {
            hybrid([*realm.keyrings["orders"].decryption.values()]).kid,
            hybrid(realm.group_keys).kid,
        }
        assert opened(realm, body) == PAYLOAD

    def test_follows_the_bundle_from_one_message_to_the_next(self, realm: Realm) -> None:
        sealer = realm.sealer("users")
        found = []

        for numbers in ((1,), (1, 2), (2, 1), (2,)):
            realm.publish(suites(*numbers))
            body = sealer.seal(realm.envelope(), routing_key="orders.place_order.v1")
            found.append((suite_of(body), opened(realm, body)))

        assert found == [(1, PAYLOAD), (1, PAYLOAD), (2, PAYLOAD), (2, PAYLOAD)]

    def test_every_kind_comes_through(self, realm: Realm) -> None:
        request = realm.sealed(kind=Kind.REQUEST, name="orders.get_order")
        asked = realm.opener("orders").verify(request, kinds=EVERY_KIND)
        expected = ExpectedReply(
            mid=asked.id.bytes, leaf=asked.leaf, aud="orders", typ=asked.type, rto=asked.reply_to or ""
        )
        users = realm.opener("users")
        command = realm.sealed()
        fault, replay = realm.fault(command), realm.replay(command)

        reply = users.decrypt(users.verify_reply(realm.reply(request), expected))
        outer = realm.opener("orders").verify(replay, kinds=EVERY_KIND)
        inner = realm.opener("orders").verify_replayed(command, outer, failed_before=True)

        assert reply.kind is Kind.REPLY
        assert users.verify_own_original(command, users.verify(fault, kinds=EVERY_KIND)).type == "orders.place_order/1"
        assert inner.leaf == split_parts(command).leaf()
        assert {suite_of(body) for body in (request, command, fault, replay)} == {2}

    @pytest.mark.parametrize("whose", ["orders", OPS_GROUP])
    def test_a_recipient_without_a_key_of_the_suite_is_named_and_nothing_falls_back(
        self, realm: Realm, whose: str
    ) -> None:
        def edit(payload: dict[str, Any]) -> None:
            without_hybrid(payload["groups" if whose == OPS_GROUP else "services"][whose])

        realm.publish(edit)

        with pytest.raises(ConfigurationError, match=f"no active suite 2 encryption key of {whose!r}"):
            realm.sealed()

    @pytest.mark.parametrize("state", ["next", "retiring", "retired"])
    def test_a_key_of_the_suite_that_is_not_active_does_not_count(self, realm: Realm, state: str) -> None:
        realm.publish(lambda payload: payload["services"]["orders"]["enc"][1].update(state=state))

        with pytest.raises(ConfigurationError, match="no active suite 2 encryption key of 'orders'"):
            realm.sealed()


class TestOpening:
    def test_what_the_bundle_lists_behind_the_first_is_accepted(self, realm: Realm) -> None:
        body = realm.sealed()

        realm.publish(suites(1, 2))

        assert opened(realm, body) == PAYLOAD

    @pytest.mark.parametrize(("first", "then"), [((1,), (2,)), ((2,), (1,))])
    def test_what_the_bundle_does_not_list_is_unsupported(
        self, realm: Realm, first: tuple[int], then: tuple[int]
    ) -> None:
        realm.publish(suites(*first))
        body = realm.sealed()
        realm.publish(suites(*then))

        error = refusal(realm, body)

        assert (type(error), error.disposition) == (UnsupportedError, Disposition.UNAUTHENTIC)
        assert f"suite {first[0]} is not among" in str(error)

    def test_a_receiver_may_accept_fewer_than_the_bundle(self, realm: Realm) -> None:
        body = realm.sealed()

        with pytest.raises(UnsupportedError):
            realm.opener("orders", suites=frozenset({1})).verify(body, kinds=EVERY_KIND)

    def test_a_receiver_cannot_accept_more_than_the_bundle(self, realm: Realm) -> None:
        body = realm.sealed()
        realm.publish(suites(1))

        with pytest.raises(UnsupportedError):
            realm.opener("orders", suites=frozenset({1, 2})).verify(body, kinds=EVERY_KIND)

    def test_a_suite_that_a_newer_bundle_brought_is_waited_for(self, realm: Realm) -> None:
        realm.publish(suites(1))
        realm.publish(suites(2), to="users")
        body = realm.sealed()

        error = refusal(realm, body)
        realm.stores["orders"].replace(realm.change())

        assert (type(error), error.disposition) == (UnsupportedError, Disposition.LAG)
        assert opened(realm, body) == PAYLOAD

    def test_a_reply_in_a_suite_that_is_not_listed_leaves_the_request_pending(self, realm: Realm) -> None:
        request = realm.sealed(kind=Kind.REQUEST, name="orders.get_order")
        asked = realm.opener("orders").verify(request, kinds=EVERY_KIND)
        reply = realm.reply(request)
        realm.publish(suites(1))
        expected = ExpectedReply(
            mid=asked.id.bytes, leaf=asked.leaf, aud="orders", typ=asked.type, rto=asked.reply_to or ""
        )

        with pytest.raises(UnsupportedError):
            realm.opener("users").verify_reply(reply, expected)

    def test_a_replay_of_a_suite_that_is_not_listed_any_more_is_refused(self, realm: Realm) -> None:
        realm.publish(suites(1, 2))
        old = realm.sealed()
        realm.publish(suites(2))
        outer = realm.opener("orders").verify(realm.replay(old), kinds=EVERY_KIND)

        with pytest.raises(UnsupportedError) as caught:
            realm.opener("orders").verify_replayed(old, outer, failed_before=True)

        assert caught.value.disposition is Disposition.REFUSED

    def test_old_messages_can_be_looked_at_whatever_the_bundle_lists_now(self, realm: Realm) -> None:
        realm.publish(suites(1))
        body = realm.sealed()
        realm.publish(suites(2))
        opener = realm.opener("ops:alice")

        assert opener.decrypt(opener.verify_archived(body)).payload == PAYLOAD
        assert opener.verify_dead(body, service="orders").letter.type == "orders.place_order/1"

    def test_evidence_opens_by_the_key_of_either_suite(self, realm: Realm) -> None:
        second = realm.sealed()
        realm.publish(suites(1))
        first = realm.sealed()

        for body in (first, second):
            sighting = look_at(body)
            assert open_with(sighting, message_key(sighting, realm.keyrings["orders"])).payload == PAYLOAD


class TestHostileSender:
    """Somebody with a good signing key mixes what does not belong together."""

    def mixed(self, realm: Realm, body: bytes, *, keys: Sequence[tuple[str, DecryptionKey]], claims: int) -> bytes:
        """Return the message with rows wrapped to other keys, under a suite of one's choice."""
        signer, dek_id, secret = realm.signer("users"), bytes(16), bytes(32)
        rows = []
        for rid, key in keys:
            info = suite.wrap_info(
                suite=claims,
                sender="users",
                skid=signer.kid,
                rid=rid,
                rkid=key.kid,
                dek_id=dek_id,
                made_at_ms=START_MS,
            )
            wrapped = key.public.wrap(secret, info).ljust(suite.WRAPPED_BYTES[claims], b"\0")
            rows.append(Row(rid, key.kid, wrapped[: suite.WRAPPED_BYTES[claims]]))
        block = pack_block(KeyBlock(dek_id, START_MS, tuple(sorted(rows))))
        return resign(body, signer, fields={HEADER_SUITE: claims}, block=block)

    @pytest.mark.parametrize(("claims", "wraps_in"), [(2, 1), (1, 2)])
    def test_a_row_for_a_key_of_the_other_suite_is_failed_content_and_stops_no_queue(
        self, realm: Realm, claims: int, wraps_in: int
    ) -> None:
        keys = realm.keyrings["orders"].decryption.values()
        own = next(key for key in keys if key.suite == wraps_in)
        group = next(key for key in realm.group_keys if key.suite == claims)

        error = refusal(
            realm, self.mixed(realm, realm.sealed(), keys=[("orders", own), (OPS_GROUP, group)], claims=claims)
        )

        assert (type(error), error.disposition) == (UnknownKeyError, Disposition.CONTENT)

    def test_nobody_s_key_of_the_other_suite_opens_evidence(self, realm: Realm) -> None:
        own = next(key for key in realm.keyrings["orders"].decryption.values() if key.suite == 1)
        body = self.mixed(realm, realm.sealed(), keys=[("orders", own)], claims=2)

        with pytest.raises(SealError, match="not sealed to a key of 'orders'"):
            message_key(look_at(body), realm.keyrings["orders"])

    @pytest.mark.parametrize("claims", [1, 2])
    def test_the_block_of_one_suite_in_a_message_of_the_other_is_malformed(self, realm: Realm, claims: int) -> None:
        realm.publish(suites(3 - claims, claims))

        error = refusal(realm, resign(realm.sealed(), realm.signer("users"), fields={HEADER_SUITE: claims}))

        assert (type(error), error.disposition) == (MalformedError, Disposition.CONTENT)

    def test_a_wrap_is_bound_to_its_suite(self, realm: Realm) -> None:
        body = realm.sealed()
        block = parse_block(split_parts(body).block, suite=2)
        key = hybrid([*realm.keyrings["orders"].decryption.values()])
        signer = realm.signer("users")
        facts = {"sender": "users", "skid": signer.kid, "rid": "orders", "rkid": key.kid, "dek_id": block.dek_id}
        wrapped = key.public.wrap(bytes(32), suite.wrap_info(**facts, made_at_ms=block.made_at_ms, suite=1))  # type: ignore[arg-type]
        rows = tuple(replace(row, wrapped=wrapped) if row.rid == "orders" else row for row in block.rows)

        error = refusal(realm, resign(body, signer, block=pack_block(replace(block, rows=rows))))

        assert (type(error), error.disposition) == (DecryptionError, Disposition.CONTENT)

    def test_an_unknown_suite_is_unsupported_whoever_signs(self, realm: Realm) -> None:
        error = refusal(realm, resign(realm.sealed(), realm.signer("users"), fields={HEADER_SUITE: 3}))

        assert (type(error), error.disposition) == (UnsupportedError, Disposition.UNAUTHENTIC)


class TestBundle:
    def test_lists_keys_of_both_suites(self, realm: Realm) -> None:
        bundle = realm.stores["orders"].current

        assert (bundle.suites, bundle.suite) == ((2, 1), 2)
        assert [entry.key.suite for entry in bundle.encryption["orders"]] == [1, 2]
        assert [entry.key.suite for entry in bundle.encryption[OPS_GROUP]] == [1, 2]

    @pytest.mark.parametrize("half", [0, 1], ids=["lattice half", "curve half"])
    def test_no_half_of_a_hybrid_key_serves_twice(self, realm: Realm, half: int) -> None:
        own = hybrid([*realm.keyrings["orders"].decryption.values()])
        other = DecryptionKey.generate("test", suite.SUITE_2)
        cuts = (0, 64), (64, 96)
        secrets = [key.secret()[cuts[at][0] : cuts[at][1]] for at, key in enumerate((other, other))]
        secrets[half] = own.secret()[cuts[half][0] : cuts[half][1]]
        twin = DecryptionKey(b"".join(secrets), realm="test")

        with pytest.raises(ConfigurationError, match="serves twice"):
            realm.publish(lambda payload: payload["services"]["billing"]["enc"].append(encryption_entry(twin)))

    def test_the_curve_half_of_a_hybrid_key_is_no_key_of_suite_1(self, realm: Realm) -> None:
        twin = DecryptionKey(hybrid([*realm.keyrings["orders"].decryption.values()]).secret()[64:], realm="test")

        with pytest.raises(ConfigurationError, match="serves twice"):
            realm.publish(lambda payload: payload["services"]["billing"]["enc"].append(encryption_entry(twin)))

    @pytest.mark.parametrize(
        ("algorithm", "problem"), [(1, "between 2 and 3"), (2, "32 bytes"), (4, "between 2 and 3")]
    )
    def test_a_key_under_another_algorithm_is_refused(self, realm: Realm, algorithm: int, problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem):
            realm.publish(lambda payload: payload["services"]["orders"]["enc"][1].update(alg=algorithm))

    def test_a_hybrid_key_signs_nothing(self, realm: Realm) -> None:
        entry = encryption_entry(DecryptionKey.generate("test", suite.SUITE_2))

        with pytest.raises(ConfigurationError, match="between 1 and 1"):
            realm.publish(lambda payload: payload["services"]["orders"]["sign"].append(entry))
