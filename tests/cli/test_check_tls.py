"""What `doctor` finds about certificates, at a real broker that speaks TLS."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from messaging.ambient import real_ambient
from messaging.cli.broker_node import free_port
from messaging.cli.check_tls import check_tls
from messaging.cli.finding import Finding, State
from messaging.settings import Settings
from scripts.dev_certs import Issued
from tests.support.tls import TlsNode, expired

pytestmark = pytest.mark.broker


async def found(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding async for finding in check_tls(settings, ambient=real_ambient())}


def settings_of(node: TlsNode, issued: Issued, *, url: str | None = None) -> Settings:
    return Settings(
        broker_url=url or node.guest_url,
        tls_ca_file=node.authority.certificate_file,
        tls_cert_file=issued.certificate,
        tls_key_file=issued.key,
    )


async def test_all_is_well(tls_node: TlsNode) -> None:
    issued = tls_node.authority.issue_client("doctor", "doctor")

    findings = await found(settings_of(tls_node, issued))

    assert {finding.state for finding in findings.values()} == {State.OK}
    assert findings.keys() == {"tls ca", "tls certificate", "tls key", f"tls broker localhost:{tls_node.tls_port}"}
    assert findings["tls certificate"].words.startswith("CN=doctor until ")


async def test_what_is_over_and_what_others_may_read(tls_node: TlsNode) -> None:
    issued = tls_node.authority.issue_client("over", "over", **expired())
    issued.key.chmod(0o640)

    findings = await found(settings_of(tls_node, issued))

    assert findings["tls certificate"].state is State.FAIL
    assert "has expired" in findings["tls certificate"].words
    assert findings["tls key"].state is State.WARN
    assert findings["tls key"].remedy == f"chmod 600 {issued.key}"


async def test_what_ends_soon(tls_node: TlsNode) -> None:
    in_three_days = datetime.now(tz=UTC) + timedelta(days=3)
    issued = tls_node.authority.issue_client("soon", "soon", not_after=in_three_days)

    finding = (await found(settings_of(tls_node, issued)))["tls certificate"]

    assert (finding.state, finding.words.partition(":")[0]) == (State.WARN, "ends soon")


async def test_files_that_cannot_be_used(tls_node: TlsNode, tmp_path: Path) -> None:
    issued = Issued(tmp_path / "nowhere.crt", tmp_path / "nowhere.key")

    findings = await found(settings_of(tls_node, issued))

    assert [finding.state for finding in findings.values()] == [State.FAIL]
    assert "nowhere.crt" in findings["tls files"].words


async def test_nobody_there(tls_node: TlsNode) -> None:
    issued, url = tls_node.authority.issue_client("doctor", "doctor"), f"amqps://localhost:{free_port()}/"

    findings = await found(settings_of(tls_node, issued, url=url))

    assert findings[f"tls broker {url.removeprefix('amqps://').strip('/')}"].state is State.FAIL


async def test_of_the_systems_cas_nothing_is_said_but_that() -> None:
    findings = await found(Settings(broker_url=f"amqps://localhost:{free_port()}/"))

    assert findings["tls ca"].state is State.OK
    assert "tls certificate" not in findings


async def test_without_tls_there_is_nothing_to_say() -> None:
    assert await found(Settings()) == {}
