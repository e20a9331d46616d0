from benchmarks.contestants import ALONE, AUTO
from benchmarks.figures import CONSUME, PUBLISH, REQUEST_SEQUENTIAL, Figure, Sample
from benchmarks.goals import Goal, Verdict, goals_of
from benchmarks.tournament import Outcome


def goal(found: float | None, *, more_is_better: bool) -> Goal:
    figure = None if found is None else Figure(found, found, found)
    return Goal(text="x", must=2.0, aim=3.0 if more_is_better else 1.0, found=figure, more_is_better=more_is_better)


def outcome(discipline: str, **quantities: float) -> Outcome:
    return Outcome(samples={0: [Sample(discipline, quantities)]})


def found_for(goals: list[Goal], beginning: str) -> Goal:
    return next(one for one in goals if one.text.startswith(beginning))


def test_a_goal_is_missed_met_or_its_aim_is() -> None:
    more = [goal(value, more_is_better=True).verdict for value in (1.9, 2.0, 3.0)]
    less = [goal(value, more_is_better=False).verdict for value in (2.1, 2.0, 1.0)]

    assert more == less == [Verdict.MISSED, Verdict.MET, Verdict.AIM_MET]
    assert goal(None, more_is_better=True).verdict is Verdict.NOT_MEASURED


def test_throughput_is_compared_with_the_peer() -> None:
    outcomes = {AUTO: outcome(PUBLISH, per_s=9000.0), "faststream": outcome(PUBLISH, per_s=3000.0)}

    found = found_for(goals_of(outcomes, {"faststream": "FastStream"}, {}), "publish, to FastStream")

    assert found.found == Figure(3.0, 3.0, 3.0)
    assert found.verdict is Verdict.MET


def test_what_was_measured_in_another_run_says_so() -> None:
    found = found_for(goals_of({}, {}, {"growth_mib": [0.5]}), "growth of memory")

    assert found.verdict is Verdict.MET
    assert "a run of its own" in found.note


def test_latency_is_better_when_it_is_less() -> None:
    outcomes = {AUTO: outcome(REQUEST_SEQUENTIAL, p50_ms=0.6), "aio-pika-rpc": outcome(REQUEST_SEQUENTIAL, p50_ms=1.0)}

    found = found_for(goals_of(outcomes, {}, {}), "request, one at a time, p50")

    assert found.verdict is Verdict.AIM_MET


def test_who_was_left_out_is_named_with_the_reason() -> None:
    outcomes = {ALONE: Outcome(failures={"publish and consume": "no such setting"}), "faststream": Outcome()}

    found = found_for(goals_of(outcomes, {}, {}), f"{CONSUME} (every message signed alone)")

    assert (found.verdict, found.note) == (Verdict.NOT_MEASURED, "no such setting")


def test_microseconds_are_judged_for_the_machine_they_are_meant_for() -> None:
    outcomes = {AUTO: outcome(PUBLISH, cpu_us=80.0)}

    usual = found_for(goals_of(outcomes, {}, {"verify_us": [80.0]}), "publish, CPU")
    slow = found_for(goals_of(outcomes, {}, {"verify_us": [194.0]}), "publish, CPU")

    assert (usual.must, usual.verdict) == (50.0, Verdict.MISSED)
    assert (slow.must, slow.verdict) == (100.0, Verdict.MET)
