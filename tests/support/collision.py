"""One AES-GCM ciphertext that opens under two keys: what a key commitment is there to stop.

GCM's tag is linear in the ciphertext for each key, so one free block is enough to make the tags of two keys equal.
Source: Dodis, Grubbs, Ristenpart, Woodage: Fast Message Franking (CRYPTO 2018), section 4.
"""

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["colliding"]

_BLOCK: Final = 16
_REDUCTION: Final = 0xE1 << 120
_ONE: Final = 1 << 127


def colliding(left: bytes, right: bytes, *, content: bytes, aad: bytes) -> bytes:
    """Return ciphertext and tag that open under both keys; under `left` they begin with `content`.

    Args:
        left, right: 32-byte keys.
        content: Plaintext under `left`, a multiple of 16 bytes; one block more follows it, of nobody's choice.
        aad: The same for both.
    """
    if len(content) % _BLOCK:
        raise ValueError("the content is a multiple of 16 bytes")
    ahead = bytes(byte ^ mask for byte, mask in zip(content, _keystream(left, len(content)), strict=True))
    blocks = [*_blocks(_padded(aad)), *_blocks(ahead)]
    length = (len(aad) * 8).to_bytes(8, "big") + ((len(ahead) + _BLOCK) * 8).to_bytes(8, "big")
    keys = [_hash_key(key) for key in (left, right)]
    masks = [int.from_bytes(_encrypted(key, b"\0" * 12 + b"\0\0\0\1"), "big") for key in (left, right)]
    # Tag of a key: mask + sum(block * H^(n - place)); the free block stands before the length block, at H^2.
    sums = [_hashed(key, [*blocks, bytes(_BLOCK), length]) ^ mask for key, mask in zip(keys, masks, strict=True)]
    squares = [_times(key, key) for key in keys]
    free = _times(sums[0] ^ sums[1], _inverse(squares[0] ^ squares[1]))
    last = free.to_bytes(_BLOCK, "big")
    tag = sums[0] ^ _times(free, squares[0])
    return ahead + last + tag.to_bytes(_BLOCK, "big")


def _encrypted(key: bytes, block: bytes) -> bytes:
    # One raw block of the cipher is what GCM itself is made of.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(block) + encryptor.finalize()


def _hash_key(key: bytes) -> int:
    return int.from_bytes(_encrypted(key, bytes(_BLOCK)), "big")


def _keystream(key: bytes, size: int) -> bytes:
    counters = range(2, 2 + -(-size // _BLOCK))
    return b"".join(_encrypted(key, bytes(12) + counter.to_bytes(4, "big")) for counter in counters)[:size]


def _hashed(key: int, blocks: list[bytes]) -> int:
    total = 0
    for block in blocks:
        total = _times(total ^ int.from_bytes(block, "big"), key)
    return total


def _times(left: int, right: int) -> int:
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_REDUCTION if right & 1 else 0)
    return product


def _inverse(value: int) -> int:
    # Fermat: a^(2^128 - 2).
    result, power = _ONE, value
    for _ in range(127):
        power = _times(power, power)
        result = _times(result, power)
    return result


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % _BLOCK)


def _blocks(raw: bytes) -> list[bytes]:
    return [raw[at : at + _BLOCK] for at in range(0, len(raw), _BLOCK)]
