"""`python -m services.demo`: the services exchange sealed messages; a short story, told while it happens.

Exit codes: 0 the story ended well, 1 it could not, 130 interrupted. Nothing is left running in any case.
"""

import argparse
import asyncio
import fcntl
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import httpx

from messaging import MessagingError
from messaging.cli.exits import known_error
from messaging.cli.render import problem
from messaging.operators import open_operator
from services.demo.acts import Acts
from services.demo.brokers import FoundBroker, find_broker
from services.demo.errors import DemoError
from services.demo.journal import keep_journal
from services.demo.narrator import Narrator
from services.demo.settings import DemoSettings
from services.demo.stages import OPERATOR, open_stage
from services.demo.wiretap import Wiretap

_HTTP_TIMEOUT_S: Final = 60.0
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell the story; return the exit code."""
    options = _parser().parse_args(arguments)
    # SIGTERM ends the demo as Ctrl-C does: in order.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _tell(options.folder.absolute(), embedded=options.broker == "embedded")
    except (KeyboardInterrupt, asyncio.CancelledError):
        problem("interrupted; everything that was started is stopped")
        return _INTERRUPTED
    except (MessagingError, OSError, ExceptionGroup) as error:
        known = known_error(error)
        if known is None:
            raise
        problem(known)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.demo", description="Services exchange sealed messages.")
    parser.add_argument(
        "--broker",
        choices=["auto", "embedded"],
        default="auto",
        help="auto: MESSAGING_BROKER_URL, Docker Compose, an installed rabbitmq-server, else the embedded one",
    )
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where keys, databases and logs go")
    return parser


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _tell(folder: Path, *, embedded: bool) -> None:
    narrator = Narrator()
    with _alone_in(folder), keep_journal(folder):
        narrator.step("A broker")
        given_url = DemoSettings().broker_url
        with find_broker(folder / "broker", given_url=given_url, embedded=embedded, report=narrator.tell) as broker:
            narrator.tell(f"this is {broker.words}", mark="good")
            asyncio.run(_interruptible(broker, folder, narrator))
    narrator.close(f"Done in {narrator.elapsed_s:.1f} s; nothing is left running. Logs and databases: {folder}")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Empty the folder and keep other demos out of it for the time of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demo runs in {folder}; wait for it, or take another --folder") from None
        for name in ("data", "keys", "logs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        yield


async def _interruptible(broker: FoundBroker, folder: Path, narrator: Narrator) -> None:
    """Perform the story; SIGTERM cancels it as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("the story runs in a task")
    # An exception out of a signal handler could be raised inside a callback, which would swallow it.
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await _perform(broker, folder, narrator)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, _interrupt)


async def _perform(broker: FoundBroker, folder: Path, narrator: Narrator) -> None:
    narrator.step("Three services, each with keys of its own, and an operator")
    async with open_stage(broker, folder) as stage:
        for service in ("users", "orders", "gateway"):
            narrator.tell(f"{service}:", stage.place_of(service))
        narrator.tell(f"all are ready; the gateway listens on {stage.base_url}", mark="good")
        async with (
            open_operator(stage.settings, OPERATOR) as operator,
            httpx.AsyncClient(base_url=stage.base_url, timeout=_HTTP_TIMEOUT_S, trust_env=False) as http,
        ):
            names = operator.names
            wiretap = Wiretap(operator.transport, exchange=names.commands, queue=f"{names.namespace}.wiretap")
            await wiretap.attach()
            acts = Acts(stage=stage, http=http, operator=operator, wiretap=wiretap, narrator=narrator)
            user_id = await acts.register_user()
            order_id = await acts.place_order(user_id)
            await acts.ask(order_id)
            sent = await acts.fail(user_id)
            letter = await acts.list_dead_letter(sent)
            await acts.mend_and_replay(sent, letter)
        narrator.step("The end: everything is drained and stopped")


if __name__ == "__main__":
    sys.exit(main())
