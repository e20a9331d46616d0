import json
from pathlib import Path

from benchmarks.beside import Beside, soak_of


def test_a_long_run_is_taken_from_its_result(tmp_path: Path) -> None:
    assert soak_of(tmp_path) == {}

    (tmp_path / "soak.json").write_text(json.dumps({"growth_mib": None}))
    assert soak_of(tmp_path) == {}

    (tmp_path / "soak.json").write_text(json.dumps({"growth_mib": 0.5}))
    assert soak_of(tmp_path) == {"growth_mib": [0.5]}


class Half(Beside):
    """Measures quickly, and fails at one part."""

    async def _sealed(self) -> dict[str, list[float]]:
        return {"seal_16": [0.4]}

    async def _imported(self) -> dict[str, list[float]]:
        raise OSError("no interpreter")

    async def _rested(self) -> dict[str, list[float]]:
        return {"idle_mib": [58.0]}

    async def _applied(self) -> dict[str, list[float]]:
        return {}


async def test_a_part_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    told: list[str] = []
    beside = Half("amqp://nowhere", tmp_path, tmp_path, is_quick=True, tell=told.append)

    found = await beside.measure()

    assert found == {"seal_16": [0.4], "idle_mib": [58.0]}
    assert beside.failures == {"import": "no interpreter"}
    assert "import FAILED: no interpreter" in told
