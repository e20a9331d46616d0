"""Stacks of a profiler: the same on every machine, and each in one part."""

import pytest

from benchmarks.flame_stacks import PARTS, Frame, part_of, read_stacks, shares

LOOP = "0x7f01 (libc.so.6);main (benchmarks/load.py:255);BaseEventLoop._run_once (asyncio/base_events.py:1922)"


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("Publisher.send (messaging/runtime/publisher.py:137)", "Publisher.send (messaging.runtime.publisher)"),
        ("<lambda> (/srv/env/lib/python3.11/site-packages/yarl/_url.py:3)", "<lambda> (yarl._url)"),
        ("run (/usr/lib/python3.11/asyncio/runners.py:190)", "run (asyncio.runners)"),
        ("work (/srv/secret/place.py:1)", "work (place)"),
        ("f (messaging/__init__.py:1)", "f (messaging)"),
        ("0x7f9b6 (libcrypto.so.3)", "libcrypto"),
        ("0x7f9b6 (cryptography/hazmat/bindings/_rust.abi3.so)", "_rust"),
        ("0x7f9b6 (/srv/x/pydantic_core/_pydantic_core.cpython-311-x86_64-linux-gnu.so)", "_pydantic_core"),
        ("send (libc.so.6)", "send (libc)"),
        ("select (selectmodule.c.h:841)", "select (selectmodule)"),
        ("__init__ (<string>:2)", "__init__ (string)"),
        ("_run_code (<frozen runpy>:88)", "_run_code (runpy)"),
        ("<dictcomp> (a (b).py:3)", "<dictcomp> (a (b))"),
        ("process 1", "process 1"),
    ],
)
def test_a_frame_says_nothing_of_the_machine(text: str, frame: str) -> None:
    [stack] = read_stacks(f"{text} 1")

    assert [str(one) for one in stack.frames] == [frame]


def test_what_differs_in_lines_and_addresses_is_one_stack_from_the_loop_upwards() -> None:
    text = (
        f"{LOOP};seal (messaging/security/seal.py:1);0x1 (libcrypto.so.3);0x2 (libcrypto.so.3) 3\n"
        f"{LOOP};seal (messaging/security/seal.py:2);0x3 (libcrypto.so.3) 4\n"
        f"{LOOP};Handle._run (asyncio/events.py:80) 9\n"
    )

    first, second = read_stacks(text)

    assert (first.count, second.count) == (9, 7)
    assert [frame.module for frame in second.frames] == ["asyncio.base_events", "messaging.security.seal", "libcrypto"]


def test_what_is_no_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        read_stacks("no stack at all")


@pytest.mark.parametrize(
    ("modules", "part"),
    [
        (("messaging.security.seal", "_hashopenssl", "libcrypto"), "cryptography (OpenSSL)"),
        (("messaging.runtime.sending", "libpython3.11", "libc"), "messaging.runtime"),
        (("messaging.core.codec", "_cmsgpack", "object"), "msgpack"),
        (("messaging.core.codec", "_pydantic_core"), "pydantic"),
        (("messaging.transports.amqp.fast", "socketmodule", "libc"), "sockets: send, receive, poll"),
        (("asyncio.base_events", "_asynciomodule"), "asyncio"),
        (("messaging.service",), "messaging, its other modules"),
        (("messaging.stores.memory",), "messaging.stores"),
        (("messagingpack",), "everything else"),
        (("benchmarks.load",), "the benchmark itself"),
        (("aiormq.channel",), "aio-pika, aiormq, pamqp"),
        (("messaging.core.ids", "uuid"), "messaging.core"),
        ((), "everything else"),
    ],
)
def test_the_innermost_known_code_decides(modules: tuple[str, ...], part: str) -> None:
    assert part_of([Frame("f", module) for module in modules]) == part
    assert part in PARTS


def test_collecting_garbage_is_nobodys() -> None:
    frames = [Frame("flush", "messaging.runtime.signing"), Frame("gc_collect_main", "libpython3.11")]

    assert part_of(frames) == "garbage collection"


def test_shares_make_one() -> None:
    found = shares(read_stacks("f (messaging/core/ids.py:1) 1\nf (asyncio/events.py:1) 2\ng (asyncio/events.py:1) 1"))

    assert found == {"messaging.core": 0.25, "asyncio": 0.75}
