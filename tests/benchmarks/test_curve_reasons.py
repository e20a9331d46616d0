import pytest

pytest.importorskip("matplotlib", reason="pictures are drawn with the extra `bench`")

from benchmarks.curve_reasons import REASONS
from benchmarks.curves import CURVES


def test_every_curve_has_its_reason() -> None:
    assert set(REASONS) == set(CURVES)
