"""The settings of notifications: what they take, what they refuse, and that none of their secrets is shown."""

from __future__ import annotations

import logging

import pytest

from backup.config.settings import load_settings
from backup.core.errors import ConfigError
from backup.core.log import event

SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.mark.parametrize(
    "text",
    [
        "slack://a/b/c mailto://u:p@h?to=x@y.z,v@w.z",
        "slack://a/b/c, mailto://u:p@h?to=x@y.z,v@w.z",
        "slack://a/b/c;\n mailto://u:p@h?to=x@y.z,v@w.z\n",
    ],
)
def test_several_addresses_stand_in_one_setting(text: str) -> None:
    assert load_settings({"Notify__Urls": text}).notify_urls == ("slack://a/b/c", "mailto://u:p@h?to=x@y.z,v@w.z")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Notify__Urls": "hooks.slack.com/x"}, "scheme://"),
        ({"Notify__Urls": "slack://a/b/c hello"}, "scheme://"),
        ({"Notify__Urls": " ".join(f"slack://{n}" for n in range(21))}, "more than 20"),
        ({"Notify__Webhooks": "http://hook.example/x", "Notify__WebhookSecret": SECRET}, "write https://"),
        ({"Notify__Webhooks": "ftp://hook.example/x", "Notify__WebhookSecret": SECRET}, "begins with ftp"),
        ({"Notify__Webhooks": "https://hook:port/x", "Notify__WebhookSecret": SECRET}, "not an address"),
        # Some libraries take what follows the backslash for the host, some what stands before it.
        ({"Notify__Webhooks": "http://hook.example\\@127.0.0.1/", "Notify__WebhookSecret": SECRET}, "not an address"),
        ({"Notify__Webhooks": "https://hook\0.example/", "Notify__WebhookSecret": SECRET}, "not an address"),
        ({"Notify__BrokerUrl": "amqp://rabbit.example\\@127.0.0.1/"}, "not an address"),
        ({"Notify__Webhooks": "https://hook.example/x"}, "Notify__WebhookSecret is missing"),
        ({"Notify__WebhookSecret": "secret"}, "begins with whsec_"),
        ({"Notify__WebhookSecret": "whsec_c2VjcmV0"}, "24 to 64 bytes"),
        ({"Notify__WebhookSecret": "whsec_%"}, "not Base64"),
        ({"Notify__StorageQueue": "events"}, "has no storage account"),
        ({"Notify__StorageQueue": "My_Events"}, "small letters"),
        ({"Notify__BrokerUrl": "amqp://u:p@rabbit.example/v"}, "write amqps://"),
        ({"Notify__BrokerUrl": "amqpss://u:p@rabbit.example/v"}, "Did you mean amqps?"),
        ({"Notify__BrokerUrl": "azureservicebus://ns"}, "azureservicebus://POLICY:KEY@NAMESPACE"),
        ({"Notify__BrokerQueue": "a queue"}, "letters, digits"),
        ({"Notify__HeartbeatUrl": "http://hc.example/x"}, "write https://"),
        ({"Notify__Send": "failure"}, "'failures'"),
        ({"Notify__DigestHour": "24"}, "less than or equal to 23"),
        ({"Notify__Source": "my shop"}, "URI"),
        ({"Notify__Url": "slack://a/b/c"}, "Did you mean Notify__Urls?"),
        ({"NOTIFY_URLS": "slack://a/b/c"}, "Did you mean Notify__Urls?"),
        ({"Notify:WebHook": "https://hook.example/x"}, "Did you mean Notify__Webhooks?"),
        ({"BackupSync__MaxAgeHour": "3"}, "Did you mean BackupSync__MaxAgeHours?"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(given)
    assert message in str(raised.value)
    assert not any(len(value) > 8 and value in f"{raised.value} {raised.value.hint}" for value in given.values())


@pytest.mark.parametrize("name", ["NOTIFY_SOCKET", "NOTIFYRC", "NOTIFY_EMAIL", "notify-self"])
def test_names_of_other_programs_pass(name: str) -> None:
    load_settings({name: "x"})


@pytest.mark.parametrize(
    ("name", "address", "secrets"),
    [
        ("Notify__Urls", "slack://TokenAAAAAAAA/TokenBBBBBBBB/TokenCCCCCCCC", ("TokenAAAAAAAA", "TokenCCCCCCCC")),
        ("Notify__Urls", "mailtos://ada:pass%20word@mail.example?to=x@y.z", ("pass%20word", "pass word")),
        ("Notify__BrokerUrl", "azureservicebus://Root:abc+/def=@shop", ("abc+/def=",)),
        ("Notify__BrokerUrl", "amqps://ada:secret1@rabbit.example/v", ("secret1",)),
        (
            "Notify__HeartbeatUrl",
            "https://hc.example/5a1c7be4-0000-4000-8000-000000000000",
            ("5a1c7be4-0000-4000-8000-000000000000",),
        ),
        ("Notify__Webhooks", "https://hook.example/x?code=abcdefghijklmnop", ("abcdefghijklmnop",)),
        ("Notify__WebhookSecret", SECRET, (SECRET,)),
    ],
)
def test_no_secret_is_shown(
    name: str, address: str, secrets: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings({"Notify__WebhookSecret": SECRET, name: address})
    caplog.set_level(logging.INFO, "backup")
    event("anything", error=f"It failed at {address}, with {', '.join(secrets)}.")
    shown = f"{settings!r} {settings} {caplog.text}"
    assert "***" in caplog.text
    assert [secret for secret in secrets if secret in shown] == []


def test_an_age_of_a_service_stands_before_that_of_all() -> None:
    side = "BackupCustomerDb__ConnectionString"
    settings = load_settings(
        {side: "sqlite:///x", "BackupCustomerDb__MaxAgeHours": "50", "BackupSync__MaxAgeHours": "0"}
    )
    customer = settings.max_age("customer")
    assert customer is not None
    assert (customer.total_seconds() / 3600, settings.max_age("order")) == (50, None)
    assert "max_age_hours" not in settings.guard("customer")
