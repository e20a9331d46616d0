"""An id made the quick way is in no way another than one that its class made."""

import copy
import pickle
from uuid import UUID, SafeUUID

from hypothesis import given
from hypothesis import strategies as st

from messaging.core.ids import id_of, numbered


@given(st.binary(min_size=16, max_size=16))
def test_it_is_the_id_of_these_bytes(raw: bytes) -> None:
    made, usual = id_of(raw), UUID(bytes=raw)

    assert made == usual == numbered(int.from_bytes(raw))
    assert hash(made) == hash(usual)
    assert (made.bytes, made.hex, str(made), repr(made)) == (raw, usual.hex, str(usual), repr(usual))
    assert (made.version, made.variant, made.is_safe) == (usual.version, usual.variant, SafeUUID.unknown)


def test_it_can_be_copied_and_pickled() -> None:
    made = id_of(bytes(range(16)))

    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - bytes of this very test
