"""What did not happen: silence is told once and seen in health, good nights ask the heartbeat, digests come daily."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.config.set_settings import SetSection
from backup.core.run_values import Proof, Verb
from backup.jobs.events import overdue
from backup.jobs.key_values import Change
from backup.jobs.record_keys import hashed
from backup.notify import silence as module
from backup.notify.silence import look_around
from tests.scenarios.hooks import Hook, hook
from tests.scenarios.post import NIGHT, Post, kinds, post


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Post]:
    """One webhook, whose events nobody delivers."""
    with post(tmp_path, webhooks="http://127.0.0.1:9/hook") as made:
        yield made


def test_silence_is_told_once_and_its_end_too(office: Post) -> None:
    office.ran()
    assert office.look(hours=26) == []
    assert office.look(minutes=1) == ["customer"]
    for _ in range(3):
        office.look(hours=24)
        office.ran("It broke.", error_kind="StoreError")
    assert kinds(office.waiting()) == ["sync.completed", "sync.overdue", *["sync.failed"] * 3]
    silence = office.waiting()[1]
    assert (silence["subject"], silence["time"]) == ("customer", "2026-11-30T02:01:00.000Z")
    assert {name: silence["data"].get(name) for name in ("lastSuccess", "ageHours", "maxAgeHours", "error")} == {
        "lastSuccess": "2026-11-29T00:00:00.000Z",
        "ageHours": 26.0,
        "maxAgeHours": 26.0,
        "error": None,
    }
    office.at += timedelta(minutes=1)
    back = office.ran()
    assert sorted(kinds(office.waiting())[5:]) == ["sync.completed", "sync.recovered"]
    [recovered] = [event for event in office.waiting() if event["type"].endswith("recovered")]
    assert recovered["data"]["syncId"] == back.sync_id
    assert office.look(hours=26) == []
    assert office.look(hours=1) == ["customer"]
    assert kinds(office.waiting()).count("sync.overdue") == 2


def test_silence_is_told_with_the_failure_since_the_last_success(office: Post) -> None:
    office.ran("It broke long ago.")
    office.at += timedelta(minutes=1)
    office.ran()
    office.look(hours=27)
    assert "error" not in office.waiting()[-1]["data"]
    office.ran("It broke again.", error_kind="StoreError")
    [silence] = look_around(office.settings, office.job_queue, office.services)
    assert silence.failure["error"] == "It broke again."


def test_a_new_service_is_overdue_from_when_it_was_first_seen(office: Post) -> None:
    assert office.look() == []
    office.ran("It broke.")
    office.ran(verb=Verb.VERIFY)
    office.ran(dry_run=True)
    assert office.look(hours=26) == []
    assert office.look(minutes=1) == ["customer"]
    assert office.waiting()[-1]["data"].get("lastSuccess") is None
    assert office.look() == ["customer"]
    office.services = []  # it is configured no more
    assert office.look() == []


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(days=300)])
def test_a_success_in_the_future_does_not_hide_silence(office: Post, ahead: timedelta) -> None:
    office.ran()
    office.at += ahead
    office.ran()
    office.at = NIGHT
    assert office.look() == []  # from now on it counts
    assert office.look(hours=25) == []
    assert office.look(hours=2) == ["customer"]
    office.ran()
    assert office.look() == []


def test_a_clock_that_was_behind_does_not_hide_silence_for_longer(office: Post) -> None:
    office.at -= timedelta(days=300)
    office.look()
    office.at = NIGHT
    assert office.look() == ["customer"]


def test_health_tells_what_a_verify_a_drill_or_a_set_said_until_the_next_one_says_another(office: Post) -> None:
    differs = "The last verify or restore drill found that source and backup differ."
    told = []
    for verb, error, proof in (
        (Verb.SYNC, None, Proof()),
        (Verb.VERIFY, None, Proof(differing=1)),
        (Verb.SYNC, "It broke.", None),  # which the backup's own history says
        (Verb.VERIFY, None, Proof()),
        (Verb.DRILL, "It broke.", None),
        (Verb.SYNC, None, Proof()),
    ):
        office.at += timedelta(minutes=1)
        office.ran(error, verb, proof=proof)
        told.append(office.reasons())
    assert told == [[], [differs], [differs], [], ["The last restore drill has failed."], []]
    office.settings = office.settings.model_copy(
        update={"sets": {"shop": SetSection.model_construct(max_age_hours=None)}}
    )
    office.services = ["customer", "shop"]
    office.ran(service="shop/A", verb=Verb.VERIFY, proof=Proof(differing=1))
    office.ran(service="shop/B")
    office.ran("No table.", service="shop", error_kind="ConfigError")
    assert sorted(office.reasons()) == ["The last sync of the set has failed.", differs]


def test_each_service_has_an_age_of_its_own(tmp_path: Path) -> None:
    with post(tmp_path, webhooks="http://127.0.0.1:9/hook") as office:
        backup = office.settings.service("customer").backup.model_copy(update={"max_age_hours": 2})
        customer = office.settings.service("customer").model_copy(update={"backup": backup})
        order = office.settings.service("order")
        office.settings = office.settings.model_copy(update={"services": {"customer": customer, "order": order}})
        office.services = ["customer", "order"]
        office.look()
        assert office.look(hours=3) == ["customer"]
        assert office.look(hours=24) == ["customer", "order"]
        office.settings = office.settings.model_copy(update={"services": {}, "max_age_hours": 0})
        assert office.look(hours=999) == []


def test_a_sync_that_succeeds_while_somebody_looks_is_not_told_as_overdue(
    office: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.look()
    office.at += timedelta(hours=27)

    def after_a_success(*args: Any) -> Any:
        office.ran()
        return overdue(*args)

    monkeypatch.setattr(module, "overdue", after_a_success)
    office.look()
    assert kinds(office.waiting()) == ["sync.completed"]


def test_health_is_degraded_by_silence_and_by_records_that_cannot_be_read(office: Post, tmp_path: Path) -> None:
    office.ran()
    assert office.reasons() == []
    office.at += timedelta(hours=27)
    assert office.reasons() == ["No sync has succeeded for longer than 26 hours (MaxAgeHours)."]
    office.ran()
    assert office.reasons() == []
    office.job_queue.keys.close()
    (tmp_path / "jobs.db").write_bytes(b"no database" * 500)
    for left in tmp_path.glob("jobs.db-*"):
        left.unlink()
    [reason] = office.reasons()
    assert "cannot be used" in reason


def as_set(office: Post) -> None:
    """Gives the office a set called shop instead of its service."""
    section = SetSection(source="sqlite:///a", backup="sqlite:///b", tables=("*",), max_age_hours=26)
    office.settings = office.settings.model_copy(update={"sets": {"Shop": section}})
    office.services = ["Shop"]


def test_of_a_set_each_service_with_a_run_is_watched_and_the_set_before(office: Post) -> None:
    as_set(office)
    office.look()
    assert office.look(hours=27) == ["Shop"]  # it has never been synced
    for name in ("shop/a", "shop/b"):
        office.ran(service=name)
    assert office.look() == []
    office.at += timedelta(hours=20)
    office.ran(service="shop/a")
    assert office.look(hours=7) == ["shop/b"]
    for _ in range(31):
        office.at += timedelta(days=1)
        office.ran(service="shop/a")
    assert office.look() == []  # the table has left the set
    assert sorted(office.look(hours=27)) == ["shop/a", "shop/b"]  # nothing is synced any more


def test_a_set_has_good_nights_too(tmp_path: Path) -> None:
    with post(tmp_path, heartbeat_url="http://127.0.0.1:9/x") as office:
        as_set(office)
        office.ran(service="shop/a")
        office.ran("It broke.", service="shop/b")
        office.look()
        assert office.waiting() == []
        office.at += timedelta(minutes=1)
        office.ran(service="shop/b")
        office.look()
        assert kinds(office.waiting()) == ["night.completed"]
        office.at += timedelta(days=1)
        office.ran("It broke.", service="shop/a")
        office.look()
        assert len(office.waiting()) == 1


# Good nights


@pytest.fixture
def beat() -> Iterator[Hook]:
    with hook() as made:
        yield made


def test_the_heartbeat_is_asked_once_after_each_good_night(tmp_path: Path, beat: Hook) -> None:
    with post(tmp_path, heartbeat_url=beat.url) as office:
        office.services = ["customer", "order"]
        office.ran()
        office.look()
        assert office.waiting() == []  # one of the two has not succeeded
        office.ran("It broke.", service="order")
        office.look()
        assert office.waiting() == []
        office.ran(service="order")
        for _ in range(3):
            office.look(minutes=1)
            office.deliver()
        assert [(request.path, request.body) for request in beat.requests] == [("/hook", b"")]
        office.look(hours=24)  # the next night is due, and nothing has succeeded
        assert office.waiting() == []
        for service in office.services:
            office.ran(service=service)
        office.look(minutes=1)
        office.deliver()
        assert len(beat.requests) == 2


def test_a_heartbeat_that_is_late_is_not_sent(tmp_path: Path, beat: Hook) -> None:
    beat.status = 500
    with post(tmp_path, heartbeat_url=beat.url) as office:
        office.ran()
        office.look()
        office.deliver()
        beat.status = 200
        office.deliver(hours=7)  # it would hide that the next night fails
        assert (len(beat.requests), office.waiting()) == (1, [])


def test_a_night_of_a_clock_that_was_ahead_stops_no_heartbeat(tmp_path: Path, beat: Hook) -> None:
    with post(tmp_path, heartbeat_url=beat.url) as office:
        office.at += timedelta(days=300)
        office.ran()
        office.look()
        office.deliver()
        office.at = NIGHT + timedelta(hours=1)
        office.ran()
        office.look()
        office.deliver()
        assert len(beat.requests) == 2


# Digests


def test_a_digest_comes_once_a_day_with_what_the_syncs_did(tmp_path: Path) -> None:
    with post(tmp_path, urls="json://127.0.0.1:9/x", send="digest") as office:
        office.services = ["customer", "order"]
        office.look()
        office.ran()
        office.ran("It broke.", service="order")
        office.ran(dry_run=True, service="order")
        office.ran(verb=Verb.VERIFY)
        office.look(hours=6)
        assert office.waiting() == []
        office.look(hours=1)
        office.look(hours=1)
        [digest] = office.waiting()
        assert digest["type"] == "backup.digest"
        rows = digest["data"]["services"]
        assert [(row["service"], row["completed"], row["failed"], row.get("error")) for row in rows] == [
            ("customer", 1, 0, None),
            ("order", 0, 1, "It broke."),
        ]
        office.look(hours=23)
        assert len(office.waiting()) == 2
        second = office.waiting()[1]["data"]
        assert (second["services"], second["overdue"]) == ([], ["customer", "order"])


def test_only_digests_failures_or_all_go_to_people(tmp_path: Path) -> None:
    kinds_by_setting = {}
    for send in ("failures", "all", "digest"):
        folder = tmp_path / send
        folder.mkdir()
        with post(folder, urls="json://127.0.0.1:9/x", webhooks="http://127.0.0.1:9/x", send=send) as office:
            office.ran()
            office.ran("It broke.")
            office.look(hours=27)
            kinds_by_setting[send] = sorted(kinds(office.waiting("people")))
            assert len(office.waiting("webhook")) == 3
    assert kinds_by_setting["failures"] == ["sync.failed", "sync.overdue"]
    assert kinds_by_setting["all"] == ["sync.completed", "sync.failed", "sync.overdue"]
    assert "sync.failed" not in kinds_by_setting["digest"]


def test_what_an_earlier_release_wrote_is_read(office: Post) -> None:
    success = {"at": NIGHT.isoformat(), "syncId": "1", "error": None, "errorKind": None}
    office.job_queue.keys.commit([Change(f"last:{hashed('customer')}", {"service": "customer", "success": success})])
    assert office.look(hours=27) == ["customer"]
    json.dumps(office.waiting())


@pytest.mark.parametrize("spoilt", [{}, {"service": 7}, {"success": 7}, {"success": {"at": "soon"}}, {"first": []}])
def test_a_record_of_last_runs_that_cannot_be_read_hides_no_silence_and_is_written_anew(
    office: Post, spoilt: dict[str, Any]
) -> None:
    office.services = ["customer", "order"]
    office.look()
    office.ran()
    key = f"last:{hashed('customer')}"
    item = office.job_queue.keys.get(key)
    assert item is not None
    office.job_queue.keys.commit([Change(key, {**item.value, **spoilt} if spoilt else {})])
    assert office.look() == []
    assert office.look(hours=27) == ["customer", "order"]
    office.job_queue.keys.commit([Change(key, {**item.value, **spoilt} if spoilt else {})])
    office.ran()
    assert office.look() == ["order"]
