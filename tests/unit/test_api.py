"""Requests parsed, answers shaped, errors mapped: every status and body of the HTTP interface."""

import errno
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.config.settings import load_settings
from backup.core import errors
from backup.core.errors import BackupError
from backup.core.log import register_secret
from backup.core.run_values import Counts, Proof, Run, Status, Trigger
from backup.core.unexpected import as_backup_error
from backup.entry import http
from backup.entry.answers import Answer, error_answer
from backup.entry.requests import RestoreRequest, SyncRequest, check_no_body, moment_of, parse_body, parse_service
from backup.runs.outcome import Outcome
from backup.services.directory import Directory
from backup.services.registry import Registry
from backup.services.service import NO_OPTIONS, Health, Options
from backup.stores import Limits

STARTED = datetime(2024, 12, 7, tzinfo=UTC)
RUN = Run("customer", Trigger.HTTP, False, STARTED, sync_id="the-id")
COMPLETED = Outcome(
    replace(RUN, proof=Proof()).ended(Status.COMPLETED, STARTED + timedelta(seconds=5), Counts(5, 10, 2, 83))
)


def failed(error: BackupError) -> Outcome:
    return Outcome(RUN.ended(Status.FAILED, STARTED, Counts(), str(error)), error)


@dataclass
class Services:
    """Stands for the registry: answers with these outcomes or checks, and remembers what it was asked for."""

    outcomes: Sequence[Outcome] = (COMPLETED,)
    checks: Sequence[Health] = ()
    asked: list[tuple[str, Options]] = field(default_factory=list)

    wait_seconds = 200.0
    directory = Directory(load_settings({}), Limits())

    def sync(
        self, name: str, trigger: Trigger, options: Options, wait_seconds: float | None = None
    ) -> Sequence[Outcome]:
        assert trigger is Trigger.HTTP
        self.asked.append((name, options))
        return self.outcomes

    def ping(self) -> Sequence[Health]:
        return self.checks


def trigger_sync(services: Any, body: bytes = b"", query: dict[str, str] | None = None) -> Answer:
    return http.post_sync(services, query or {}, body, now=lambda: STARTED)


def not_configured() -> Registry:
    return Registry(load_settings({}))


# TriggerSync


