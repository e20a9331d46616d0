"""The rules of the house that no linter knows, read from the source.

An exception to a rule stands in its table with a reason, and a reason that is no longer needed fails the build as well.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

import messaging

ROOT: Final = Path(__file__).resolve().parent.parent
MAX_LINES: Final = 400
MAX_PUBLIC_NAMES: Final = 26
VAGUE: Final = frozenset(
    {"utils", "util", "common", "helpers", "helper", "manager", "processor", "data", "info", "misc"}
)
PURE: Final = frozenset(
    {
        *(
            "base64",
            "collections",
            "dataclasses",
            "datetime",
            "decimal",
            "enum",
            "functools",
            "hashlib",
            "heapq",
            "itertools",
            "json",
        ),
        *("math", "operator", "pathlib", "re", "traceback", "types", "typing", "uuid"),
        *("messaging.core", "messaging.errors", "msgpack", "pydantic", "pydantic_core"),
    }
)
QUEUE_WORDS: Final = re.compile(
    r"\.(commands|events|requests|replies|dead|retry|return|undeliverable|refused|quarantine|faults|presence)(\.|$)"
)
EVENT: Final = re.compile(r"[a-z][a-z_]*\.[a-z][a-z_]*")
LOG_METHODS: Final = frozenset({"debug", "info", "warning", "error", "critical", "exception"})
LOGGERS: Final = frozenset({"log", "_log", "logger", "_logger"})
MACHINE_PATH: Final = re.compile(r"/(?:home|Users|root|work)/\w")
URL: Final = re.compile(r"\bhttps?://(?!127\.0\.0\.1|localhost)")

# Each table: path (and what stands there) to the reason why it may.
WITHOUT_TWIN: Final[Mapping[str, str]] = {
    "messaging/stores/sql/migrations/env.py": "only Alembic runs it; tests/stores/sql/migrations runs Alembic",
    "messaging/stores/sql/migrations/versions/v0001_inbox_and_outbox.py": "the same",
    "messaging/stores/sql/migrations/versions/v0002_trust.py": "the same",
    "messaging/stores/sql/migrations/versions/v0003_schedule.py": "the same",
    "messaging/stores/sql/migrations/versions/v0004_outbox_lanes.py": "the same",
    "messaging/stores/sql/migrations/versions/v0005_failed_runs.py": "the same",
}
BROAD_EXCEPT: Final[Mapping[str, str]] = {
    "messaging/cli/load.py": "a user's module may raise anything while it is imported; it is told in one line",
    "messaging/runtime/consumer.py": "anything a handler raises becomes a fault: the house's one place for that",
    "messaging/runtime/engine.py": "the purge must not end, or the inbox grows for ever",
    "messaging/runtime/outcome.py": "a service's redact= may raise anything; then only the error is told",
    "messaging/runtime/relay.py": "the relay must not end, or what is committed stays for ever",
    "messaging/runtime/schedules.py": "the loop must not end, or nothing is sent at its time any more",
    "messaging/runtime/signing.py": "what is wrong with one message must not hold back those signed with it",
    "messaging/stores/sql/direct.py": "whatever the bare driver raises is raised again, as SQLAlchemy would say it",
    "messaging/stores/sql/turns.py": "SQLAlchemy hands what its driver raises to a method that raises it",
    "messaging/transports/amqp/fast.py": "called in the socket's read: a taker's bug must not end the connection",
    "messaging/transports/amqp/splitter.py": "a stranger's bytes: whatever breaks, the connection ends with a reason",
}
BARE_TASKS: Final[Mapping[str, str]] = {
    "messaging/runtime/tasks.py": "handlers outlive a cancelled consumer to be drained; the one owner of such tasks",
    "messaging/transports/memory/transport.py": "what is submitted outlives its caller, as at a broker",
}
ENVIRONMENT: Final[Mapping[str, str]] = {}


def modules(*tops: str) -> list[Path]:
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=shown(path))


def docstrings_of(tree: ast.Module) -> set[ast.AST]:
    """Return every string that stands as a statement: docstrings and the descriptions of constants."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def strings_of(tree: ast.Module) -> Iterator[ast.Constant]:
    prose = docstrings_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node


def names_module(text: str) -> bool:
    path = ROOT / text.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(tree: ast.Module) -> set[str]:
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def calls_of(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def assert_only(found: set[str], allowed: Mapping[str, str], *, rule: str) -> None:
    new, stale = sorted(found - allowed.keys()), sorted(allowed.keys() - found)
    assert not new, f"{rule}: {new}; mend it, or add it to the table with its reason"
    assert not stale, f"exceptions that nothing needs any more: {stale}; remove them from the table"
    assert all(allowed.values()), "every exception has a reason"


def test_the_core_imports_only_what_is_pure() -> None:
    found = {
        f"{shown(path)}: {name}"
        for path in modules("messaging/core")
        for name in imports_of(tree_of(path))
        if not any(name == pure or name.startswith(f"{pure}.") for pure in PURE)
    }

    assert found == set()


def test_the_core_never_waits() -> None:
    waits = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)

    found = {
        f"{shown(path)}:{node.lineno}"
        for path in modules("messaging/core")
        for node in ast.walk(tree_of(path))
        if isinstance(node, waits)
    }

    assert found == set()


def test_modules_stay_short_enough_to_read() -> None:
    sizes = {shown(path): len(path.read_text().splitlines()) for path in modules("messaging", "services", "scripts")}

    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_file_names_say_what_is_inside() -> None:
    found = {
        shown(path)
        for path in modules("messaging", "services", "scripts", "tests")
        for part in path.relative_to(ROOT).with_suffix("").parts
        if VAGUE & set(part.split("_"))
    }

    assert found == set()


