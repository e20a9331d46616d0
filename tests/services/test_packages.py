"""Importing a service reads no environment and opens nothing; importing its contract does not drag the rest along."""

import subprocess
import sys

import pytest

from messaging import Service
from services import gateway, orders, users


@pytest.mark.parametrize(("package", "name"), [(users, "users"), (orders, "orders"), (gateway, "gateway")])
def test_a_package_offers_its_service_object(package: object, name: str) -> None:
    service = getattr(package, name)

    assert isinstance(service, Service)
    assert service.name == name
    assert service is getattr(package, name)


def test_a_package_offers_nothing_else() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = users.nothing


@pytest.mark.parametrize("service", ["users", "orders"])
def test_a_contract_comes_without_database_and_handlers(service: str) -> None:
    script = (
        f"import sys, services.{service}.contract; "
        f"print([m for m in sys.modules if m.split('.')[0] in ('sqlalchemy', 'fastapi') or m.endswith('.handlers')])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("service", ["users", "orders", "gateway"])
def test_importing_a_service_survives_any_environment(service: str) -> None:
    environment = {"MESSAGING_BROKER_URL": "nonsense", "USERS_DATABASE_URL": "", "GATEWAY_PORT": "nonsense"}

    done = subprocess.run(
        [sys.executable, "-c", f"import services.{service}.service"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
