"""Settings: from arguments or the environment, checked at once, with one line that says what is wrong."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from messaging.core.topology import Declares, Names
from messaging.errors import ConfigurationError
from messaging.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"MESSAGING_{name.upper()}", raising=False)


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = Settings()

    assert settings.broker_urls == ("amqp://guest:guest@127.0.0.1:5672/",)
    assert settings.names == Names("messaging")
    assert (settings.publish_timeout_s, settings.request_timeout_s, settings.connect_timeout_s) == (10.0, 10.0, 10.0)
    assert (settings.handler_timeout_s, settings.drain_timeout_s, settings.prefetch) == (60.0, 20.0, 64)
    assert (settings.lifetime_s, settings.heartbeat_s) == (7 * 24 * 3600.0, 10)
    assert (settings.inbox_ids, settings.inbox_ttl_s) == (100_000, 3_600.0)
    assert settings.inbox_alarm_rows == 1_000_000
    assert (settings.keys, settings.passphrase_file) == (None, None)
    assert not settings.allow_dev_keys
    assert not settings.has_throwaway_keys
    assert not settings.is_embedded


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("broker_url", "amqps://u:p@mq/v", "amqps://u:p@mq/v"),
        ("keys", "/etc/keys", Path("/etc/keys")),
        ("namespace", "staging", "staging"),
        ("prefetch", "8", 8),
        ("signature_batch_max", "1", 1),
        ("handler_timeout_s", "0.5", 0.5),
        ("drain_timeout_s", "0", 0.0),
        ("allow_dev_keys", "1", True),
        ("trust_min_version", "7", 7),
        ("passphrase_file", "/run/secret", Path("/run/secret")),
        ("declare", "replies", Declares.REPLIES),
    ],
)
def test_every_field_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: object
) -> None:
    monkeypatch.setenv(f"MESSAGING_{name.upper()}", text)

    assert getattr(Settings(), name) == expected


def test_an_empty_variable_is_as_good_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_KEYS", "")

    assert Settings().keys is None


def test_files_of_tls_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", "amqps://mq/")
    for name in ("ca_file", "cert_file", "key_file", "server_name"):
        monkeypatch.setenv(f"MESSAGING_TLS_{name.upper()}", name)

    settings = Settings()

    assert (settings.tls_ca_file, settings.tls_cert_file) == (Path("ca_file"), Path("cert_file"))
    assert (settings.tls_key_file, settings.tls_server_name) == (Path("key_file"), "server_name")


@pytest.mark.parametrize("field", ["tls_ca_file", "tls_cert_file", "tls_server_name"])
def test_whoever_names_certificates_does_not_connect_in_clear(field: str) -> None:
    values: dict[str, Any] = {field: "x"}

    with pytest.raises(ConfigurationError, match="begins with amqp://, which is not protected"):
        Settings(broker_url="amqps://a/,amqp://b/", **values)
    assert Settings(broker_url="amqps://a/,amqps://b/", **values)
    assert Settings(broker_url="memory://", **values)


def test_a_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="MESSAGING_TLS_KEY_FILE without MESSAGING_TLS_CERT_FILE"):
        Settings(broker_url="amqps://a/", tls_key_file=Path("x"))


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_PREFETCH", "8")

    assert Settings(prefetch=2).prefetch == 2


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_TEST_BROKER", "amqp://elsewhere/")
    monkeypatch.setenv("BROKER_URL", "amqp://elsewhere/")

    assert Settings().broker_urls == ("amqp://guest:guest@127.0.0.1:5672/",)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://", ("memory://",)),
        ("amqp://a/", ("amqp://a/",)),
        ("amqp://a/, amqps://b/", ("amqp://a/", "amqps://b/")),
    ],
)
def test_a_broker_is_one_address_or_several_nodes(url: str, expected: tuple[str, ...]) -> None:
    settings = Settings(broker_url=url)

    assert settings.broker_urls == expected
    assert settings.is_embedded is (expected == ("memory://",))


@pytest.mark.parametrize(
    "url", ["", "http://a/", "localhost:5672", "amqp://a/,", "amqp://a/,memory://", "memory://,memory://", "memory://x"]
)
def test_another_address_is_refused_with_the_forms_that_are_taken(url: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("write amqp://user:password@host:5672/vhost")):
        Settings(broker_url=url)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prefetch": 0}, "settings: prefetch: Input should be greater than or equal to 1"),
        ({"prefetch": 65_536}, "prefetch"),
        ({"signature_batch_max": 0}, "signature_batch_max"),
        ({"signature_batch_max": 129}, "signature_batch_max"),
        ({"publish_timeout_s": 0}, "publish_timeout_s: Input should be greater than 0"),
        ({"publish_timeout_s": math.inf}, "publish_timeout_s: Input should be a finite number"),
        ({"handler_timeout_s": math.inf}, "handler_timeout_s: Input should be a finite number"),
        ({"trust_poll_s": math.inf}, "trust_poll_s: Input should be a finite number"),
        ({"request_timeout_s": -1}, "request_timeout_s"),
        ({"connect_timeout_s": 0}, "connect_timeout_s"),
        ({"handler_timeout_s": 0}, "handler_timeout_s"),
        ({"drain_timeout_s": -0.1}, "drain_timeout_s"),
        ({"lifetime_s": 30 * 24 * 3600 + 1}, "lifetime_s"),
        ({"heartbeat_s": 0}, "heartbeat_s"),
        ({"inbox_ids": 0}, "inbox_ids"),
        ({"namespace": "Prod"}, "cannot be a namespace"),
        ({"broker": "amqp://a/"}, "broker: Extra inputs are not permitted"),
    ],
)
def test_a_value_out_of_range_is_one_line_with_the_field(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        Settings(**values)

    assert "\n" not in str(caught.value)


def test_the_line_says_where_settings_come_from_and_repeats_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_PREFETCH", "s3cret")

    with pytest.raises(ConfigurationError, match="MESSAGING_… in the environment") as caught:
        Settings()

    assert "s3cret" not in str(caught.value)


def test_the_password_of_the_broker_is_not_shown() -> None:
    settings = Settings(broker_url="amqp://user:s3cret@mq/")

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().prefetch = 1  # type: ignore[misc]


def test_development_needs_nothing() -> None:
    settings = Settings.development()

    assert settings.is_embedded
    assert settings.has_throwaway_keys


def test_development_may_use_a_real_broker_and_other_fields() -> None:
    settings = Settings.development("amqp://127.0.0.1/", namespace="trial")

    assert (settings.broker_urls, settings.namespace) == (("amqp://127.0.0.1/",), "trial")
    assert settings.has_throwaway_keys


def test_what_is_shared_is_built_once_for_each_settings_object() -> None:
    one, other = Settings.development(), Settings.development()

    assert one.shared(list, list) is one.shared(list, list)
    assert one.shared(list, list) is not other.shared(list, list)
    assert isinstance(one.shared(dict, dict), dict)