def test_every_module_has_a_test_twin() -> None:
    lonely = {
        shown(path)
        for path in modules("messaging")
        if path.name not in {"__init__.py", "__main__.py"}
        and not (ROOT / "tests" / path.relative_to(ROOT / "messaging").with_name(f"test_{path.name}")).exists()
    }

    assert_only(lonely, WITHOUT_TWIN, rule="modules without tests/…/test_<name>.py")


def test_the_public_names_are_few_and_sorted() -> None:
    names = list(messaging.__all__)

    assert names == sorted(names)
    assert len(names) == len(set(names)) <= MAX_PUBLIC_NAMES


def test_every_public_name_is_documented() -> None:
    documentation = "\n".join(path.read_text() for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])

    undocumented = [
        name
        for name in messaging.__all__
        if not getattr(getattr(messaging, name), "__doc__", None) and not re.search(rf"\b{name}\b", documentation)
    ]

    assert undocumented == []


def logged_events() -> dict[str, str]:
    events = dict[str, str]()
    for path in modules("messaging"):
        for name, call in calls_of(tree_of(path)):
            receiver, _, method = name.rpartition(".")
            if method in LOG_METHODS and receiver.rpartition(".")[2] in LOGGERS and call.args:
                event = call.args[0]
                text = event.value if isinstance(event, ast.Constant) else None
                events[text if isinstance(text, str) else ast.unparse(event)] = f"{shown(path)}:{call.lineno}"
    return events


def test_log_events_are_constant_words() -> None:
    found = {event: where for event, where in logged_events().items() if EVENT.fullmatch(event) is None}

    assert found == {}, "an event is a constant 'noun.past_participle'; what varies goes into fields"


def test_log_events_are_those_of_the_documentation() -> None:
    page = ROOT / "docs" / "logging.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    documented = {event for row in rows for event in re.findall(r"`([^`]+)`", row.split("|")[1])}

    assert set(logged_events()) == documented


def test_queue_and_exchange_names_are_spelled_in_one_place() -> None:
    events = logged_events().keys()
    found = {
        f"{shown(path)}:{string.lineno}: {string.value}"
        for path in modules("messaging", "services")
        if shown(path) != "messaging/core/topology.py"
        for string in strings_of(tree_of(path))
        if isinstance(string.value, str) and QUEUE_WORDS.search(string.value)
        if string.value not in events and not names_module(string.value)
    }

    assert found == set()


def test_the_environment_is_read_in_one_place() -> None:
    doors = {"os.environ", "os.getenv", "os.environb", "environ", "getenv"}
    found = {
        shown(path)
        for path in modules("messaging", "services")
        if path.name != "settings.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.Attribute, ast.Name)) and ast.unparse(node) in doors
    }

    assert_only(found, ENVIRONMENT, rule="the environment is read in settings.py")


def test_only_sealing_makes_sealed_bytes() -> None:
    found = {
        shown(path)
        for path in modules("messaging", "services")
        for name, _ in calls_of(tree_of(path))
        if name.rpartition(".")[2] == "Sealed"
    }

    assert found <= {"messaging/security/seal.py"}


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = {"BaseException"} if handler.type is None else set(re.findall(r"\w+", ast.unparse(handler.type)))
    last = handler.body[-1]
    passed_on = isinstance(last, ast.Raise) and last.exc is None
    return bool(caught & {"Exception", "BaseException"}) and not passed_on


def test_broad_excepts_stand_where_they_may() -> None:
    found = {
        shown(path)
        for path in modules("messaging", "services")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    }

    assert_only(found, BROAD_EXCEPT, rule="`except Exception` that swallows")


def test_tasks_belong_to_groups() -> None:
    bare = re.compile(r"(asyncio|.*loop(\(\))?)\.create_task|(asyncio\.)?ensure_future")
    found = {
        shown(path)
        for path in modules("messaging", "services")
        if not shown(path).startswith("messaging/transports/amqp/")
        for name, _ in calls_of(tree_of(path))
        if bare.fullmatch(name)
    }

    assert_only(found, BARE_TASKS, rule="tasks outside a TaskGroup")


@pytest.mark.parametrize("name", ["constraints.txt", "Dockerfile", "docker-compose.yml"])
def test_no_package_host_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text()

    assert URL.findall(text) == []


def test_constraints_are_exact_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    assert [pin for pin in pins if re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", pin) is None] == []
    assert pins == sorted(pins, key=str.casefold)


def test_every_dependency_is_pinned_and_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    table = project["project"]
    requirements = [
        *project["build-system"]["requires"],
        *table["dependencies"],
        *(line for extra in table["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=]", line)[0] for line in requirements} - {table["name"]}
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    reasons = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()

    assert {name for name in names if name.lower() not in pinned} == set()
    assert {name for name in names if not re.search(rf"\b{name}\b", reasons)} == set()


def test_no_path_of_a_single_machine_is_written_down() -> None:
    texts = [
        *modules("messaging", "services", "scripts", "tests"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "scripts").glob("*.sh"),
        *(path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".txt", ".yml"}),
        *(ROOT / name for name in ("Makefile", "Dockerfile", ".dockerignore", ".ci/run", ".ci/nightly")),
    ]

    found = {shown(path) for path in texts if MACHINE_PATH.search(path.read_text(errors="replace"))}

    assert found == set()


def test_the_library_supports_the_python_it_claims() -> None:
    claim = re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())

    assert claim is not None
    assert sys.version_info[:2] >= (int(claim[1]), int(claim[2]))