def test_completed_syncs_are_answered_exactly_as_documented() -> None:
    answer = trigger_sync(Services())
    assert answer.status == 200
    assert json.loads(answer.json) == {
        "Success": True,
        "Message": "All syncs completed successfully",
        "Results": [
            {
                "SyncId": "the-id",
                "ServiceName": "customer",
                "Trigger": "http",
                "Verb": "sync",
                "TriggeredBy": "http",
                "Status": "Completed",
                "DryRun": False,
                "InsertedCount": 5,
                "UpdatedCount": 10,
                "DeletedCount": 2,
                "SkippedCount": 83,
                "FailedCount": 0,
                "TotalProcessed": 17,
                "Verified": True,
                "StartedAt": "2024-12-07T00:00:00.000Z",
                "CompletedAt": "2024-12-07T00:00:05.000Z",
                "DurationMs": 5000,
                "ErrorMessage": None,
                "Percent": None,
                "RequestCharge": None,
                "Notes": [],
                "Failures": [],
                "ChangeLimit": None,
                "RemainingCount": 0,
                "ReadAsOf": None,
            }
        ],
        "Timestamp": "2024-12-07T00:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b"", ("all", NO_OPTIONS)),
        (b" \r\n", ("all", NO_OPTIONS)),
        (b"{}", ("all", NO_OPTIONS)),
        (b'{"service": "all"}', ("all", NO_OPTIONS)),
        (b'{"service": "order"}', ("order", NO_OPTIONS)),
        (b'{"forceFullSync": true}', ("all", Options(force=True))),
        (b'{"dryRun": true}', ("all", Options(dry_run=True))),
        (b'{"allowMassDelete": true}', ("all", Options(allow_mass_delete=True))),
        (b'{"service": "customer", "forceFullSync": false}', ("customer", NO_OPTIONS)),
    ],
)
def test_the_body_says_what_to_sync(body: bytes, asked: tuple[str, Options]) -> None:
    services = Services()
    trigger_sync(services, body)
    assert services.asked == [asked]


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"[]", b"null", b"true", b"1", b'"all"', b"garbage", b"{}{}", b"\xff\xfe", b'{"service": "\xff"}'),
        *(b"\x00", b'{"service": "\\ud800"}', b"[" * 100_000, b'{"service":' * 10_000, b"1" * 100_000, b"1e999"),
        *(b'{"service": null}', b'{"service": 1}', b'{"service": ["all"]}', b'{"service": {}}', b'{"service": true}'),
        *(b'{"forceFullSync": "true"}', b'{"forceFullSync": 1}', b'{"forceFullSync": null}', b'{"forceFullSync": []}'),
        b'{"forceFullSync": 1' + b"0" * 5000 + b"}",
        *(b'{"dryRun": "true"}', b'{"dryRun": 1}', b'{"allowMassDelete": null}', b'{"allowMassDelete": "yes"}'),
        *(b'{"force": true}', b'{"Service": "all"}', b'{"services": "all"}', b'{"service": "all", "x": 1}'),
        *(b'{"service": NaN}', b'{"service": "%s"}' % (b"x" * 1_001)),
        *(b'{"service": "all", "service": "order"}', b'{"dryRun": true, "dryRun": false}', b"\xef\xbb\xbf" * 2 + b"{}"),
        '{"dryRun": true}'.encode("utf-16"),
        b'{"' + b"x" * 100_000 + b'": 1}',
    ],
)
def test_a_malformed_body_is_a_400_and_starts_nothing(body: bytes) -> None:
    services = Services()
    with pytest.raises(errors.BadRequest) as raised:
        trigger_sync(services, body)
    answer = error_answer(raised.value)
    assert answer.status == 400
    assert answer.body.keys() == {"Success", "Message", "Error", "Hint"}
    assert len(answer.body["Message"]) < 300
    assert services.asked == []


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"keys": [%s]}' % key for key in (b"1.5", b"1e999", b"true", b"null", b"{}", b"[1e999]", b"[NaN]")),
        *(b'{"keys": [%s]}' % key for key in (b'"\\ud800"', b"1" * 5000, b"[" * 100_000 + b"]" * 100_000)),
        *(b'{"keys": [["a", {"b": 1, "b": 2}]]}', b'{"keys": "1"}'),
        *(b'{"at": "%s"}' % at for at in (b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59-10:00", b"2026-01-01")),
        *(b'{"at": "2026-01-01T00:00:00"}', b'{"at": 1e300}', b'{"confirm": true, "confirm": true}'),
    ],
    ids=lambda body: ascii(body[:30]),
)
def test_a_restore_that_is_malformed_is_a_400(body: bytes) -> None:
    with pytest.raises(errors.BadRequest):
        http.post_restore(not_configured(), "customer", {}, body)


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "2026-01-01\x00", "\udcff"]
)
def test_a_text_that_is_no_time_with_an_offset_is_a_bad_request(text: str) -> None:
    with pytest.raises(errors.BadRequest):
        moment_of(text)


def test_keys_are_texts_numbers_and_lists() -> None:
    request = parse_body(RestoreRequest, '{"keys": ["é", 42, 12345678901234567890123, ["eu", 1.5, null]]}'.encode())
    assert request.keys == ["é", "42", "12345678901234567890123", '["eu", 1.5, null]']


@pytest.mark.parametrize("name", ["forceFullsync", "force"])
def test_an_unknown_field_is_named(name: str) -> None:
    with pytest.raises(errors.BadRequest, match=rf"'{name}'\. Did you mean forceFullSync\?"):
        parse_body(SyncRequest, f'{{"{name}": true}}'.encode())


@pytest.mark.parametrize(
    "body", [b'{"dryRun": true}', b'\xef\xbb\xbf{"dryRun": true}', b'\xef\xbb\xbf\r\n {"dryRun": true}\n']
)
def test_a_body_may_have_a_byte_order_mark(body: bytes) -> None:
    assert parse_body(SyncRequest, body).dry_run


