"""What is told of the past: lists of runs, one run, one record, and what changed, for people and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from backup.core.run_values import Counts, Run, Status, Trigger, Verb
from backup.mirror.verification import Depth
from backup.services.service import Options
from tests.scenarios.inside import a_week, command, done, refused, remove, synced
from tests.scenarios.places import Place
from tests.scenarios.test_purge import DAY, NOW, ran

NARROW = {"COLUMNS": "80"}


def shown(place: Place, folder: Path, *arguments: str, **settings: str) -> list[str]:
    """The lines of a command that ran well, in 80 columns."""
    ended = command(folder, {**place.settings, **NARROW, **settings}, *arguments)
    assert ended.code == 0, ended.err
    return ended.out.splitlines()


# --- lists of runs ----------------------------------------------------------------------------------------------------


def test_dry_runs_and_what_was_refused_are_listed_only_where_all_are_asked_for(
    customers: Place, tmp_path: Path
) -> None:
    first, second = a_week(customers)
    customers.registry.sync("customer", Trigger.CLI, Options(dry_run=True))
    assert refused(command(tmp_path, customers.settings, "undo", first.sync_id, "--yes", "--json"))[0] == "Conflict"

    def listed(*options: str) -> list[str]:
        answer = done(command(tmp_path, customers.settings, "history", "--json", *options))
        return [entry["SyncId"] for entry in answer["Results"]]

    assert listed() == [second.sync_id, first.sync_id]
    assert len(listed("--all")) == 4
    assert listed("--failed") == []
    assert len(listed("--failed", "--all")) == 1
    assert listed("--limit", "1") == [second.sync_id]


def test_since_leaves_out_what_began_before(customers: Place, tmp_path: Path) -> None:
    days = [ran(customers, "customer", days_ago, number) for number, days_ago in enumerate((40, 10, 1))]
    for since, expected in {"2d": days[2:], "2w": days[1:], (NOW - 41 * DAY).isoformat(): days}.items():
        answer = done(command(tmp_path, customers.settings, "history", "--since", since, "--json"))
        assert [entry["SyncId"] for entry in answer["Results"]] == [run.sync_id for run in reversed(expected)]


@pytest.mark.parametrize("since", ["yesterday", "7", "d7", "2026-01-01", "999999999999w", "-1d"])
def test_a_since_that_is_no_time_is_refused(customers: Place, tmp_path: Path, since: str) -> None:
    for name in ("history", "changes"):
        ended = command(tmp_path, customers.settings, name, "customer", f"--since={since}", "--json")
        assert refused(ended)[0] == "BadRequest"


@pytest.mark.parametrize("options", [("--skip", "1"), ("--only", "deleted"), ("RUN", "--failed"), ("RUN", "--all")])
def test_an_option_that_would_choose_nothing_is_refused(
    customers: Place, tmp_path: Path, options: tuple[str, ...]
) -> None:
    run = ran(customers, "customer", 1, 1)
    arguments = [run.sync_id if option == "RUN" else option for option in options]
    assert refused(command(tmp_path, customers.settings, "history", *arguments, "--json"))[0] == "BadRequest"


def test_history_has_state_and_a_short_id_first_and_each_error_on_lines_of_its_own(
    customers: Place, tmp_path: Path
) -> None:
    why = "The server did not answer in time, and whatever else there is to say of it takes more than one line. " * 2
    failed = ran(customers, "customer", 2, 1, status=Status.FAILED, error=why.strip(), counts=Counts(updated=1_234_567))
    heading, _, row, *below = shown(customers, tmp_path, "history")
    assert heading.split()[:5] == ["Status", "Run", "Service", "Verb", "Age"]
    assert row.split()[:6] == ["Failed", failed.sync_id[:8], "customer", "sync", "2", "d"]
    assert "1234567" in row
    assert " ".join(" ".join(below).split()) == why.strip()


# --- one run ----------------------------------------------------------------------------------------------------------


def test_one_run_is_shown_with_its_notes_and_the_keys_of_what_it_changed(customers: Place, tmp_path: Path) -> None:
    _, second = a_week(customers)
    whole = customers.registry.get("customer").verify(Depth(full=True)).run
    assert "contents equal" in "\n".join(shown(customers, tmp_path, "history", whole.sync_id))
    lines = shown(customers, tmp_path, "history", second.sync_id[:6])
    text = "\n".join(lines)
    assert f"Run       {second.sync_id}" in lines
    assert "versions equal" in text
    assert [line.split() for line in lines[-6:]] == [
        ["Inserted", "101"],
        *(["Updated", key] for key in ("2", "10")),
        *(["Deleted", key] for key in ("3", "11", "12")),
    ]


def test_the_changes_of_one_run_come_in_pages_and_of_one_kind(customers: Place, tmp_path: Path) -> None:
    first, second = a_week(customers)

    def page(run: Run, *options: str) -> tuple[list[tuple[str, int]], bool]:
        answer = done(command(tmp_path, customers.settings, "history", run.sync_id, "--json", *options))
        return [(change["Change"], change["Key"][0]) for change in answer["Changes"]], answer["More"]

    whole, more = page(first)  # which share an entry of the bin
    assert (len(whole), {change for change, _ in whole}, more) == (100, {"Inserted"}, False)
    parts = [page(first, "--limit", "30", "--skip", str(skip)) for skip in (0, 30, 60, 90)]
    assert [change for part, _ in parts for change in part] == whole
    assert [more for _, more in parts] == [True, True, True, False]
    assert page(second, "--only", "deleted") == ([("Deleted", 3), ("Deleted", 11), ("Deleted", 12)], False)


def test_a_restore_names_what_it_replaced_in_the_source(customers: Place, tmp_path: Path) -> None:
    first, _ = a_week(customers)
    options = ("--run", first.sync_id, "--key", "1", "--only", "inserted", "--delete-extra", "--yes", "--json")
    restored = done(command(tmp_path, customers.settings, "restore", "customer", *options))
    lines = shown(customers, tmp_path, "history", restored["SyncId"])
    assert lines[-1].split() == ["Deleted", "in", "the", "source", "1"]


# --- one record -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["sqlite_place", "cosmos_place"], indirect=True)
def test_a_record_that_was_deleted_is_named_by_its_run_and_shown_as_it_was(place: Place, tmp_path: Path) -> None:
    first = synced(place, "order")
    remove(place, "order", "order-0003")
    run = synced(place, "order")
    listed = done(command(tmp_path, place.order.settings, "history", "--since", "1h", "--json"))["Results"]
    assert [entry["SyncId"] for entry in listed] == [run.sync_id, first.sync_id]
    together = done(command(tmp_path, place.order.settings, "changes", "order", "--json"))["Together"]
    assert numbers(together) == (55, 0, 1)
    [deleted] = done(command(tmp_path, place.order.settings, "history", run.sync_id, "--json"))["Changes"]
    assert (deleted["Key"][-1], deleted["Change"]) == ("order-0003", "Deleted")
    ended = command(tmp_path, place.order.settings, "show", "order", json.dumps(deleted["Key"]))
    assert ended.code == 0, ended.err
    assert f"Before the run {run.sync_id[:8]} deleted it" in ended.out
    assert re.search(r"^id +order-0003$", ended.out, re.M | re.I)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_key_that_nobody_knows_is_exit_code_1(customers: Place, tmp_path: Path, options: tuple[str, ...]) -> None:
    ended = command(tmp_path, customers.settings, "show", "customer", "4711", *options)
    assert ended.code == 1
    if options:
        assert (ended.json["Error"], ended.json["Key"], ended.json["Changes"]) == ("UnknownRecord", [4711], [])
    else:
        assert "UnknownRecord: The backup has no record 4711" in ended.err


# --- what changed -----------------------------------------------------------------------------------------------------


def changes(place: Place, folder: Path, *options: str) -> dict[str, Any]:
    return done(command(folder, place.settings, "changes", "customer", "--json", *options))


def numbers(of: dict[str, Any]) -> tuple[int, int, int]:
    return of["InsertedCount"], of["UpdatedCount"], of["DeletedCount"]


def test_changes_count_each_record_also_where_keys_share_an_entry(customers: Place, tmp_path: Path) -> None:
    first, second = a_week(customers)
    by_run = changes(customers, tmp_path, "--by", "run")
    counts_by_run = [(row["SyncId"], *numbers(row)) for row in by_run["Results"]]
    assert counts_by_run == [(second.sync_id, 1, 2, 3), (first.sync_id, 100, 0, 0)]
    by_day = changes(customers, tmp_path)
    assert [numbers(day) for day in by_day["Results"]] == [(101, 2, 3)]
    assert numbers(by_day["Together"]) == (101, 2, 3)


def test_of_a_run_that_was_undone_nothing_counts_until_its_undo_is_undone(customers: Place, tmp_path: Path) -> None:
    _, second = a_week(customers)
    undo = ("undo", second.sync_id, "--yes", "--json")
    undone = done(command(tmp_path, customers.settings, *undo))["SyncId"]
    by_run = changes(customers, tmp_path, "--by", "run")
    assert [(row["SyncId"], row["UndoneBy"], row["Counts"]) for row in by_run["Results"]][:2] == [
        (undone, None, False),
        (second.sync_id, undone, False),
    ]
    assert numbers(by_run["Together"]) == (100, 0, 0)
    done(command(tmp_path, customers.settings, "undo", undone, "--yes", "--json"))
    assert numbers(changes(customers, tmp_path)["Together"]) == (101, 2, 3)


def test_an_undo_of_what_was_before_counts_as_a_change(customers: Place, tmp_path: Path) -> None:
    _, second = a_week(customers)
    done(command(tmp_path, customers.settings, "undo", second.sync_id, "--yes", "--json"))
    [undo, *_] = done(command(tmp_path, customers.settings, "history", "--json"))["Results"]
    since_undo = changes(customers, tmp_path, "--since", undo["StartedAt"])
    assert numbers(since_undo["Together"]) == (3, 2, 1)


def test_what_is_older_than_the_bin_is_told_by_the_history(customers: Place, tmp_path: Path) -> None:
    old = ran(customers, "customer", 40, 1, counts=Counts(5, 6, 7, 8))
    ran(customers, "customer", 39, 2, verb=Verb.VERIFY)
    by_day = changes(customers, tmp_path, "--since", "60d")
    assert [(row["Day"], row["Runs"], *numbers(row)) for row in by_day["Results"]] == [
        (f"{old.started_at:%Y-%m-%d}", 1, 5, 6, 7)
    ]


# --- in 80 columns ----------------------------------------------------------------------------------------------------


def test_no_command_prints_a_line_longer_than_the_terminal_or_breaks_a_word(customers: Place, tmp_path: Path) -> None:
    first, second = a_week(customers)
    ran(customers, "customer", 3, 0, status=Status.FAILED, error="It failed for reasons that take a long time. " * 5)
    remove(customers, "customer", "20")
    commands = [
        *(("history",), ("history", "--all"), ("history", second.sync_id), ("show", "customer", "2")),
        *(("show", "customer", "11"), ("changes", "customer"), ("changes", "customer", "--by", "run"), ("health",)),
        *(("verify", "--full"), ("sync", "--dry-run"), ("sync",), ("purge",), ("initialize",), ("sync", "nobody")),
        *(("undo", first.sync_id), ("undo", second.sync_id), ("restore", "customer", "--run", second.sync_id)),
    ]
    wide = {"COLUMNS": "400"}
    for arguments in commands:
        narrow = command(tmp_path, {**customers.settings, **NARROW}, *arguments)
        printed = narrow.out + "\n" + "\n".join(line for line in narrow.err.splitlines() if not line[:4].isdecimal())
        long = [line for line in printed.splitlines() if len(line) > 80]
        assert [line for line in long if " " in line.strip()] == [], arguments  # a single word, a path, may be longer
        again = command(tmp_path, {**customers.settings, **wide}, *arguments)
        words = {word for word in (again.out + again.err).split() if word.isalpha()}
        broken = {word for word in printed.split() if word.isalpha()} - words
        assert not broken - {"sync", "undo", "restore"}, arguments
