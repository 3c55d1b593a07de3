"""The command line as its users meet it: exit codes, what goes to which stream, each command."""

import json
import os
import pty
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest

from docs.make_picture import PICTURE, draw
from tests.scenarios.inside import command
from tests.scenarios.places import Place, filled_on_sqlite, on_sqlite
from tests.scenarios.product import DEADLINE_SECONDS, Ended, cli, python, start

RESULT_FIELDS = {
    *("SyncId", "ServiceName", "Status", "InsertedCount", "UpdatedCount", "DeletedCount", "SkippedCount"),
    *("TotalProcessed", "StartedAt", "CompletedAt", "DurationMs", "ErrorMessage", "Trigger", "DryRun", "Verified"),
    *(
        "Percent",
        "RequestCharge",
        "Notes",
        "FailedCount",
        "Failures",
        "Verb",
        "TriggeredBy",
        "ChangeLimit",
        "RemainingCount",
        "ReadAsOf",
    ),
}


def read_to_end(descriptor: int) -> str:
    """What comes out of a pseudo-terminal until its other end is closed."""
    text = b""
    try:
        while part := os.read(descriptor, 65536):
            text += part
    except OSError:  # Linux says so when nobody holds the other end any more
        pass
    os.close(descriptor)
    return text.decode()


@pytest.mark.parametrize(
    "arguments", [["initialize"], ["sync"], ["sync", "order", "--force"], ["history"], ["history", "order"], ["health"]]
)
def test_json_is_all_that_stands_on_standard_output(sqlite_place: Place, tmp_path: Path, arguments: list[str]) -> None:
    ended = cli(tmp_path, sqlite_place.settings, *arguments, "--json")
    assert ended.code == (arguments == ["health"]), ended.err  # there was no sync yet
    assert isinstance(json.loads(ended.out), dict)


def test_logs_go_to_standard_error(sqlite_place: Place, tmp_path: Path) -> None:
    ended = cli(tmp_path, sqlite_place.settings, "sync", "--json")
    assert "sync.completed service=customer" in ended.err
    assert "sync.completed" not in ended.out


@pytest.mark.parametrize("arguments", [["initialize"], ["sync"], ["history"], ["health"]])
def test_an_error_is_json_on_standard_output_and_exit_code_1(tmp_path: Path, arguments: list[str]) -> None:
    place = on_sqlite(tmp_path)  # none of its files exists
    ended = cli(tmp_path, place.settings, *arguments, "--json")
    assert ended.code == 1
    assert isinstance(json.loads(ended.out), dict)
    assert "Traceback" not in ended.err


def test_json_of_a_sync_is_what_http_answers(sqlite_place: Place, tmp_path: Path) -> None:
    answer = command(tmp_path, sqlite_place.settings, "sync", "--json").json
    assert answer.keys() == {"Success", "Message", "Results", "Timestamp"}
    assert [result.keys() for result in answer["Results"]] == [RESULT_FIELDS, RESULT_FIELDS]


def test_the_counts_of_a_sync_are_a_table_without_json(sqlite_place: Place, tmp_path: Path) -> None:
    ended = command(tmp_path, sqlite_place.settings, "sync", "customer")
    [row] = [line.split() for line in ended.out.splitlines() if line.split()[:1] == ["customer"]]
    assert row[:8] == ["customer", "Completed", "versions", "equal", "100", "0", "0", "0"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["sync", "customers"], "UnknownService"),
        (["sync", "order"], "UnknownService"),
        (["history", "order"], "UnknownService"),
    ],
)
def test_a_service_that_is_not_configured_is_an_error(
    sqlite_place: Place, tmp_path: Path, arguments: list[str], error: str
) -> None:
    ended = command(tmp_path, sqlite_place.customer.settings, *arguments, "--json")
    assert (ended.code, ended.json["Success"], ended.json["Error"]) == (1, False, error)


@pytest.mark.parametrize(
    "arguments", [["sync", "--forced"], ["synch"], ["history", "--limit", "0"], ["sync", "a", "b"]]
)
def test_a_command_line_that_is_wrong_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    assert cli(tmp_path, {}, *arguments).code == 2


