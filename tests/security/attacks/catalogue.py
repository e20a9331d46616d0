"""The attacks that must fail, by number: each has a test marked `@pytest.mark.attack(number)`.

What must hold unless a line says otherwise: the handler does not run, the delivery goes where docs/spec.md ("Where a
refused message goes") sends it, a counter by code rises, nothing is answered, and no secret is in any log. Numbers that
are not here were given up together with what they attacked.
"""

import os
from collections.abc import Mapping
from typing import Final

__all__ = ["CASES", "EXPIRED_AMONG", "FORGED_IDS", "FORGED_SENDERS", "IS_FULL", "REPEATS"]

# How much of each flood a test run sends; the time that it takes is what bounds them. `make attacks` sends all of it.
IS_FULL: Final = bool(os.environ.get("ATTACKS_FULL"))
FORGED_IDS: Final = 1_000_000 if IS_FULL else 30_000
EXPIRED_AMONG: Final = 100_000
FORGED_SENDERS: Final = 50_000 if IS_FULL else 25_000
REPEATS: Final = 5_000

CASES: Final[Mapping[int, str]] = {
    1: "an empty, a one-byte and a random body",
    2: "a message cut short at every offset",
    3: "three bit flips in every byte",
    4: "bytes after the end",
    5: "an array of 7 or 9 parts, a map",
    6: "text for bytes, a boolean for an integer, a float for the batch size",
    8: "a repeated key among the header's extensions",
    9: "nesting 2 000 deep, an array that claims 4 G items",
    10: "an extension type or a timestamp in the header",
    11: "invalid UTF-8",
    12: "a body over the size cap",
    13: "version 0 and 2",
    14: "suite 0, 99, and one that is not allowed; no fallback",
    15: "plain JSON or msgpack under the right AMQP type",
    16: "an unknown critical extension; an unknown harmless one",
    17: "a message for B delivered to A",
    18: "an event that is not subscribed, or not sealed to the subscriber",
    19: "the right audience in the wrong queue",
    20: "a retry hop that changed the delivery's routing key alone",
    21: "expired by more than 60 s; issued 2 minutes ahead",
    22: "expiry before issue; a life beyond 30 days or beyond the bundle's limit",
    23: "an unknown sender, an unknown key, A's name over B's key",
    24: "a retired key, also with a backdated issue",
    25: "a compromised key, issued before the revocation",
    26: "a key revoked while its batch root and data key are cached",
    27: "the 14 small-order keys in a bundle",
    28: "a signature of zeros, of 63 and 65 bytes, with S + L",
    29: "each header field set to another valid value",
    30: "ciphertext, key block or signature of another message",
    31: "C's signature over A's header",
    32: "C strips A's signature, names itself and signs anew",
    34: "a subscriber encrypts new content under the shared data key",
    35: "a place outside its batch, batches of 0 and 129",
    36: "a path one hash too short or too long",
    37: "another place in the batch, another batch size",
    40: "a batch of 64 with one corrupted member",
    41: "a sender signs a flipped, a foreign or a short wrap",
    43: "a wrong key commitment",
    44: "one ciphertext that opens under two keys",
    45: "a sender signs a flipped tag",
    47: "a decompression bomb",
    48: "a payload that breaks its schema, nests deeply, or holds NaN",
    49: "secrets in logs, exceptions, representations and pickles",
    50: "the same bytes twice, in one process and in two with one store",
    51: "a crash after the handler and before the acknowledgement",
    52: "a crash inside the handler",
    53: f"{FORGED_IDS:_} forged ids, and the store as large as after a tenth of them".replace("_", " "),
    54: "the store is down; no trust bundle is loaded",
    55: "a dead letter injected again as it was",
    56: "an operator's replay, and the same replay again",
    57: "a replay without grant, of other bytes, nested, of a reply, under a revoked key",
    58: "a replay whose inner bytes were edited",
    59: "a replay of a finished message, without and with force",
    60: "a replay signed by a service",
    61: "a reply from another service, to another request, unknown, second, late",
    62: "forged AMQP properties and headers",
    63: "a bundle that is forged, older, contradictory, expired or ambiguous",
    64: "a key file that is open to others, a link, foreign, truncated; a wrong passphrase",
    65: "a fork after the first publish",
    66: "a data key beyond its limits",
    67: "a rotation: old and new sender, old and new receiver",
    68: "arbitrary and mutated bytes; the published vectors",
    69: "a publisher cancelled, or a signer that fails, between sealing and signing",
    70: "a flood of forgeries that name a real sender",
    71: "other bytes under a recorded id, alone and inside a replay",
    72: "a retired key, a failed id, and another leaf",
    73: "a replay delivered twice while the original fails",
    74: "a grant for one name and a message of another; a sender whose own grant is gone",
    75: "a fault from another service, or about a message never sent; two faults for one failure",
    76: "a forged reply first, the true one second",
    77: "a reply queue that belongs to somebody else",
    78: "header bombs: 560 000 extensions, a recipient of 4 MB",
    79: "a message at the size cap that always fails",
    80: f"an authentic expired message among {EXPIRED_AMONG:,} forgeries".replace(",", " "),
    81: "a new service in a bundle that the receiver does not have yet",
    82: "a receiver's clock 5 minutes off; forgeries that claim to come from the future",
    83: "a replica without the new encryption key",
    84: "a kill between burying, marking and acknowledging",
    85: "names with line feeds, leading zeros, other scripts; a prefix that is no prefix",
    86: "hostile text on an operator's terminal",
    87: f"{FORGED_SENDERS:_} forged senders, against metrics and logs".replace("_", " "),
}