@pytest.mark.parametrize("body", [b"", b" ", b"{}", b"{ }\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf{}"])
def test_a_body_that_says_nothing_counts_as_no_body(body: bytes) -> None:
    check_no_body(body)
    assert parse_body(SyncRequest, body) == SyncRequest()


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)
bodies = st.one_of(
    st.binary(),
    json_values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.dictionaries(st.sampled_from(["service", "forceFullSync", "dryRun", "Service", "x"]), json_values).map(
        lambda value: json.dumps(value).encode()
    ),
)


@given(bodies)
def test_without_services_any_body_is_a_400_or_404_that_says_why(body: bytes) -> None:
    with pytest.raises(BackupError) as raised:
        trigger_sync(not_configured(), body)
    answer = error_answer(raised.value)
    assert answer.status in (400, 404)
    assert answer.json.encode()
    assert answer.body["Success"] is False
    assert "Traceback" not in answer.json


@given(st.dictionaries(st.text(), st.text(), min_size=1))
def test_any_query_of_a_single_service_route_is_a_400_or_404(query: dict[str, str]) -> None:
    with pytest.raises(BackupError) as raised:
        http.post_sync_of(not_configured(), "customer", query, b"")
    answer = error_answer(raised.value)
    assert answer.status in (400, 404)
    assert answer.json.encode("utf-8")


def test_a_service_that_is_not_configured_is_a_404_that_says_which_are() -> None:
    registry = Registry(load_settings({"SourceCustomerDb__ConnectionString": "sqlite:///x.db"}))
    with pytest.raises(errors.UnknownService) as raised:
        trigger_sync(registry, b'{"service": "customers"}')
    answer = error_answer(raised.value)
    assert answer.status == 404
    assert "customer" in answer.body["Hint"]


@pytest.mark.parametrize(
    ("rest", "service"),
    [("invoice", "invoice"), ("invoice/", "invoice"), ("chinook/dbo.T", "chinook/dbo.T"), ("a%2Fb%2fc%23", "a/b/c%23")],
)
def test_the_rest_of_an_address_is_the_name_of_a_service(rest: str, service: str) -> None:
    assert parse_service(rest) == service


@pytest.mark.parametrize("query", [{"force": "true"}, {"service": "order"}])
def test_trigger_sync_takes_no_query(query: dict[str, str]) -> None:
    with pytest.raises(errors.BadRequest):
        trigger_sync(Services(), query=query)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("custmer", "'custmer' is configured. Did you mean customer?"),
        ("al", "Did you mean all?"),
        ("order", "'order' is configured: it has no setting."),
        ("\x1b[2J" + "x" * 10_000, "No service '\\x1b[2Jxxx"),
    ],
)
def test_an_unknown_service_is_a_404_that_says_what_was_meant(name: str, message: str) -> None:
    registry = Registry(load_settings({"SourceCustomerDb__ConnectionString": "sqlite:///x.db"}))
    with pytest.raises(errors.UnknownService) as raised:
        http.post_verify(registry, name, {}, b"")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 200
    assert "customer" in raised.value.hint


def test_what_is_done_for_one_service_alone_says_so_when_asked_for_all() -> None:
    with pytest.raises(errors.UnknownService, match="one service at a time"):
        http.post_restore(not_configured(), "all", {}, b"")


@pytest.mark.parametrize("sync_id", ["", "\x00", "\ud800", "x" * 101, "é", "a\nb"])
def test_what_no_run_is_called_is_a_404_without_asking_a_database(sync_id: str) -> None:
    nowhere = {f"{side}CustomerDb__ConnectionString": f"sqlite:////nowhere/{side}.db" for side in ("Source", "Backup")}
    with pytest.raises(errors.UnknownRun):
        http.post_undo(Registry(load_settings(nowhere)), sync_id, {}, b"")