def test_a_setting_that_is_wrong_is_named_without_a_traceback(tmp_path: Path) -> None:
    ended = cli(tmp_path, {"BackupSync__ChunkSize": "many"}, "sync")
    assert ended.code == 1
    assert "BackupSync__ChunkSize" in ended.err
    assert "Traceback" not in ended.err


def test_a_connection_string_is_not_shown_by_an_error(tmp_path: Path) -> None:
    settings = {
        "SourceCustomerDb__ConnectionString": "Server=x;Databse=y;User Id=sa;Password=s3cret-one",
        "BackupCustomerDb__ConnectionString": "postgresql://u:s3cret-two@/",
    }
    for arguments in (["sync"], ["sync", "--json"], ["health"], ["initialize"]):
        ended = cli(tmp_path, settings, *arguments)
        assert ended.code == 1
        assert "s3cret" not in ended.out + ended.err


def test_history_shows_the_latest_runs_of_each_service_newest_first(sqlite_place: Place, tmp_path: Path) -> None:
    for _ in range(3):
        assert command(tmp_path, sqlite_place.settings, "sync").code == 0
    shown = command(tmp_path, sqlite_place.settings, "history", "--limit", "2", "--json").json["Results"]
    recorded = [entry for service in sqlite_place.services for entry in service.backup.history()[-2:]]
    recorded.sort(key=lambda entry: entry["StartedAt"], reverse=True)
    assert [entry["SyncId"] for entry in shown] == [entry["SyncId"] for entry in recorded]


def test_history_before_the_first_initialize_says_what_to_run(tmp_path: Path) -> None:
    ended = command(tmp_path, on_sqlite(tmp_path).settings, "history", "--json")
    assert (ended.code, ended.json["Error"]) == (1, "NotInitialized")
    assert "initialize" in ended.json["Hint"]


def test_health_names_each_side_and_fails_when_one_is_down(sqlite_place: Place, tmp_path: Path) -> None:
    (tmp_path / "orders.db").unlink()
    ended = command(tmp_path, sqlite_place.settings, "health", "--json")
    checks = [(check["Service"], check["Side"], check["Status"]) for check in ended.json["Checks"]]
    assert (ended.code, ended.json["Status"]) == (1, "Unhealthy")
    assert checks == [
        ("customer", "source", "Healthy"),
        ("customer", "backup", "Healthy"),
        ("order", "source", "Unhealthy"),
        ("order", "backup", "Healthy"),
    ]


def test_health_says_in_full_what_is_degraded_and_fails(tmp_path: Path) -> None:
    ended = cli(tmp_path, {"BackupCustomerDb__ConnectionString": "sqlite:///x.db"}, "health")
    assert (ended.code, ended.out.splitlines()[-1]) == (1, "Degraded")
    assert "Setting SourceCustomerDb__ConnectionString is missing: service customer has no source." in ended.err


def test_verify_of_all_services_answers_each_and_fails_when_one_differs(sqlite_place: Place, tmp_path: Path) -> None:
    assert command(tmp_path, sqlite_place.settings, "sync").code == 0
    sqlite_place.order.backup.run("DELETE FROM {table} WHERE Id = 'order-0001'")
    ended = command(tmp_path, sqlite_place.settings, "verify", "all", "--json")
    assert (ended.code, ended.json["Verified"]) == (1, False)
    results = [(result["ServiceName"], result["Verified"], result["Missing"]) for result in ended.json["Results"]]
    assert results == [("customer", True, 0), ("order", False, 1)]


def test_sample_fills_empty_sources(tmp_path: Path) -> None:
    place = on_sqlite(tmp_path)
    assert command(tmp_path, place.settings, "sample").code == 0
    assert [len(service.source.contents()) for service in place.services] == [100, 55]


