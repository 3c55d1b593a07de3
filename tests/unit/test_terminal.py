"""What the command line shows of data, servers and settings: as it is, but for what a terminal would obey."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import typer

from backup.core.errors import BackupError, StoreError
from backup.core.run_values import Counts, Proof, Run, Status, Total, Trigger, Verb
from backup.entry import answers
from backup.entry.command_line.outcomes import show_health, show_outcomes, show_results, show_verified
from backup.entry.command_line.past import show_history, show_past
from backup.entry.command_line.terminal import errors_shown, print_answer, show_trouble
from backup.entry.health import HealthState
from backup.mirror.proof import DifferenceKind
from backup.mirror.verification import Difference, Report
from backup.recycle_bin.entries import KeptImage
from backup.runs.condition import Concern
from backup.runs.outcome import Outcome
from backup.services.past_values import Shown


@pytest.fixture(autouse=True)
def lines_as_long_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run("customer", Trigger.CLI, False, NOW, sync_id="the-id")
ODD = r"\[/foo] [bold]x[/] [/] \[red] :warning: \ "
OBEYED = "\x1b[2J\x07\x9b1m\u202e\x7f"
NAMES = ("\\x1b", "\\x07", "\\x9b", "\\u202e", "\\x7f")


def failing(error: BackupError) -> Outcome:
    return Outcome(RUN.ended(Status.FAILED, NOW, Counts(), str(error)), error)


def with_changes(key: str) -> Outcome:
    return Outcome(
        replace(RUN, dry_run=True, notes=(key,), failures=((json.dumps([key]), key),)), changes=[((key,), key)]
    )


def with_report(key: str) -> Outcome:
    report = Report()
    report.differences.append(Difference((key, 1), DifferenceKind.CONTENT, (key,)))
    return Outcome(RUN.ended(Status.COMPLETED, NOW, Counts()), report=report)


def raised(text: str) -> None:
    with pytest.raises(typer.Exit), errors_shown(False):
        raise StoreError(text, hint=text)


def past(text: str) -> Shown:
    return Shown([text, 1], {"Id": text}, [KeptImage("1", text, text, text, (text,), (text,), None, NOW)])  # type: ignore[arg-type]


SHOWN: dict[str, Callable[[str], None]] = {
    "error": raised,
    "failed run": lambda text: show_outcomes(text, [failing(StoreError(text))]),
    "changes": lambda text: show_outcomes(None, [with_changes(text)]),
    "differences": lambda text: show_verified([with_report(text)]),
    "history": lambda text: show_history([failing(StoreError(text)).run], NOW),
    "past": lambda text: show_past(past(text), NOW),
    "lines": lambda text: show_results(answers.Answer(207, {"Results": [{"Service": text}], "Hint": text})),
}


@pytest.mark.parametrize("where", SHOWN)
def test_what_comes_from_elsewhere_is_shown_as_it_is(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    SHOWN[where](ODD)
    shown = capsys.readouterr()
    assert r"\[/foo] [bold]x[/] [/] \[red] :warning:" in (shown.out + shown.err).replace("\n", "").replace(r"\\", "\\")


@pytest.mark.parametrize("where", SHOWN)
def test_what_a_terminal_would_obey_is_shown_by_name(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    SHOWN[where](OBEYED)
    shown = "".join(capsys.readouterr())
    assert not set(OBEYED) & (set(shown) - set("[2J1m"))
    assert all(name in shown for name in NAMES) or where == "past"  # its record is JSON, with escapes of its own


def test_json_holds_what_a_terminal_would_obey_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer(answers.Answer(200, {"Key": OBEYED + "\ud800é漢"}), True, lambda: None)
    text = capsys.readouterr().out.rstrip("\n")
    assert text.isprintable()
    assert json.loads(text) == {"Key": OBEYED + "\ud800é漢"}
    assert "é漢" in text


@pytest.mark.parametrize("key", ["", " a", "a\t", "  "])
def test_spaces_that_nobody_would_see_are_in_quotes(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_outcomes(None, [Outcome(RUN, changes=[((key,), "Inserted")])])
    assert json.dumps(key) in capsys.readouterr().out


def test_history_says_why_a_run_failed(capsys: pytest.CaptureFixture[str]) -> None:
    show_history([failing(StoreError("the disk is full")).run, RUN], NOW)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][:3] == ["Failed", "the-id", "customer"]
    assert lines[3] == ["the", "disk", "is", "full"]


def test_the_longest_name_of_a_service_takes_room_from_columns_and_not_from_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_history([replace(RUN, service="a" * 30, sync_id="0" * 36)], NOW)
    heading, _, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["Status", "Run", "Service", "Verb", "Inserted", "Updated", "Deleted"]
    assert (row.split()[2], max(len(heading), len(row)) <= 80) == ("a" * 30, True)


def test_a_verify_is_a_row_of_numbers_and_the_records_that_differ(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Proof(Total(3, 0), Total(2, 0)), Counter({DifferenceKind.MISSING: 1}))
    report.differences.append(Difference((10,), DifferenceKind.MISSING))
    run = replace(RUN, verb=Verb.VERIFY, proof=Proof(differing=1)).ended(Status.COMPLETED, NOW, Counts())
    show_verified([Outcome(run, report=report), failing(StoreError("the disk is full"))])
    shown = capsys.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0][:8] == ["Service", "Verified", "Source", "Backup", "Missing", "Extra", "Stale", "Content"]
    assert lines[2][:9] == ["customer", "NOT", "equal", "3", "2", "1", "0", "0", "0"]
    assert lines[3][:2] == ["customer", "Failed"]
    assert ["customer:", "1", "difference"] in lines
    assert ["missing", "10"] in lines
    assert "the disk is full" in shown.err


def test_a_terminal_shows_the_first_of_each_kind_of_change_and_a_file_all_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: list[tuple[tuple[int], str]] = [((key,), "Inserted") for key in range(30)]
    preview = Outcome(replace(RUN, dry_run=True), changes=[*changes, ((99,), "Newer")])
    show_outcomes(None, [preview])
    whole = capsys.readouterr().out.split()
    monkeypatch.setattr("backup.entry.command_line.outcomes.is_terminal", lambda: True)
    show_outcomes(None, [preview])
    shown = capsys.readouterr().out
    assert (whole.count("Inserted"), shown.split().count("Inserted"), " Newer     99" in shown) == (31, 21, True)
    assert shown.splitlines()[-1] == "And 10 more, which --json and a file name."


def test_an_error_that_many_services_share_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    full = [failing(StoreError("the disk is full")) for _ in range(4)]
    show_outcomes(None, [*full, failing(StoreError("another error"))])
    printed = capsys.readouterr().err
    assert (printed.count("the disk is full"), "4 services: the disk is full" in printed) == (1, True)
    assert "customer: another error" in printed


def test_a_note_that_many_services_share_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    noted = [Outcome(replace(RUN, service=f"shop/{n}", notes=("shared", f"own {n}"))) for n in range(4)]
    show_outcomes(None, noted)
    printed = capsys.readouterr().out
    assert (printed.count("shared"), "4 services: shared" in printed, "shop/3: own 3" in printed) == (1, True, True)


def test_health_tells_once_what_many_services_have_alike_and_names_all_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def concern(name: str, detail: str) -> Concern:
        return Concern("It cannot be used.", f"shop/{name}", "backup", error="NotInitialized", detail=detail)

    alike = [concern(name, f"The table {name} does not exist.") for name in ("a1", "b2", "c3", "d4")]
    show_health(HealthState((), [*alike, concern("e5", "The disk is full.")]))
    printed = capsys.readouterr().err
    assert "shop/a1 backup, and 3 more: It cannot be used. NotInitialized: The table a1 does not exist." in printed
    assert (printed.count("does not exist"), "shop/e5 backup: It cannot be used." in printed) == (1, True)


def test_health_names_the_run_that_failed_as_history_does(capsys: pytest.CaptureFixture[str]) -> None:
    show_health(HealthState((), [Concern("The last sync failed.", "shop", sync_id="85f56c13-57d7", error="Locked")]))
    assert "shop: The last sync failed. Run 85f56c13. Locked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "called"), [("/usr/bin/backup", "`backup plan`"), ("/x/backup/__main__.py", "`python -m backup plan`")]
)
def test_hints_name_the_command_as_it_was_called(
    program: str, called: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [program])
    show_trouble("", "", "`python -m backup plan`")
    assert capsys.readouterr().err.strip() == called
