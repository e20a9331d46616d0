"""The errors: one tree, drawn in the docstring as it is; each says whether a repetition may help."""

import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from uuid import UUID

import pytest

from messaging import errors
from messaging.errors import (
    ConfigurationError,
    Disposition,
    MessagingError,
    PublishNotConfirmedError,
    Reject,
    RemoteError,
    RemoteFailure,
    RequestError,
    RequestTimeoutError,
    RetryLater,
    SealError,
    UnroutableError,
)

DEFINED = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, MessagingError) and kind.__module__ == errors.__name__
}


def drawn() -> dict[str, str | None]:
    """Return class → parent as the tree in the module's docstring draws them."""
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[-1]
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        # Names alone on a line or before a comma are classes; what follows two blanks explains.
        names = re.findall(r"\b[A-Z]\w+", re.split(r"\s{2,}", line.strip())[0])
        while path and path[-1][0] >= indent:
            path.pop()
        for name in names:
            parents[name] = path[-1][1] if path else None
        path.append((indent, names[-1]))
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    found = {name: kind.__bases__[0].__name__ for name, kind in DEFINED.items() if kind is not MessagingError}

    assert drawn() == {"MessagingError": None, **found}


def test_every_error_is_public_and_says_what_it_means() -> None:
    assert set(errors.__all__) == {*DEFINED, "Disposition"}
    assert list(errors.__all__) == sorted(errors.__all__)
    assert [name for name in errors.__all__ if not getattr(errors, name).__doc__] == []


TRANSIENT = {
    "ConnectionLostError",
    "NotYetUsableError",
    "PublishNotConfirmedError",
    "RequestTimeoutError",
    "RetryLater",
    "TransportError",
    "UnknownMessageError",
}


@pytest.mark.parametrize("name", sorted(DEFINED))
def test_only_what_may_succeed_later_is_transient(name: str) -> None:
    assert DEFINED[name].transient is (name in TRANSIENT)


def test_refusals_have_distinct_codes_for_counters() -> None:
    refusals = [kind for kind in DEFINED.values() if issubclass(kind, SealError)]

    assert len({kind.code for kind in refusals}) == len(refusals)
    assert all(re.fullmatch("[a-z_]+", kind.code) for kind in refusals)


def test_a_refusal_is_unauthentic_and_proves_nothing_unless_it_says_so() -> None:
    assert SealError("x").disposition is Disposition.UNAUTHENTIC
    assert SealError("x").evidence is None
    assert SealError("x", disposition=Disposition.EXPIRED, evidence="header").evidence == "header"


def test_errors_carry_what_the_caller_needs_to_go_on() -> None:
    message_id = UUID(int=1)

    assert UnroutableError("nobody", routing_key="orders.place.v1").routing_key == "orders.place.v1"
    assert RequestTimeoutError("late", message_id=message_id).message_id == message_id
    assert PublishNotConfirmedError("late", message_id=message_id).message_id == message_id
    assert PublishNotConfirmedError("full", refused=True).refused
    assert not PublishNotConfirmedError("late").refused
    assert RemoteError("failed", fault="fault").fault == "fault"
    assert Reject("no").reason == str(Reject("no")) == "no"
    assert RetryLater(5.0).delay_s == 5.0
    assert RetryLater(5.0, "busy").reason == str(RetryLater(5.0, "busy")) == "busy"


class OutOfStock(RemoteFailure, name="orders.out_of_stock"):
    sku: str
    left: int = 0


class Busy(RemoteFailure, name="orders.busy", transient=True):
    pass


def test_an_error_over_there_is_transient_as_its_fault_says() -> None:
    assert RemoteError("failed", fault=SimpleNamespace(permanent=False)).transient
    assert not RemoteError("failed", fault=SimpleNamespace(permanent=True)).transient
    assert not RemoteError("failed", fault=None).transient


def test_a_domain_failure_has_keyword_fields() -> None:
    failure = OutOfStock(sku="a")

    assert failure.fields() == {"sku": "a", "left": 0}
    assert str(failure) == "orders.out_of_stock(sku='a', left=0)"
    assert failure.args == (str(failure),)
    assert isinstance(failure, RequestError)
    with pytest.raises(TypeError):
        OutOfStock("a")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        OutOfStock()  # type: ignore[call-arg]


def test_a_domain_failure_may_be_transient() -> None:
    assert Busy.transient
    assert not OutOfStock.transient
    assert Busy().fields() == {}


def test_a_domain_failure_is_raised_and_hashed_as_itself() -> None:
    one, other = OutOfStock(sku="a"), OutOfStock(sku="a")

    assert one != other
    assert len({one, other}) == 2
    with pytest.raises(OutOfStock) as caught:
        raise one
    assert caught.value is one


def nameless() -> None:
    class Nameless(RemoteFailure, name=""):
        pass


def long_winded() -> None:
    class LongWinded(RemoteFailure, name="x" * 121):
        pass


@pytest.mark.parametrize("define", [nameless, long_winded])
def test_a_domain_failure_needs_a_name_for_the_wire(define: Callable[[], None]) -> None:
    with pytest.raises(ConfigurationError, match="name= must have 1 to 120 characters"):
        define()
