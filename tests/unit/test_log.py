"""Log lines: their form, and that no secret gets into one."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from backup.config.settings import load_settings
from backup.core.errors import ConfigError
from backup.core.log import EventFormatter, event, redact, register_secret, write_json
from backup.jobs.lines import JobLines


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


@pytest.fixture
def json_lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged while the setting says json."""
    caplog.set_level(logging.INFO)
    load_settings({"backuplog__format": "json"})
    yield caplog
    write_json(False)


def _object(line: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(line)
    assert "\n" not in line
    assert datetime.fromisoformat(value.pop("time")).tzinfo == UTC
    return value


def test_as_json_a_line_is_one_object_with_values_of_their_types(json_lines: pytest.LogCaptureFixture) -> None:
    fields = {"service": "shop/a b", "inserted": 5, "dry_run": False, "hint": None, "percent": float("nan")}
    event("sync.failed", level=logging.ERROR, **fields, error='two\nlines "Password=hidden;"\ud83d')
    expected = {**fields, "percent": "nan", "error": 'two\nlines "Password=***;"\\ud83d'}
    assert _object(json_lines.messages[0]) == {"level": "ERROR", "event": "sync.failed", "fields": expected}


def test_as_json_a_job_keeps_lines_for_people(json_lines: pytest.LogCaptureFixture) -> None:
    with JobLines("customer") as job:
        event("sync.started", service="customer")
    assert [line.partition("Z ")[2] for line in job.lines] == ["INFO sync.started service=customer"]


def test_as_json_a_line_of_a_library_is_an_object_too(json_lines: pytest.LogCaptureFixture) -> None:
    logging.getLogger("azure").warning("Password=%s", "hidden;")
    [record] = json_lines.records
    fields = {"logger": "azure", "message": "Password=***;"}
    assert _object(EventFormatter("%(message)s").format(record)) == {
        "level": "WARNING",
        "event": "log",
        "fields": fields,
    }


def test_other_settings_bring_the_lines_for_people_back(json_lines: pytest.LogCaptureFixture) -> None:
    load_settings({})
    event("sync.started", service="customer")
    assert json_lines.messages == ["sync.started service=customer"]


def test_a_format_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="BackupLog__Format"):
        load_settings({"BackupLog__Format": "xml"})
