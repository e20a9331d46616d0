"""The search for secrets finds what it is there to find: or its silence would mean nothing."""

import base64
import logging
from collections.abc import Callable
from typing import Final

import pytest
import structlog

from messaging import MessagingError
from messaging.errors import MalformedError
from messaging.security.suite import fresh_bytes
from tests.support.arena import MARKER
from tests.support.exhibits import Exhibits
from tests.support.realm import Realm

FORMS: Final[dict[str, Callable[[bytes], str]]] = {
    "hex": bytes.hex,
    "upper hex": lambda secret: secret.hex().upper(),
    "hex in a sentence": lambda secret: f"the key a{secret.hex()} was",
    "base64": lambda secret: base64.b64encode(secret).decode(),
    "shifted base64": lambda secret: base64.b64encode(b"x" + secret).decode(),
    "url base64": lambda secret: base64.urlsafe_b64encode(b"xy" + secret).decode(),
    "repr": repr,
    "repr of a list": lambda secret: repr([1, {"key": secret}]),
    "latin": lambda secret: secret.decode("latin-1"),
    "cut": lambda secret: secret.hex()[10:40],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_search_finds_a_key_in_any_form(form: str) -> None:
    exhibits, secret = Exhibits(), fresh_bytes(32)
    exhibits.secrets.add(secret)
    exhibits.write(f"before {FORMS[form](secret)} after")
    exhibits.write("nothing here " + fresh_bytes(32).hex())

    assert len(exhibits.found()) == 1


@pytest.mark.parametrize("form", ["plain", "hex", "base64"])
def test_the_search_finds_a_marker_in_any_form(form: str) -> None:
    exhibits = Exhibits()
    told = {"plain": MARKER, "hex": MARKER.encode().hex(), "base64": base64.b64encode(b"ab" + MARKER.encode()).decode()}
    exhibits.write(f"before {told[form]} after")

    assert len(exhibits.found(MARKER)) == 1


def test_the_search_hears_logs_errors_and_keys() -> None:
    exhibits = Exhibits()
    with exhibits.watching(), exhibits.listening():
        realm = Realm()
        secret = realm.signer("users").secret()
        structlog.get_logger().info("test.logged", key=secret)
        logging.getLogger("another").debug("it is %s", secret.hex())
        with pytest.raises(MessagingError):
            raise MalformedError(f"bad {secret!r}")

    assert secret in exhibits.secrets
    # A log event, a line of the standard library, an error in two ways.
    assert len(exhibits.found()) == 4
