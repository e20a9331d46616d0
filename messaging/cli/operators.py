"""Who acts: the operator behind `--as`, with the settings of the environment and the passphrase of the key.

Operators are persons: each has a key file `ops.<name>.key` in the keys folder. With exactly one there, `--as` may be
left out. The passphrase comes from the file that the settings name, else from a prompt.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from messaging.cli.exits import UsageError
from messaging.cli.key_head import read_head
from messaging.core.names import is_operator
from messaging.operators import Operator, open_operator
from messaging.security.keyfile import keyring_file
from messaging.settings import Settings

__all__ = ["Actor", "AsOperator", "act_as", "actor_of", "operator_settings", "operators_in", "who_acts"]

T = TypeVar("T")

AsOperator = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="ops:NAME",
        help="Who acts, by the key file ops.NAME.key; not needed when the keys folder holds just one.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """An operator about to act.

    Attributes:
        settings: Of the environment.
        name: Such as `ops:alice`.
        passphrase: Typed at the prompt; None when there is none or the settings name its file.
    """

    settings: Settings
    name: str
    passphrase: bytes | None


def actor_of(given: str | None) -> Actor:
    """Return who acts; asks for the passphrase where the key file has one and somebody is there to be asked.

    Args:
        given: What stands behind `--as`.

    Raises:
        ConfigurationError: settings or key file are not usable.
        UsageError: nobody in particular is meant.
    """
    settings = operator_settings()
    name = who_acts(given, settings)
    return Actor(settings=settings, name=name, passphrase=_passphrase(settings, name))


def act_as(actor: Actor, act: Callable[[Operator], Awaitable[T]]) -> T:
    """Connect as an operator, act, close, and return what came of it."""

    async def run() -> T:
        async with open_operator(actor.settings, actor.name, passphrase=actor.passphrase) as operator:
            return await act(operator)

    return asyncio.run(run())


def operator_settings() -> Settings:
    """Return the settings of the environment, fit for reaching other processes.

    Raises:
        ConfigurationError: the environment holds something invalid.
        UsageError: the embedded broker is set, which nobody can reach from outside.
    """
    settings = Settings()
    if settings.is_embedded:
        raise UsageError(
            "MESSAGING_BROKER_URL is memory://, a broker inside one process, which no other can reach; start a "
            "real one with `messaging broker up` and set MESSAGING_BROKER_URL to the address it prints"
        )
    return settings


def operators_in(folder: Path) -> list[str]:
    """Return the operators whose key files a folder holds, such as `ops:alice`."""
    names = sorted(path.name.removeprefix("ops.").removesuffix(".key") for path in folder.glob("ops.*.key"))
    return [f"ops:{name}" for name in names]


def who_acts(given: str | None, settings: Settings) -> str:
    """Return the operator that acts.

    Args:
        given: What stands behind `--as`; `alice` is short for `ops:alice`.
        settings: Where the keys are.

    Raises:
        UsageError: no operator's name, no keys folder, or not exactly one operator to choose from.
    """
    if settings.keys is None:
        raise UsageError(
            "MESSAGING_KEYS is not set: point it at the folder with trust.bundle and your ops.NAME.key "
            "(`messaging trust init --dev keys --from MODULE:SERVICE` makes one for development)"
        )
    if given is not None:
        operator = given if ":" in given else f"ops:{given}"
        if not is_operator(operator):
            raise UsageError(
                f"--as {given}: operators are named like ops:alice, from a to z, 0 to 9, _ and -, a letter first"
            )
        return operator
    if not settings.keys.is_dir():
        raise UsageError(
            f"no keys folder at {settings.keys}: mend MESSAGING_KEYS, or make it with "
            f"`messaging trust init --dev {settings.keys} --from MODULE:SERVICE`"
        )
    found = operators_in(settings.keys)
    if len(found) != 1:
        there = ", ".join(found) or "none"
        raise UsageError(f"say who acts with --as ops:NAME; operators with a key file in {settings.keys}: {there}")
    return found[0]


def _passphrase(settings: Settings, name: str) -> bytes | None:
    if settings.passphrase_file is not None or settings.keys is None:
        return None
    if not read_head(settings.keys / keyring_file(name)).is_sealed:
        return None
    if not sys.stdin.isatty():
        raise UsageError(
            f"the key file of {name} is sealed with a passphrase and nobody is at the terminal to type it: "
            "set MESSAGING_PASSPHRASE_FILE"
        )
    typed: str = typer.prompt(f"Passphrase of {name}", hide_input=True, err=True)
    return typed.encode()
