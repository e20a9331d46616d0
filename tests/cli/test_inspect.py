"""One sealed message, without a key, with a key file, or with its own key."""

import json

from messaging.core.envelope import CODEC_MSGPACK, CODEC_RAW
from tests.support.ceremony import Ceremony
from tests.support.sealed_file import MESSAGE_ID, sealed_file


class TestInspect:
    def test_who_sent_what_to_whom_without_any_key(self, ceremony: Ceremony) -> None:
        shown = ceremony.json("inspect", sealed_file(ceremony))

        assert (shown["sender"], shown["audience"], shown["name"]) == ("web", "shop", "shop.place_order")
        assert shown["message_id"] == str(MESSAGE_ID)
        assert [reader.partition(" ")[0] for reader in shown["readable_by"]] == ["group:ops", "shop"]
        assert shown["proven"] is False
        assert "4200" not in json.dumps(shown)

    def test_whether_it_is_true_by_the_bundle_of_the_day(self, ceremony: Ceremony) -> None:
        message = sealed_file(ceremony)

        by_folder = ceremony.json("inspect", message, "--trust", ceremony.trust)
        by_file = ceremony.call("inspect", message, "--trust", ceremony.trust / "bundles" / "00000001.bundle")
        by_roots = ceremony.json(
            "inspect", message, "--trust", ceremony.trust, "--roots", ceremony.home / "trust.roots"
        )

        assert (by_folder["proven"], by_folder["key_state"]) == (True, "active")
        assert by_folder == by_roots
        assert "proven by bundle" in by_file

    def test_a_compromised_key_proves_nothing(self, ceremony: Ceremony) -> None:
        message = sealed_file(ceremony)
        ceremony.change("revoke", ceremony.content["services"]["web"]["sign"][0]["kid"], "--reason", "compromise")
        ceremony.sign()

        shown = ceremony.json("inspect", message, "--trust", ceremony.trust)

        assert (shown["proven"], shown["key_state"]) == (False, "compromised")

    def test_what_was_altered_or_is_no_message_is_refused(self, ceremony: Ceremony) -> None:
        message = sealed_file(ceremony)
        raw = bytearray(message.read_bytes())
        raw[-10] ^= 1
        message.write_bytes(raw)

        assert "altered or forged" in ceremony.call("inspect", message, "--trust", ceremony.trust, code=4)
        assert "unproven" not in ceremony.call("inspect", message)
        message.write_bytes(b"hello")
        assert "not a sealed message" in ceremony.call("inspect", message, code=4)


class TestOpenAndReveal:
    def test_with_a_key_file(self, ceremony: Ceremony) -> None:
        message = sealed_file(ceremony)

        result = ceremony.installation.call("open", str(message), "--keys", str(ceremony.keys), "--as", "shop")
        proven = ceremony.json("open", message, "--keys", ceremony.keys, "--as", "shop", "--trust", ceremony.trust)

        assert json.loads(result.stdout) == {"total_cents": 4200}
        assert "unproven: says to be from web" in result.stderr
        assert (proven["proven"], proven["payload"]) == (True, {"total_cents": 4200})

    def test_with_the_key_of_this_one_message(self, ceremony: Ceremony) -> None:
        message = sealed_file(ceremony, codec=CODEC_MSGPACK)
        words = ceremony.home / "words"

        key = ceremony.call(
            "reveal", message, "--keys", ceremony.keys, "--as", "ops:alice", "--passphrase-file", words
        ).strip()
        opened = ceremony.call("open", message, "--message-key", key, "--trust", ceremony.trust)

        assert len(key) == 64
        assert '"total_cents": 4200' in opened
        other = sealed_file(ceremony)
        assert "not that of this message" in ceremony.call("open", other, "--message-key", key, code=4)
        assert "64 hex digits" in ceremony.call("open", other, "--message-key", "xy", code=2)

    def test_headers_and_bytes_are_shown(self, ceremony: Ceremony) -> None:
        message = sealed_file(ceremony, codec=CODEC_RAW, headers={"tenant": "acme"})

        said = ceremony.installation.call("open", str(message), "--keys", str(ceremony.keys), "--as", "shop").stdout

        assert json.loads(said) == {"encoding": "base64", "headers": {"tenant": "acme"}, "payload": "/wA="}

    def test_whoever_cannot_is_told_who_can(self, ceremony: Ceremony) -> None:
        message = sealed_file(ceremony)

        stranger = ceremony.call("open", message, "--keys", ceremony.keys, "--as", "web", code=4)
        nobody = ceremony.call("open", message, "--keys", ceremony.keys, code=2)
        (ceremony.keys / "web.key").unlink()
        (ceremony.keys / "ops.alice.key").unlink()

        assert "those of group:ops, shop open it" in stranger
        assert "say whose key opens it with --as" in nobody
        assert "4200" in ceremony.call("open", message, "--keys", ceremony.keys)
