"""Settings of the example services: read late, and told in one line when wrong."""

import pytest

from messaging import ConfigurationError
from services.gateway.settings import GatewaySettings
from services.orders.settings import OrdersSettings
from services.users.settings import UsersSettings


def test_each_service_has_its_own_sqlite_file_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("USERS_DATABASE_URL", "ORDERS_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)

    assert UsersSettings().database_url != OrdersSettings().database_url


def test_the_environment_is_read_when_settings_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "8123")
    monkeypatch.setenv("ORDERS_USERS_TIMEOUT_S", "0.5")

    assert GatewaySettings().port == 8123
    assert OrdersSettings().users_timeout_s == 0.5


def test_a_mistake_names_the_variable_and_not_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "hunter2")

    with pytest.raises(ConfigurationError, match=r"^GATEWAY_PORT: ") as caught:
        GatewaySettings()

    assert "hunter2" not in str(caught.value)