def test_some_failures_are_a_207_with_every_result() -> None:
    answer = trigger_sync(Services([COMPLETED, failed(errors.StoreUnavailable("it is down"))]))
    assert answer.status == 207
    assert answer.body["Success"] is False
    assert [result["Status"] for result in answer.body["Results"]] == ["Completed", "Failed"]
    assert answer.body["Results"][1]["ErrorMessage"] == "it is down"
    assert answer.body["Error"] == "StoreUnavailable"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BackupError(), 500),
        (errors.ConfigError(), 400),
        (errors.BadRequest(), 400),
        (errors.NotInitialized(), 400),
        (errors.SchemaMismatch(), 400),
        (errors.UnknownService(), 404),
        (errors.UnknownRun(), 404),
        (errors.UnknownRecord(), 404),
        (errors.UnknownJob(), 404),
        (errors.Locked(), 409),
        (errors.LockLost(), 409),
        (errors.Interrupted(), 503),
        (errors.GuardTripped(), 409),
        (errors.Conflict(), 409),
        (errors.Forbidden(), 403),
        (errors.Cancelled(), 409),
        (errors.NotVerified(), 500),
        (errors.StoreError(), 500),
        (errors.SetFailed(errors=()), 500),
        (errors.SetNotWhole(errors=()), 500),
        (errors.ConstraintRefused(), 500),
        (errors.Undecoded(), 500),
        (errors.RecordRefused(refused={}), 500),
        (errors.RightMissing(), 500),
        (errors.ColumnMissing(), 500),
        (errors.RecordsSetAside(), 500),
        (errors.StoreUnavailable(), 503),
        (errors.SourceMissing(), 503),
        (errors.TransientStoreError(), 503),
        (errors.Unexpected(), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BackupError) else str(value),
)
def test_when_all_fail_the_status_is_the_failures_own(error: BackupError, status: int) -> None:
    assert trigger_sync(Services([failed(error)])).status == status
    assert http.post_sync_of(Services([failed(error)]), "customer", {}, b"").status == status  # type: ignore[arg-type]
    assert error_answer(error).status == status


def test_every_error_of_the_tree_is_mapped_by_a_test() -> None:
    def tree(kind: type[BackupError]) -> set[str]:
        own = (
            {kind.__name__} if kind.__module__ == errors.__name__ else set()
        )  # others are caught where they are raised
        return own.union(*map(tree, kind.__subclasses__()))

    marks = test_when_all_fail_the_status_is_the_failures_own.pytestmark  # type: ignore[attr-defined]
    assert tree(BackupError) == {type(error).__name__ for error, _ in marks[0].args[1]}


# SyncCustomer, SyncOrder


def test_a_single_service_answers_its_result_with_success_beside_it() -> None:
    answer = http.post_sync_of(Services(), "customer", {}, b"")  # type: ignore[arg-type]
    [result] = trigger_sync(Services()).body["Results"]
    assert (answer.status, answer.body) == (200, {"Success": True, **result})


def test_a_single_service_that_fails_answers_its_result_and_the_error() -> None:
    error = errors.Locked(hint="wait")
    answer = http.post_sync_of(Services([failed(error)]), "customer", {}, b"")  # type: ignore[arg-type]
    assert answer.status == 409
    assert {name: answer.body[name] for name in ("Success", "Message", "Error", "Hint", "Status")} == {
        "Success": False,
        "Message": str(error),
        "Error": "Locked",
        "Hint": "wait",
        "Status": "Failed",
    }


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ({}, NO_OPTIONS),
        ({"force": "true"}, Options(force=True)),
        ({"force": "TRUE"}, Options(force=True)),
        ({"force": "false"}, NO_OPTIONS),
        ({"dryRun": "true"}, Options(dry_run=True)),
        ({"allowMassDelete": "true"}, Options(allow_mass_delete=True)),
        ({"allowMassDelete": "True", "dryRun": "true", "force": "true"}, Options(True, True, True)),
    ],
)
def test_options_are_read_from_the_query(query: dict[str, str], options: Options) -> None:
    services = Services()
    http.post_sync_of(services, "order", {**query, "code": "a function key"}, b"{}")  # type: ignore[arg-type]
    assert services.asked == [("order", options)]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        *(
            ({name: value}, b"")
            for name in ("force", "dryRun", "allowMassDelete")
            for value in ("yes", "1", "tru", "true,true", " true", "None")
        ),
        *(({name: "true"}, b"") for name in ("Force", "forced", "forceFullSync", "service", "dryrun", "dry-run")),
        *(({}, body) for body in (b'{"force": true}', b"x", b"[]", b"\xff")),
    ],
)
def test_another_value_parameter_or_body_is_a_400_and_starts_nothing(query: dict[str, str], body: bytes) -> None:
    services = Services()
    with pytest.raises(errors.BadRequest):
        http.post_sync_of(services, "order", query, body)  # type: ignore[arg-type]
    assert services.asked == []


