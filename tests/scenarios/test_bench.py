"""That the benchmark runs, and that it would say so if a sync were wrong. Its figures are of no interest here."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import cli
from benchmarks.data import Change
from benchmarks.engines.sqlite import sqlite
from tests.programs import Program
from tests.scenarios.product import DEADLINE_SECONDS, ROOT

CONTENDERS = ["ours", "floor"]
CHOSEN = ["first", "spread"]  # the others do no more than these, but for the deletes of the test below


@pytest.fixture
def mostly_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has all turns but the first be made by forks of a process that has imported the app: a start takes a second."""
    started = list[Sequence[str]]()
    start = subprocess.run

    def run(command: Sequence[str], *, input: str, env: Mapping[str, str], **options: Any) -> Any:
        started.append(command)
        if len(started) == 1:
            return start(command, input=input, env=env, **options)
        pipes = [subprocess.PIPE] * 3
        with Program(command[1:], ROOT, env, *pipes) as process:
            assert process.stdin is not None
            process.stdin.write(input)
            out, err = process.communicate(DEADLINE_SECONDS)
        return subprocess.CompletedProcess(command, process.wait(), out, err)

    monkeypatch.setattr("benchmarks.turns.subprocess.run", run)


def run(folder: Path, *options: str) -> dict[str, Any]:
    """What `python -m benchmarks --json` prints."""
    fixed = ["--rows", "2000", "--repeat", "1", "--json", "--folder", str(folder)]
    ended = CliRunner().invoke(cli, [*fixed, *options])
    assert ended.exit_code == 0, ended.stderr
    return dict(json.loads(ended.stdout))


@pytest.mark.usefixtures("mostly_forks")
def test_workloads_are_measured_and_leave_the_backup_equal(tmp_path: Path) -> None:
    chosen = [f"--contender={name}" for name in CONTENDERS] + [f"--workload={name}" for name in CHOSEN]
    report = run(tmp_path, *chosen)
    lines = {(line["workload"], line["contender"], line["part"]): line for line in report["lines"]}
    assert {key: line["wrong"] or line["cannot"] for key, line in lines.items()} == dict.fromkeys(lines)
    assert {workload for workload, contender, _ in lines if contender == "ours"} == set(CHOSEN)
    ours = lines["spread", "ours", ""]
    assert len(ours["seconds"]) == 1
    assert min(ours["seconds"][0], ours["peak_bytes"], ours["source"]["statements"], ours["source"]["bytes"]) > 0
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert {tuple(figure) for figure in figures.values()} == {("name", "measured", "target", "at_least", "reached")}
    assert "first copy: rate / rate of bulk insert alone" in figures


def test_a_backup_that_differs_is_seen(tmp_path: Path) -> None:
    with sqlite(2000, tmp_path / "bench") as engine:
        place = engine.place("ours")
        engine.clear("ours")
        with closing(sqlite3.connect(place.backup.removeprefix("sqlite:///"))) as database, database:
            database.execute("ATTACH ? AS source", (place.source.removeprefix("sqlite:///"),))
            database.execute("CREATE TABLE Customers AS SELECT * FROM source.Customers")
        assert engine.difference(place, exact=True) is None
        for change in (Change("update", 2000, 2), Change("delete", 2000, 20)):
            engine.change(change)
            assert engine.difference(place, exact=True) is not None
            engine.undo(change)
            assert engine.difference(place, exact=True) is None
