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