# HealthCheck


def test_health_is_answered_as_documented_and_touches_nothing() -> None:
    def no_registry() -> Registry:
        raise AssertionError("a plain health check reads no settings")

    answer = http.get_health(no_registry, {}, now=lambda: STARTED)
    assert (answer.status, answer.body) == (
        200,
        {"Status": "Healthy", "Service": "BackupServices", "Timestamp": "2024-12-07T00:00:00.000Z"},
    )


@pytest.mark.parametrize(("down", "status", "word"), [(False, 200, "Healthy"), (True, 503, "Unhealthy")])
def test_deep_health_has_an_entry_for_each_side(down: bool, status: int, word: str) -> None:
    error = errors.StoreUnavailable("server name and all") if down else None
    services = Services(checks=[Health("customer", "source", 3, None), Health("customer", "backup", 4, error)])
    answer = http.get_health(lambda: services, {"deep": "true"})  # type: ignore[arg-type, return-value]
    assert (answer.status, answer.body["Status"]) == (status, word)
    assert answer.body["Checks"] == [
        {"Service": "customer", "Side": "source", "Status": "Healthy", "DurationMs": 3, "Error": None},
        {
            **{"Service": "customer", "Side": "backup", "Status": word, "DurationMs": 4},
            "Error": "StoreUnavailable" if down else None,
        },
    ]


@pytest.mark.parametrize("query", [{"deep": "yes"}, {"deep": "1"}, {"depp": "true"}])
def test_another_deep_value_or_parameter_is_a_400(query: dict[str, str]) -> None:
    with pytest.raises(errors.BadRequest):
        http.get_health(not_configured, query)


# Every error body


@pytest.mark.parametrize("secret", ["Pa55word-of-a-test", "AccountKey=abcd1234=="])
def test_no_error_body_holds_a_secret(secret: str) -> None:
    register_secret("Pa55word-of-a-test")
    error = errors.StoreError(f"the server said {secret}", hint=f"try {secret}")
    answers = [
        error_answer(error),
        trigger_sync(Services([failed(error), COMPLETED])),
        http.post_sync_of(Services([failed(error)]), "customer", {}, b""),  # type: ignore[arg-type]
    ]
    for answer in answers:
        shown = {name: value for name, value in answer.body.items() if name in ("Message", "Hint", "Error")}
        assert not re.search("Pa55word|abcd1234", json.dumps(shown))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no more memory"),
        (RuntimeError("can't start new thread"), "no further thread"),
        (OSError(errno.EMFILE, "x", "a-secret"), "Too many open files."),
        (RuntimeError("a-secret"), "Unexpected RuntimeError."),
    ],
)
def test_what_the_machine_lacks_is_said(error: Exception, words: str) -> None:
    body = error_answer(as_backup_error(error)).body
    assert words in body["Message"]
    assert "Running again is safe." in body["Hint"]
    assert "a-secret" not in str(body)


def test_an_error_body_has_exactly_its_four_names() -> None:
    assert error_answer(errors.BadRequest("no", hint="yes")).body == {
        "Success": False,
        "Message": "no",
        "Error": "BadRequest",
        "Hint": "yes",
    }


def test_a_text_that_no_output_can_encode_is_escaped_in_json() -> None:
    body = {"Key": "caf\udce9 é \ud83d"}
    text = Answer(200, body).json
    assert json.loads(text.encode()) == body
    assert "é" in text
