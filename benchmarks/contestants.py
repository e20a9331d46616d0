"""Who takes part in the comparison, and with which of the disciplines."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.environments import FOLDER, interpreter_of
from messaging import Settings

__all__ = ["ALONE", "AUTO", "CONTESTANTS", "Contestant"]

AUTO: Final = "messaging"
ALONE: Final = "messaging-alone"
BATCH_SETTING: Final = "signature_batch_max"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One who takes part.

    Attributes:
        name: In options and results.
        title: In tables.
        module: The program.
        environment: Name of the environment it runs in; None: this project's own.
        sends: Whether it publishes and consumes.
        asks: Whether it does request/reply.
        speaks_http: Whether it needs a certificate instead of a broker.
        variables: Environment variables that make it what it is.
        needs_setting: A setting of ours without which it cannot take part.
    """

    name: str
    title: str
    module: str
    environment: str | None
    sends: bool = False
    asks: bool = False
    speaks_http: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    needs_setting: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is this project."""
        return self.environment is None

    def interpreter(self, folder: Path = FOLDER) -> Path:
        """Return the Python that runs it."""
        return Path(sys.executable) if self.environment is None else interpreter_of(self.environment, folder)

    @property
    def obstacle(self) -> str | None:
        """Why it cannot take part, if so."""
        if self.needs_setting is not None and self.needs_setting not in Settings.model_fields:
            return f"this version has no setting {self.needs_setting}"
        return None


def _ours(name: str, title: str, **variables: str) -> Contestant:
    # A namespace for each: two backlogs, sealed in two ways.
    namespace = {"MESSAGING_NAMESPACE": name.replace("-", "_")}
    needs = BATCH_SETTING if variables else None
    return Contestant(
        name=name,
        title=title,
        module="benchmarks.ours",
        environment=None,
        sends=True,
        asks=True,
        variables={**namespace, **variables},
        needs_setting=needs,
    )


def _peer(name: str, title: str, environment: str, *, sends: bool = False, asks: bool = False) -> Contestant:
    return Contestant(
        name=name.replace("_", "-"),
        title=title,
        module=f"benchmarks.peers.{name}",
        environment=environment,
        sends=sends,
        asks=asks,
        speaks_http=name == "flask",
    )


CONTESTANTS: Final = (
    _ours(AUTO, "**messaging**, signed with its tick"),
    _ours(ALONE, "**messaging**, every message signed alone", MESSAGING_SIGNATURE_BATCH_MAX="1"),
    _peer("aio_pika_channel", "aiormq's bare channel (no model)", "aio_pika", sends=True),
    _peer("aio_pika_models", "aio-pika + pydantic", "aio_pika", sends=True),
    _peer("aio_pika_rpc", "aio-pika `patterns.RPC` + pydantic", "aio_pika", asks=True),
    _peer("faststream", "FastStream", "faststream", sends=True, asks=True),
    _peer("taskiq", "taskiq-aio-pika", "taskiq", sends=True),
    _peer("dramatiq", "Dramatiq", "dramatiq", sends=True),
    _peer("celery", "Celery", "celery", sends=True),
    _peer("nameko", "Nameko RPC", "nameko", asks=True),
    _peer("flask", "Flask + gunicorn, HTTPS", "flask", asks=True),
)
