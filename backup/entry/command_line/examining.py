"""The command doctor: examines the set-up and says what to do."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from backup.doctor.findings import Finding, Grade, worst
from backup.entry.command_line.configuration import settings_from
from backup.entry.command_line.grid import GridColumn, GridRow
from backup.entry.command_line.options import AsJson, Config
from backup.entry.command_line.terminal import as_called, errors_shown, plain, print_answer, say, show_grid
from backup.entry.doctor_api import examined, shape_findings


def doctor_command(config: Config = None, as_json: AsJson = False) -> None:
    """Examine the set-up: settings, identity, rights, clocks, storage, jobs, timers, versions. Changes nothing.

    A line for each check: ok, warning or failed, and what to do. Exit code 1 if one has failed.
    """
    with errors_shown(as_json):
        findings = examined(lambda: settings_from(config))
        print_answer(shape_findings(findings), as_json, lambda: _show(findings))
        if worst(findings) is Grade.FAILED:
            raise typer.Exit(1)


def _show(findings: Sequence[Finding]) -> None:
    columns = [GridColumn(name) for name in ("Status", "Of", "Check", "What")]
    rows = [
        GridRow(
            [finding.grade.value, plain(finding.subject), plain(finding.check), plain(finding.message)],
            [plain(as_called(finding.hint))] if finding.hint and finding.grade is not Grade.OK else [],
        )
        for finding in findings
    ]
    show_grid(None, columns, rows)
    numbers = [f"{sum(finding.grade is grade for finding in findings)} {grade.value}" for grade in Grade]
    say(", ".join(numbers))
