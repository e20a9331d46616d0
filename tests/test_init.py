"""The public names: few, sorted, documented, and loaded on first use."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import messaging

MAX_NAMES: Final = 26
# What a test run that merely finds the package installed must not pay for.
HEAVY: Final = ("pydantic", "pydantic_settings", "aio_pika", "aiormq", "cryptography", "structlog", "msgpack", "typer")
TIMEOUT_S: Final = 240.0
ROOT: Final = Path(__file__).resolve().parent.parent


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names_are_few_and_sorted() -> None:
    names = list(messaging.__all__)

    assert names == sorted(set(names))
    assert len(names) <= MAX_NAMES


@pytest.mark.parametrize("name", messaging.__all__)
def test_a_public_name_has_a_description_of_its_own(name: str) -> None:
    found = getattr(messaging, name)

    assert found.__name__ == name
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert found.__dict__.get("__doc__") if inspect.isclass(found) else found.__doc__


@pytest.mark.parametrize("name", messaging.__all__)
def test_a_public_name_is_explained_in_a_document(name: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]

    assert any(re.search(rf"\b{name}\b", page.read_text()) for page in pages)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, messaging; print([name for name in {HEAVY!r} if name in sys.modules])"

    assert in_a_fresh_process(code) == "[]"


def test_an_error_is_loaded_without_the_rest() -> None:
    code = (
        "import sys, messaging; messaging.Reject; "
        f"print([name for name in {HEAVY!r} if name in sys.modules], 'messaging.errors' in sys.modules)"
    )

    assert in_a_fresh_process(code) == "[] True"


def test_each_name_loads_alone_and_stays_loaded() -> None:
    code = "\n".join(
        [
            "import messaging",
            "for name in messaging.__all__:",
            "    found = getattr(messaging, name)",
            "    assert vars(messaging)[name] is found, name",
            "print(len(messaging.__all__))",
        ]
    )

    assert in_a_fresh_process(code) == str(len(messaging.__all__))


@pytest.mark.parametrize("name", messaging.__all__)
def test_a_star_import_and_dir_show_the_name(name: str) -> None:
    assert name in dir(messaging)


def test_an_unknown_name_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="module 'messaging' has no attribute 'Servce'"):
        _ = messaging.Servce  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{messaging.__version__}"' in (ROOT / "pyproject.toml").read_text()
