from hypothesis import given
from hypothesis import strategies as st

from messaging.security.cache import BoundedCache


def cache(*, total: int = 4, per_owner: int = 2, life_s: float = 10.0) -> BoundedCache[str]:
    return BoundedCache(total=total, per_owner=per_owner, life_s=life_s)


def test_what_was_put_is_found_until_it_is_too_old() -> None:
    kept = cache()

    kept.put("key", "value", owner="a", now_s=0.0)

    assert kept.get("key", now_s=9.9) == "value"
    assert kept.get("key", now_s=10.0) is None
    assert len(kept) == 0


def test_what_was_never_put_is_not_found() -> None:
    assert cache().get("key", now_s=0.0) is None


def test_an_owner_pushes_out_its_own_oldest() -> None:
    kept = cache()
    kept.put("b1", "x", owner="b", now_s=0.0)

    for at in range(50):
        kept.put(f"a{at}", "x", owner="a", now_s=0.0)

    assert len(kept) == 3
    assert kept.get("b1", now_s=0.0) == "x"
    assert kept.get("a49", now_s=0.0) == "x"
    assert kept.get("a47", now_s=0.0) is None


def test_the_total_is_bounded_by_dropping_what_was_used_least_lately() -> None:
    kept = cache(total=2)
    kept.put("a", "x", owner="a", now_s=0.0)
    kept.put("b", "x", owner="b", now_s=0.0)
    kept.get("a", now_s=0.0)

    kept.put("c", "x", owner="c", now_s=0.0)

    assert kept.get("b", now_s=0.0) is None
    assert kept.get("a", now_s=0.0) == "x"


def test_an_owner_whose_only_entry_goes_may_come_again() -> None:
    kept = cache(total=1, per_owner=1)

    kept.put("a1", "x", owner="a", now_s=0.0)
    kept.put("a2", "y", owner="a", now_s=0.0)

    assert kept.get("a2", now_s=0.0) == "y"
    assert len(kept) == 1


def test_putting_again_makes_it_young() -> None:
    kept = cache()
    kept.put("a", "old", owner="a", now_s=0.0)

    kept.put("a", "new", owner="a", now_s=9.0)

    assert kept.get("a", now_s=15.0) == "new"


def test_asking_again_for_what_was_used_last_changes_nothing() -> None:
    kept = cache(total=2)
    kept.put("a", "x", owner="a", now_s=0.0)
    kept.put("b", "y", owner="b", now_s=0.0)

    found = [kept.get(key, now_s=0.0) for key in ("a", "a", "b", "a", "a")]

    assert found == ["x", "x", "y", "x", "x"]
    kept.put("c", "z", owner="c", now_s=0.0)
    assert kept.get("b", now_s=0.0) is None
    assert kept.get("a", now_s=0.0) == "x"


def test_what_was_used_last_is_gone_when_it_is_pushed_out_or_too_old() -> None:
    kept = cache(total=1, per_owner=1)
    kept.put("a", "x", owner="a", now_s=0.0)
    kept.get("a", now_s=0.0)

    kept.put("b", "y", owner="b", now_s=0.0)

    assert kept.get("a", now_s=0.0) is None
    assert kept.get("b", now_s=9.9) == "y"
    assert [kept.get("b", now_s=10.0) for _ in range(2)] == [None, None]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), max_size=60))
def test_it_keeps_what_a_plain_list_in_order_of_use_would_keep(steps: list[tuple[bool, int, int]]) -> None:
    kept, plain = cache(total=4, per_owner=2, life_s=10.0), dict[int, tuple[str, float]]()
    now_s = 0.0

    for is_put, key, passed in steps:
        now_s += passed
        owner = "ab"[key % 2]
        if is_put:
            plain.pop(key, None)
            own = [one for one in plain if "ab"[one % 2] == owner]
            if len(own) >= 2:
                del plain[own[0]]
            plain[key] = (f"{key} at {now_s}", now_s)
            kept.put(key, f"{key} at {now_s}", owner=owner, now_s=now_s)
            continue
        wanted = plain.pop(key, None)
        if wanted is not None and now_s - wanted[1] < 10.0:
            plain[key] = wanted
        else:
            wanted = None
        assert kept.get(key, now_s=now_s) == (None if wanted is None else wanted[0])

    assert len(kept) == len(plain)
