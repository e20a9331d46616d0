from uuid import UUID

import pytest

from messaging.core.codec import pack_plain
from messaging.core.envelope import CODEC_MSGPACK, Envelope, Kind
from messaging.core.message import contract_of
from messaging.errors import InvalidPayloadError, RemoteError
from messaging.runtime.answers import answer_of
from tests.support.shop import CountOrders


def a_reply(plain: object) -> Envelope:
    return Envelope(
        id=UUID(int=1),
        kind=Kind.REPLY,
        name="orders.count_orders",
        version=1,
        sender="orders",
        audience="users",
        issued_at_ms=0,
        expires_at_ms=1,
        payload=pack_plain(plain, CODEC_MSGPACK),
    )


def test_an_answer_is_of_the_type_that_the_request_promises() -> None:
    assert answer_of(contract_of(CountOrders), a_reply({"ok": 3})) == 3


@pytest.mark.parametrize("plain", [None, [], {}, {"ok": 1, "fault": {}}, {"other": 1}])
def test_a_reply_that_says_neither_is_invalid(plain: object) -> None:
    with pytest.raises(InvalidPayloadError, match="neither ok nor fault"):
        answer_of(contract_of(CountOrders), a_reply(plain))


def test_a_failure_that_the_request_does_not_declare_is_a_remote_error() -> None:
    with pytest.raises(RemoteError, match=r"orders failed on orders\.count_orders/1: sqlite3\.Error: full"):
        answer_of(contract_of(CountOrders), a_reply({"fault": {"error": "sqlite3.Error", "reason": "full"}}))
