"""Finds what the user names on the command line: a service as `MODULE:NAME`, a message class by its wire name.

The current folder is on the path, as with `python -m`. No class is ever found by a name that came in a message.
"""

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import ModuleType
from typing import Final

from messaging.cli.exits import UsageError
from messaging.core.envelope import Kind
from messaging.core.message import Message, contract_of
from messaging.errors import MessagingError
from messaging.service import Service

__all__ = ["load_message", "load_module", "load_service"]

_VERBS: Final = {Kind.COMMAND: "send", Kind.EVENT: "publish", Kind.REQUEST: "request"}


def load_module(name: str) -> ModuleType:
    """Import a module from the current folder or the installed packages.

    Raises:
        UsageError: there is none, or it fails while it is imported; the message names the line.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with _explained(name):
        return importlib.import_module(name)


def load_service(target: str) -> Service:
    """Return the service that `MODULE:NAME` names; the name may be left out when the module holds one service.

    Raises:
        UsageError: no such module, no such name, or it is no service.
    """
    module_name, _, attribute = target.partition(":")
    module = load_module(module_name)
    if attribute and isinstance(found := _attribute(module, attribute), Service):
        return found
    services = {name: value for name in _names_of(module) if isinstance(value := _attribute(module, name), Service)}
    if not attribute and len({id(service) for service in services.values()}) == 1:
        return next(iter(services.values()))
    shown = ", ".join(f"{module_name}:{name}" for name in services) or "none"
    what = f"{target} is no service" if attribute else f"{module_name} does not hold exactly one service"
    raise UsageError(f"{what}; services there: {shown}")


def load_message(source: str, name: str, *, kind: Kind) -> type[Message]:
    """Return the message class with a wire name, from a module of contracts.

    Args:
        source: A module, or `MODULE:NAME` of a service, for the messages that it handles.
        name: `orders.place_order`, or `orders.place_order/2` for that version; else the highest version.
        kind: What it must be.

    Raises:
        UsageError: the module holds no such message, or one of another kind.
    """
    wanted, _, version = name.partition("/")
    messages = _messages_of(source)
    matching = [
        model
        for model in messages
        if (contract := model.__contract__) is not None
        and contract.name == wanted
        and version in ("", str(contract.version))
    ]
    if not matching:
        raise UsageError(f"{source} holds no message {name!r}; {_nearest(name, messages)}")
    model = max(matching, key=_version_of)
    found = contract_of(model).kind
    if found is not kind:
        raise UsageError(f"{name} is a {found.word}: use `messaging {_VERBS[found]} {name} …`")
    return model


def _messages_of(source: str) -> list[type[Message]]:
    if ":" in source:
        return [handler.model for handler in load_service(source).handlers]
    module = load_module(source)
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Message) and value.__contract__ is not None
    ]


def _names_of(module: ModuleType) -> list[str]:
    # `__all__` names what a module loads only when it is asked for.
    return list(dict.fromkeys([*vars(module), *getattr(module, "__all__", ())]))


def _attribute(module: ModuleType, name: str) -> object:
    with _explained(f"{module.__name__}:{name}"):
        return getattr(module, name, None)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say in one line why something of the user's cannot be imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise UsageError(
                f"no module {missing!r}: name it as Python imports it, such as services.orders, and run from the "
                "folder that holds it"
            ) from error
        raise UsageError(f"{name} needs the module {missing!r}, which is not installed: pip install it") from error
    except MessagingError:
        # It names its remedy itself.
        raise
    except Exception as error:
        # Whatever a user's module raises is told in one line, with its place.
        raise UsageError(
            f"{name} cannot be imported: {type(error).__name__}: {error} ({_place_of(error)}); "
            "`messaging --debug …` shows the whole trace"
        ) from error


def _version_of(model: type[Message]) -> int:
    return 0 if model.__contract__ is None else model.__contract__.version


def _nearest(name: str, messages: list[type[Message]]) -> str:
    names = sorted({model.__contract__.name for model in messages if model.__contract__ is not None})
    if not names:
        return "it holds none at all: name the module with the contracts, such as services.orders.contract"
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}" if close else f"it holds {', '.join(names)}"


def _place_of(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{PurePath(error.filename).name}:{error.lineno}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{PurePath(frame.filename).name}:{frame.lineno}"
