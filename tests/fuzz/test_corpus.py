"""Every input that the fuzzers found worth keeping, once more: none of them may break anything again."""

import pytest

from messaging.security.bundle_format import verify_bundle
from messaging.security.keyfile import decode_keyring
from tests.fuzz.run import CORPUS
from tests.fuzz.targets import CLASSIC, HYBRID, PASSPHRASE, REALM, TARGETS, seeds
from tests.support.realm import EVERY_KIND

pytestmark = pytest.mark.attack(68)


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs_of_a_fuzzer_break_nothing(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())

    for path in inputs:
        TARGETS[name](path.read_bytes())

    assert len(inputs) >= len(seeds()[name])


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_inputs_of_a_fuzzer_break_nothing(name: str) -> None:
    for raw in seeds()[name].values():
        TARGETS[name](raw)


@pytest.mark.parametrize("kind", ["command", "request", "replay"])
@pytest.mark.parametrize("name", ["open", "hybrid"])
def test_the_kept_messages_are_accepted_so_that_mutations_begin_deep(name: str, kind: str) -> None:
    body = (CORPUS / name / f"whole-{kind}").read_bytes()[1:]
    bench = {"open": CLASSIC, "hybrid": HYBRID}[name]

    verified = bench.orders.verify(body, kinds=EVERY_KIND)
    envelope = bench.orders.decrypt(verified)

    assert envelope.kind.word == kind
    assert verified.header.address.suite == bench.suite


def test_the_kept_bundle_and_key_files_are_accepted() -> None:
    bundle = (CORPUS / "bundle" / "signed").read_bytes()

    assert verify_bundle(bundle, roots=[REALM.root.public], threshold=1, realm="test").version > 0
    for name, passphrase in (("clear", None), ("sealed", PASSPHRASE)):
        assert decode_keyring((CORPUS / "keyring" / name).read_bytes(), passphrase=passphrase).service == "orders"
