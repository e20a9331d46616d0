"""`Management`: asks RabbitMQ's management API what AMQP cannot tell: arguments, bindings, policies, feature flags.

It is optional: nothing at run time needs it (docs/topology.md). `MESSAGING_MANAGEMENT_URL` says where it is.
"""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from messaging.core.topology import Argument, Binding
from messaging.core.topology_plan import TYPE, Existing
from messaging.errors import ConfigurationError, ConnectionLostError
from messaging.settings import Settings

__all__ = ["Management", "SeenExchange", "SeenQueue", "management_of"]

_TIMEOUT_S: Final = 10.0
_ANSWER_MAX_BYTES: Final = 64 * 1024 * 1024
_REFUSED: Final = (401, 403)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenQueue:
    """A queue as the management API describes it.

    Attributes:
        name: Its name.
        arguments: What it was declared with.
        policy: Name of the policy that applies, if any.
        effective: What that policy and an operator's policy set.
        messages, unsettled, consumers: How many.
        dead_lettering: Messages that have left it but found no room where they go.
        is_up: Whether it has a leader and runs.
    """

    name: str
    arguments: Mapping[str, Argument]
    policy: str | None = None
    effective: Mapping[str, Any] = field(default_factory=dict)
    messages: int = 0
    unsettled: int = 0
    consumers: int = 0
    dead_lettering: int = 0
    is_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenExchange:
    """An exchange that a policy applies to.

    Attributes:
        name, policy: Its name, and the policy's.
        alternate: The exchange that takes what this one cannot route, by that policy; None: it says nothing of that.
    """

    name: str
    policy: str
    alternate: str | None = None


class Management:
    """The management API of one node.

    Args:
        url: Such as `http://guest:guest@127.0.0.1:15672`.
        vhost: The virtual host to ask about.
    """

    def __init__(self, url: str, *, vhost: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("MESSAGING_MANAGEMENT_URL: write http://user:password@host:15672, or https")
        self._is_safe = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (15671 if self._is_safe else 15672)
        login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self._headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        self._path = parts.path.rstrip("/")
        self._vhost = quote(vhost, safe="")
        self.address = f"{self._host}:{self._port}"

    def version(self) -> str:
        """Return the broker's version."""
        return str(self._ask("overview").get("rabbitmq_version", "unknown"))

    def disabled_flags(self) -> Sequence[str] | None:
        """Return the stable feature flags that are off, or None: the broker tells them to administrators alone."""
        path = "feature-flags"
        status, _, body = self._get(path)
        if status in _REFUSED:
            return None
        flags = self._listed(path, self._read(path, status, body))
        return sorted(
            str(flag.get("name"))
            for flag in flags
            if flag.get("state") == "disabled" and flag.get("stability", "stable") == "stable"
        )

    def queues(self) -> Sequence[SeenQueue]:
        """Return the queues of the virtual host."""
        return [_queue(entry) for entry in self._list(f"queues/{self._vhost}")]

    def ruled_exchanges(self) -> Sequence[SeenExchange]:
        """Return the exchanges of the virtual host that a policy applies to."""
        definitions = {str(entry["name"]): entry.get("definition") for entry in self._list(f"policies/{self._vhost}")}
        return [
            SeenExchange(
                name=str(entry["name"]),
                policy=str(entry["policy"]),
                alternate=_mapping(definitions.get(str(entry["policy"]))).get("alternate-exchange"),
            )
            for entry in self._list(f"exchanges/{self._vhost}")
            if entry.get("policy")
        ]

    def now_ms(self) -> int | None:
        """Return the broker's time in Unix milliseconds, of whole seconds; None when its answers tell none."""
        _, told, _ = self._get("overview")
        try:
            return None if told is None else int(parsedate_to_datetime(told).timestamp() * 1000)
        except ValueError:
            return None

    def existing(self) -> Existing:
        """Return exchanges, queues and bindings of the virtual host."""
        exchanges = self._list(f"exchanges/{self._vhost}")
        bindings = self._list(f"bindings/{self._vhost}")
        return Existing(
            exchanges={
                str(entry["name"]): {TYPE: entry["type"], **_arguments(entry)} for entry in exchanges if entry["name"]
            },
            queues={queue.name: queue.arguments for queue in self.queues()},
            bindings=frozenset(
                Binding(exchange=entry["source"], queue=entry["destination"], routing_key=entry["routing_key"])
                for entry in bindings
                if entry["destination_type"] == "queue"
            ),
        )

    def _list(self, path: str) -> list[dict[str, Any]]:
        return self._listed(path, self._ask(path))

    def _listed(self, path: str, answer: Any) -> list[dict[str, Any]]:
        if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
            raise ConfigurationError(
                f"{self.address} answers {path!r} with something else: is it RabbitMQ's management?"
            )
        return answer

    def _ask(self, path: str) -> Any:
        status, _, body = self._get(path)
        return self._read(path, status, body)

    def _get(self, path: str) -> tuple[int, str | None, bytes]:
        """Return status, time and body of an answer."""
        kind = http.client.HTTPSConnection if self._is_safe else http.client.HTTPConnection
        words: dict[str, Any] = {"context": ssl.create_default_context()} if self._is_safe else {}
        connection = kind(self._host, self._port, timeout=_TIMEOUT_S, **words)
        try:
            connection.request("GET", f"{self._path}/api/{path}", headers=self._headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Date"), answer.read(_ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLostError(
                f"no management API at {self.address}: {error}; enable rabbitmq_management, or unset "
                "MESSAGING_MANAGEMENT_URL"
            ) from error
        finally:
            connection.close()

    def _read(self, path: str, status: int, body: bytes) -> Any:
        if status in _REFUSED:
            raise ConfigurationError(
                f"{self.address} refuses the user of MESSAGING_MANAGEMENT_URL at {path!r}: give it the tag `monitoring`"
            )
        if status != 200:
            raise ConfigurationError(f"{self.address} answers {path!r} with {status}: mend MESSAGING_MANAGEMENT_URL")
        try:
            return json.loads(body)
        except ValueError as error:
            raise ConfigurationError(f"{self.address} answers {path!r} with something that is no JSON") from error


def management_of(settings: Settings) -> Management | None:
    """Return the management API that the settings name, or None."""
    if settings.management_url is None:
        return None
    vhost = unquote(urlsplit(settings.broker_urls[0]).path[1:]) or "/"
    return Management(settings.management_url, vhost=vhost)


def _queue(entry: Mapping[str, Any]) -> SeenQueue:
    return SeenQueue(
        name=str(entry["name"]),
        arguments=_arguments(entry),
        policy=entry.get("policy") or entry.get("operator_policy"),
        effective=_mapping(entry.get("effective_policy_definition")),
        messages=_count(entry, "messages"),
        unsettled=_count(entry, "messages_unacknowledged"),
        consumers=_count(entry, "consumers"),
        dead_lettering=_count(entry, "messages_dlx"),
        is_up=entry.get("state", "running") in ("running", "flow", "idle"),
    )


def _arguments(entry: Mapping[str, Any]) -> dict[str, Argument]:
    return {key: value for key, value in _mapping(entry.get("arguments")).items() if isinstance(value, str | int)}


def _mapping(value: object) -> dict[str, Any]:
    # An empty object of Erlang's comes as an empty list.
    return dict(value) if isinstance(value, dict) else {}


def _count(entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name)
    return value if isinstance(value, int) else 0
