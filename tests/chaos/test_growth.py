"""The judge of the soak: a leak is seen, also a slow one; a warm-up, a busy moment and noise are none."""

import random

import pytest

from tests.chaos.growth import FIGURES, LIMITS, Points, grown, judged, table, theil_sen

pytestmark = pytest.mark.smoke

LOOKS = 30
MINUTE_S = 60.0
HOUR_S = 3_600.0


def series(
    value: float = 0.0, *, per_hour: float = 0.0, noise: float = 0.0, draw: int = 1
) -> list[tuple[float, float]]:
    """Return what half an hour of looks finds of something that grows so."""
    chance = random.Random(draw)  # noqa: S311 - repeatable, nothing is secret
    times = [MINUTE_S * number for number in range(LOOKS)]
    return [(at, value + per_hour * at / HOUR_S + chance.gauss(0, noise)) for at in times]


def exceeds(figure: str, points: Points) -> bool:
    return bool(grown({("chaos 1", figure): points}))


def test_a_line_has_its_slope_whatever_a_few_points_beside_it_say() -> None:
    line = [(float(at), 2.0 * at) for at in range(20)]
    disturbed = [*line[:5], (5.0, 9_000.0), *line[6:12], (12.0, -9_000.0), *line[13:]]

    assert theil_sen(line) == pytest.approx(2.0)
    assert theil_sen(disturbed) == pytest.approx(2.0)


@pytest.mark.parametrize("points", [[], [(1.0, 4.0)], [(1.0, 4.0), (1.0, 5.0)]])
def test_one_moment_has_no_slope(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="SOAK_S"):
        theil_sen(points)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("draw", range(10))
def test_what_grows_by_twice_its_limit_is_seen_and_what_grows_by_half_of_it_is_not(figure: str, draw: int) -> None:
    limit = LIMITS[figure]
    noise = limit / 40

    assert exceeds(figure, series(100.0, per_hour=2 * limit, noise=noise, draw=draw))
    assert not exceeds(figure, series(100.0, per_hour=limit / 2, noise=noise, draw=draw))


@pytest.mark.parametrize("figure", FIGURES)
def test_what_only_warms_up_does_not_grow(figure: str) -> None:
    warming = [(at, 1_000_000.0 * min(at, 9 * MINUTE_S)) for at, _ in series()]

    assert not exceeds(figure, warming)


def test_a_busy_moment_is_no_growth() -> None:
    points = series(23.0)
    for number in (15, 20, 25, 29):
        points[number] = (points[number][0], 346.0)

    assert not exceeds("tasks", points)


@pytest.mark.parametrize("figure", ["tasks", "threads", "descriptors", "channels", "connections"])
def test_one_more_is_the_last_of_a_pool_and_two_more_are_a_leak(figure: str) -> None:
    last_of_a_pool = [(at, 23.0 + (number > 20)) for number, (at, _) in enumerate(series())]
    leak = [(at, 23.0 + (number > 15) + (number > 23)) for number, (at, _) in enumerate(series())]

    assert not exceeds(figure, last_of_a_pool)
    assert exceeds(figure, leak)


def test_what_falls_does_not_grow() -> None:
    assert not exceeds("RSS MiB", series(300.0, per_hour=-200.0))


def test_too_few_points_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="RSS MiB of chaos 1: 5 points are too few"):
        judged({("chaos 1", "RSS MiB"): series()[:5]})


def test_the_table_names_what_exceeds_its_limit() -> None:
    text = table(judged({("chaos 1", "RSS MiB"): series(90.0, per_hour=30.0), ("broker", "channels"): series(17.0)}))

    assert "| chaos 1 | RSS MiB | 90 | 95 | 104.5 | 104.5 | +30.0 | 20 exceeded |" in text
    assert "| broker | channels | 17 | 17 | 17 | 17 | +0.0 | 4 |" in text
