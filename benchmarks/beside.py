"""What is measured beside the rounds of the comparison: units of cryptography, start, rest, effectively-once commands.

Each part stands alone: one that fails is named with its reason, and the others go on.
"""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks import seal, startup
from benchmarks.programs import ProgramError, rss_mib_of, running
from messaging.errors import MessagingError
from messaging.security.keys import SigningKey
from messaging.security.suite import SUITE_1

__all__ = ["Beside", "soak_of"]

SEAL_S: Final = 0.1
SEAL_ROUNDS: Final = 7
START_ROUNDS: Final = 3
START_TIMEOUT_S: Final = 30.0
# A service that has just started still makes its caches.
REST_S: Final = 0.5
SQL_TIMEOUT_S: Final = 900.0
# Enough that the start of a service, a tenth of a second, does not count.
SQL_MESSAGES: Final = 5000

Found = dict[str, list[float]]


class Beside:
    """Measures it all.

    Args:
        url: Of the broker.
        keys: Folder with keys for our services.
        folder: For files of its own.
        is_quick: Only to see that it works.
        tell: Told what goes on.
    """

    def __init__(self, url: str, keys: Path, folder: Path, *, is_quick: bool, tell: Callable[[str], None]) -> None:
        self._url = url
        self._folder = folder
        self._is_quick = is_quick
        self._tell = tell
        self._environment = {"MESSAGING_KEYS": str(keys), "MESSAGING_NAMESPACE": "bench_start"}
        self.failures: dict[str, str] = {}

    async def measure(self) -> Found:
        """Return all figures by name, each with its rounds."""
        parts: Mapping[str, Callable[[], Awaitable[Found]]] = {
            "sealing and opening": self._sealed,
            "import": self._imported,
            "rest": self._rested,
            "effectively once": self._applied,
        }
        found: Found = {}
        for name, part in parts.items():
            self._tell(f"beside the rounds: {name}")
            try:
                found |= await part()
            except (ProgramError, MessagingError, OSError, sqlite3.Error, subprocess.SubprocessError) as error:
                self.failures[name] = str(error)
                self._tell(f"{name} FAILED: {error}")
        return found

    async def _sealed(self) -> Found:
        seconds, rounds = (0.02, 2) if self._is_quick else (SEAL_S, SEAL_ROUNDS)
        signer = SigningKey.generate("bench")
        found = {"verify_us": [seal.verify_us(signer, seconds) for _ in range(rounds)]}
        for goal in seal.goals(SUITE_1, seconds, rounds):
            found[f"{goal.direction}_{'alone' if goal.batch == 1 else goal.batch}"] = [goal.ratio]
        return found

    async def _imported(self) -> Found:
        return {"import_ratio": startup.import_ratios(2 if self._is_quick else startup.IMPORT_ROUNDS)}

    async def _rested(self) -> Found:
        found: Found = {"idle_mib": [], "idle_database_mib": [], "consuming_ms": []}
        database = f"sqlite+aiosqlite:///{self._folder / 'idle.db'}"
        for _ in range(1 if self._is_quick else START_ROUNDS):
            rss_mib, consuming_ms = await self._at_rest()
            found["idle_mib"].append(rss_mib)
            found["consuming_ms"].append(consuming_ms)
            rss_mib, _ = await self._at_rest("--database", database)
            found["idle_database_mib"].append(rss_mib)
        return found

    async def _at_rest(self, *more: str) -> tuple[float, float]:
        command = (sys.executable, "-m", "benchmarks.startup", "--url", self._url, *more)
        async with running(command, title="our service at rest", environment=self._environment) as program:
            report = await program.report(timeout_s=START_TIMEOUT_S)
            await asyncio.sleep(REST_S)
            return rss_mib_of(program.pid), float(str(report["consuming_ms"]))

    async def _applied(self) -> Found:
        messages, rounds = (100, 1) if self._is_quick else (SQL_MESSAGES, 3)
        size = ("--messages", str(messages), "--rounds", str(rounds))
        command = (sys.executable, "-m", "benchmarks.sql", "--url", self._url, "--out", str(self._folder), *size)
        async with running(command, title="benchmarks.sql") as program:
            await program.ended(timeout_s=SQL_TIMEOUT_S)
        rows = json.loads((self._folder / "sql.json").read_text())
        return {f"{row['database']}_{row['how'].replace(' ', '_')}": [float(row["per_s"])] for row in rows}


def soak_of(results: Path) -> Found:
    """Return what the long run found, if there was one that was long enough (`make bench-soak`)."""
    path = results / "soak.json"
    grown = json.loads(path.read_text())["growth_mib"] if path.exists() else None
    return {} if grown is None else {"growth_mib": [float(grown)]}
