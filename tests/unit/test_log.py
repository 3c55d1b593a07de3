"""Log lines: their form, and that no secret gets into one."""

import logging

import pytest

from backup.core.log import event, redact, register_secret


@pytest.mark.parametrize(
    "text",
    [
        "Server=x;Password=hidden-one;Database=y",
        "Server=x;PWD={hidden;one};Database=y",
        "pwd = hidden-one",
        "AccountEndpoint=https://x/;AccountKey=hidden==;",
        "SharedAccessSignature=hidden&se=1",
        "https://x.blob.core.windows.net/c?sv=1&sig=hidden%3D&se=2",
        "PASSWORD=hidden",
        'Password="hidden;""hidden";Encrypt=yes',
        "Password='hidden hidden'",
        "PWD={hidden}}hidden};Server=x",
        "postgresql://u:hidden@h/d",
        "mssql://u:hidden@hidden/hidden@h/d?x=1",
    ],
)
def test_the_value_of_a_secret_pair_is_removed(text: str) -> None:
    assert "hidden" not in redact(text)
    assert "***" in redact(text)


def test_a_registered_secret_is_removed_wherever_it_stands() -> None:
    register_secret("once-registered")
    assert redact("login 'once-registered' failed: once-registered.") == "login '***' failed: ***."


def test_of_two_secrets_one_within_the_other_nothing_is_left() -> None:
    register_secret("inner-part")
    register_secret("outer-inner-part-outer")
    assert redact("x outer-inner-part-outer x") == "x *** x"


@pytest.mark.parametrize("value", [None, "", "abc"])
def test_empty_and_short_values_are_no_secrets_to_look_for(value: str | None) -> None:
    register_secret(value)
    assert redact("abc def") == "abc def"


def test_other_text_is_left_as_it_is() -> None:
    assert redact("Server=x;Database=y; signal=1 sigma") == "Server=x;Database=y; signal=1 sigma"


def test_what_no_output_can_encode_is_spelled_out() -> None:
    assert redact("caf\udce9 é \ud83d") == "caf\\udce9 é \\ud83d"


def test_an_event_is_its_name_and_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    event("sync.finished", service="customer", inserted=5, error="two\nlines  of it")
    assert caplog.messages == ['sync.finished service=customer inserted=5 error="two lines of it"']


def test_an_events_fields_are_redacted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    event("store.failed", error="Password=hidden;")
    assert caplog.messages == ["store.failed error=Password=***;"]
