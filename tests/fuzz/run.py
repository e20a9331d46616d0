"""Starts a fuzzer on one target with atheris, which `make fuzz` installs; nothing else of the tests needs it."""

import importlib
import sys
from pathlib import Path
from typing import Any, Final

__all__ = ["CORPUS", "run"]

CORPUS: Final = Path(__file__).parent / "corpus"
INSTRUMENTED: Final = ("messaging.security", "messaging.core")


def run(name: str) -> None:
    """Fuzz until libFuzzer's options end it; inputs that break something are written where they tell it to."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        targets = importlib.import_module("tests.fuzz.targets")
    arguments = [*sys.argv, str(CORPUS / name)] if not any(Path(word).is_dir() for word in sys.argv[1:]) else sys.argv
    atheris.Setup(arguments, targets.TARGETS[name])
    atheris.Fuzz()
