"""Stacks that a sampling profiler saw: read, named without paths or addresses, and sorted into parts of the work.

The profiler is py-spy with native frames: one line for each stack, `frame;frame;… count`, a frame being `function
(file:line)`. What C code does is counted where it belongs, so an extension's leaf decides: a hash in OpenSSL is
cryptography, whoever asked for it; the interpreter itself belongs to the Python frame that it runs.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["PARTS", "Frame", "Stack", "frame_of", "part_of", "read_stacks", "shares"]

_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)")
_INSTALLED: Final = re.compile(r"^.*/(?:site-packages|python3\.\d+)/")
_BINARY: Final = re.compile(r"(?:\.cpython-[^.]*|\.abi3)?\.so[.\d]*$|\.c(?:\.h)?$|\.h$")
# Whatever comes before is the way into the loop, the same for all.
_LOOP: Final = "BaseEventLoop._run_once"

CRYPTO: Final = "cryptography (OpenSSL)"
MSGPACK: Final = "msgpack"
MODEL: Final = "pydantic"
SOCKET: Final = "sockets: send, receive, poll"
GARBAGE: Final = "garbage collection"
ASYNCIO: Final = "asyncio"
CLIENT: Final = "aio-pika, aiormq, pamqp"
OURS: Final = ("runtime", "security", "core", "transports", "stores")
REST_OF_OURS: Final = "messaging, its other modules"
DRIVER: Final = "the benchmark itself"
OTHER: Final = "everything else"
PARTS: Final = (
    CRYPTO,
    MSGPACK,
    MODEL,
    *(f"messaging.{package}" for package in OURS),
    REST_OF_OURS,
    ASYNCIO,
    SOCKET,
    CLIENT,
    GARBAGE,
    DRIVER,
    OTHER,
)
# By the beginning of a module's name, the first that fits; of libc only its calls into the kernel count as such.
_BY_MODULE: Final = (
    ("_rust", CRYPTO),
    ("libcrypto", CRYPTO),
    ("libssl", CRYPTO),
    ("_hashopenssl", CRYPTO),
    ("_cmsgpack", MSGPACK),
    ("msgpack", MSGPACK),
    ("_pydantic_core", MODEL),
    ("pydantic", MODEL),
    ("socketmodule", SOCKET),
    ("selectmodule", SOCKET),
    ("selectors", SOCKET),
    ("_asynciomodule", ASYNCIO),
    ("asyncio", ASYNCIO),
    ("aio_pika", CLIENT),
    ("aiormq", CLIENT),
    ("pamqp", CLIENT),
    ("yarl", CLIENT),
    *((f"messaging.{package}", f"messaging.{package}") for package in OURS),
    ("messaging", REST_OF_OURS),
    ("benchmarks", DRIVER),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One function on a stack.

    Attributes:
        function: Its name; of machine code without one that of its library.
        module: Its module, or the library's or C file's name.
    """

    function: str
    module: str

    def __str__(self) -> str:
        return self.function if self.function == self.module else f"{self.function} ({self.module})"


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack from the event loop upwards, and how often it was seen."""

    frames: tuple[Frame, ...]
    count: int


def frame_of(text: str) -> Frame:
    """Return a frame as a name that is the same on every machine."""
    match = _FRAME.fullmatch(text)
    if match is None:
        return Frame(text, text)
    module = _module_of(match["file"])
    # Machine code without symbols has an address that says nothing, and is another one each time.
    function = module if match["function"].startswith("0x") else match["function"]
    return Frame(function, module)


def _module_of(file: str) -> str:
    if file.startswith("<"):
        return file.strip("<>").removeprefix("frozen ")
    name = _INSTALLED.sub("", file)
    if name.endswith(".py"):
        inner = name.rpartition("/")[2] if name.startswith("/") else name
        return inner.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return _BINARY.sub("", name.rpartition("/")[2])


def read_stacks(text: str) -> list[Stack]:
    """Return what a profiler wrote; stacks that are one but for lines and addresses are added up.

    Raises:
        ValueError: a line is something else.
    """
    found: Counter[tuple[Frame, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        found[_inner([frame_of(frame) for frame in stack.split(";")])] += int(count)
    return [Stack(frames, count) for frames, count in sorted(found.items(), key=lambda item: -item[1])]


def _inner(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    names = [frame.function for frame in frames]
    begin = names.index(_LOOP) if _LOOP in names else 0
    inner = frames[begin:]
    # A library without symbols shows as itself, once for each of its functions.
    return tuple(frame for before, frame in zip((None, *inner), inner, strict=False) if frame != before)


def part_of(frames: Iterable[Frame]) -> str:
    """Return the part of the work that a stack belongs to, one of `PARTS`."""
    for frame in reversed(tuple(frames)):
        if frame.function.startswith("gc_collect"):
            return GARBAGE
        for beginning, part in _BY_MODULE:
            if frame.module == beginning or frame.module.startswith(f"{beginning}."):
                return part
    return OTHER


def shares(stacks: Iterable[Stack]) -> dict[str, float]:
    """Return the share of each part that was seen, in the order of `PARTS`; together 1."""
    counts: Counter[str] = Counter()
    for stack in stacks:
        counts[part_of(stack.frames)] += stack.count
    return {part: counts[part] / counts.total() for part in PARTS if counts[part]}