def test_sample_refuses_all_sources_when_one_holds_data(sqlite_place: Place, tmp_path: Path) -> None:
    sqlite_place.customer.source.run("DELETE FROM {table}")
    sqlite_place.order.source.run("DELETE FROM {table} WHERE Id <> 'order-0001'")
    ended = command(tmp_path, sqlite_place.settings, "sample")
    assert ended.code == 1
    assert [len(service.source.contents()) for service in sqlite_place.services] == [0, 1]


@dataclass(frozen=True)
class Demo:
    """A demo that ran to its end in the folder `here`, where another file was, with the settings of a filled place."""

    ended: Ended
    here: Path
    place: Place


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Nobody may change what it left."""
    folder = tmp_path_factory.mktemp("demo")
    place, here = filled_on_sqlite(folder), folder / "here"
    here.mkdir()
    (here / "mine.db").write_text("mine")
    return Demo(cli(folder, place.settings, "demo", "--folder", "here"), here, place)


def test_the_demo_shows_exact_counts_however_often_it_runs(demo: Demo, tmp_path: Path) -> None:
    copytree(demo.here, tmp_path, dirs_exist_ok=True)
    for ended in (demo.ended, cli(tmp_path, {}, "demo", "--folder", ".")):
        runs = [line.split() for line in ended.out.splitlines() if line.split()[:1] in (["customer"], ["order"])]
        assert ended.code == 0, ended.err
        assert [row[:8] for row in runs] == [
            ["customer", "Completed", "versions", "equal", "100", "0", "0", "0"],
            ["order", "Completed", "versions", "equal", "55", "0", "0", "0"],
            ["customer", "Completed", "versions", "equal", "0", "5", "3", "92"],
            ["order", "Completed", "versions", "equal", "2", "3", "0", "52"],
            ["customer", "Completed", "versions", "equal", "0", "97", "0", "0"],
            ["order", "Completed", "versions", "equal", "0", "57", "0", "0"],
            ["customer", "Completed", "versions", "equal", "0", "0", "0", "97"],
            ["order", "Completed", "versions", "equal", "0", "0", "0", "57"],
        ]


def test_the_demo_backs_up_a_set_and_brings_a_deleted_row_back(demo: Demo) -> None:
    runs = [line.split() for line in demo.ended.out.splitlines() if line.strip().startswith("shop/")]
    names = ["Categories", "Customers", "Order", "Orders", "Payments", "Products", "Payments", "Payments"]
    assert [row[0] for row in runs] == [f"shop/{name}" for name in names]
    assert runs[6][1:8] == ["Completed", "versions", "equal", "0", "0", "1", "2"]
    with closing(sqlite3.connect(demo.here / "shop.db")) as shop:
        assert shop.execute("SELECT * FROM Payments WHERE Id = 2").fetchall() == [(2, 2, "2026-11-02")]
    assert b"ada@example.com" not in (demo.here / "shop_backup.db").read_bytes()


def test_the_demo_ends_with_its_history_in_full(demo: Demo) -> None:
    history = demo.ended.out[demo.ended.out.index("SyncHistory") :]
    assert history.count(" Completed ") == 8
    assert "…" not in history


def test_the_picture_in_the_readme_is_what_the_demo_prints(demo: Demo) -> None:
    assert draw(demo.ended.out) == PICTURE.read_text(), (
        "the demo prints something else now: `make picture` draws it anew"
    )


def test_a_demo_whose_folder_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        ended = command(tmp_path, {}, "demo", "--folder", folder)
        assert ended.code == 1
        assert f"The folder {folder} cannot be made" in ended.err
        assert "--folder FOLDER" in ended.err


def test_the_demo_leaves_other_files_of_its_folder_alone(demo: Demo) -> None:
    assert demo.ended.code == 0
    assert (demo.here / "mine.db").read_text() == "mine"


def test_the_demo_takes_no_notice_of_the_settings(demo: Demo, sqlite_place: Place) -> None:
    assert demo.ended.code == 0
    filled = [service.source.contents() for service in sqlite_place.services]
    assert [service.source.contents() for service in demo.place.services] == filled
    assert [service.backup.contents() for service in demo.place.services] == [{}, {}]


def test_local_settings_beside_are_taken_where_the_environment_has_none(sqlite_place: Place, tmp_path: Path) -> None:
    values = {**sqlite_place.settings, "BackupSync__ChunkSize": "many"}
    (tmp_path / "local.settings.json").write_text(json.dumps({"Values": values}))
    ended = cli(tmp_path, {"BackupSync__ChunkSize": "10"}, "sync", "--json")
    assert ended.code == 0, ended.err


def test_a_dry_run_says_first_that_it_wrote_nothing(sqlite_place: Place, tmp_path: Path) -> None:
    assert command(tmp_path, sqlite_place.settings, "sync", "--dry-run").out.startswith("Nothing was written.")


def test_a_service_in_place_of_a_run_is_told_where_its_runs_are(sqlite_place: Place, tmp_path: Path) -> None:
    ended = command(tmp_path, sqlite_place.settings, "undo", "customer")
    assert (ended.code, "`python -m backup history customer` lists its runs" in ended.err) == (1, True)


def test_a_terminal_shows_progress_with_the_sources_total(sqlite_place: Place, tmp_path: Path) -> None:
    mine, its = pty.openpty()
    settings = {**sqlite_place.customer.settings, "TERM": "xterm", "COLUMNS": "120"}
    with start(tmp_path, settings, "-m", "backup", "sync", stdout=its, stderr=its) as process:
        os.close(its)
        shown = read_to_end(mine)
        assert process.wait(DEADLINE_SECONDS) == 0
    assert "100/100" in shown
    assert "sync.started" not in shown


def test_on_a_terminal_results_come_before_log_lines_and_no_word_is_broken(sqlite_place: Place, tmp_path: Path) -> None:
    mine, its = pty.openpty()
    settings = {**sqlite_place.customer.settings, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}
    with start(tmp_path, settings, "-m", "backup", "verify", stdout=its, stderr=its) as process:
        os.close(its)
        shown = read_to_end(mine)
        assert process.wait(DEADLINE_SECONDS) == 1
    assert 0 < shown.index(" customer NOT equal") < shown.index("INFO verify.started service=customer")
    lines = re.sub(r"\x1b\[\d+m", "", shown).splitlines()
    # A word may be longer than a line, such as the path of a file.
    assert max(len(line) for line in lines if " " in line.strip()) <= 80


def test_without_a_terminal_there_is_no_bar_but_plain_lines(sqlite_place: Place, tmp_path: Path) -> None:
    ended = cli(tmp_path, sqlite_place.customer.settings, "sync")
    assert "\x1b" not in ended.out + ended.err
    assert "100/100" not in ended.err


def test_standard_output_that_is_closed_early_leaves_no_traceback(sqlite_place: Place, tmp_path: Path) -> None:
    with start(tmp_path, sqlite_place.settings, "-m", "backup", "sync", "--json") as process:
        assert process.stdout
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("stdout", "code", "words"),
    [("open('/dev/full', 'w')", 1, "has not taken all results: No space left on device."), ("None", 0, "")],
)
def test_standard_output_that_is_full_or_closed_fails_no_run(
    sqlite_place: Place, tmp_path: Path, stdout: str, code: int, words: str
) -> None:
    script = (
        f"import sys; sys.argv[1:] = ['sync', '--json']; sys.stdout = {stdout}; import backup.__main__ as m; m.main()"
    )
    ended = python(tmp_path, sqlite_place.customer.settings, "-c", script)
    assert (ended.code, "sync.completed" in ended.err, words in ended.err) == (code, True, True)
    assert "Traceback" not in ended.err
    assert "nexpected" not in ended.err


@pytest.mark.parametrize("arguments", [("show", "customer", "漢"), ("show", "customer", "漢", "--json")])
def test_an_output_that_knows_few_characters_is_no_reason_to_fail(
    sqlite_place: Place, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ended = cli(tmp_path, {**sqlite_place.customer.settings, "PYTHONIOENCODING": "ascii"}, *arguments)
    assert (ended.code, "Traceback" in ended.err) == (1, False)
    assert "--json" not in arguments or "'漢' is not a key" in ended.json["Message"]
