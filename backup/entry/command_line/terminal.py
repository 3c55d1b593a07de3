"""Prints results to standard output, errors and progress to standard error.

Lines break between words only. If a stream is not a terminal and COLUMNS is not set, lines do not break.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from backup.config.environment import terminal_columns
from backup.core.errors import BackupError, Interrupted
from backup.core.log import redact, visible
from backup.core.model import typed_key
from backup.core.run_values import Counts
from backup.core.unexpected import as_backup_error
from backup.entry.answers import Answer, error_answer
from backup.entry.command_line.grid import GridColumn, GridRow, laid_out, lines_of
from backup.runs.outcome import NOBODY, Observer
from backup.services.registry import Registry

# No markup: texts from data, servers and settings are shown as they are, whatever rich would take them for.
_NO_MARKUP: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}


@cache
def _out() -> Console:
    return Console(**_NO_MARKUP)


@cache
def _err() -> Console:
    return Console(**_NO_MARKUP, stderr=True)


@contextmanager
def errors_shown(as_json: bool) -> Iterator[None]:
    """Turns an error inside into a message, and exit code 1."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as caught:
        error = as_backup_error(caught)
        if as_json:
            _print_json(error_answer(error))
        else:
            subject = "" if isinstance(error, Interrupted) else type(error).__name__
            show_trouble(subject, str(error), error.hint)
        raise typer.Exit(1) from None


def print_answer(answer: Answer, as_json: bool, show: Callable[[], None]) -> None:
    """Prints the answer as JSON, or calls `show`. Raises Exit with code 1 unless the answer's status is 200."""
    if as_json:
        _print_json(answer)
    else:
        show()
    if answer.status != 200:
        raise typer.Exit(1)


def _print_json(answer: Answer) -> None:
    text = answer.json
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # the output's encoding lacks a character; ASCII is enough for JSON
        text = json.dumps(answer.body)
    print(text)


def plain(text: str) -> str:
    """The text as it is safe on a terminal: without secrets, and without characters that control a terminal."""
    return visible(redact(text))


def key_text(parts: Sequence[Any]) -> str:
    """A key as the command line takes it; in quotes where it is empty or begins or ends with spaces."""
    text = typed_key(parts)
    return plain(text) if text.strip() == text != "" else plain(json.dumps(text, ensure_ascii=False))


def as_called(text: str) -> str:
    """The text with this command as a person calls it here: `backup` where it is installed, else `python -m backup`."""
    return text.replace("python -m backup", "backup") if Path(sys.argv[0]).stem == "backup" else text


def say(text: str, style: str = "", indent: str = "") -> None:
    """Prints a text to standard output. Lines after the first begin with `indent`."""
    for line in lines_of(plain(text), _width_of(_out()), indent):
        _out().print(Text(line, style), soft_wrap=True)


def show_grid(title: str | None, columns: Sequence[GridColumn], rows: Sequence[GridRow]) -> None:
    """Prints rows under headings to standard output. The caller has made the texts `plain`."""
    if title is not None:
        say(title, "bold")
    for line, style in laid_out(columns, rows, _width_of(_out())):
        _out().print(Text(line, style), soft_wrap=True)


def show_trouble(subject: str, message: str, hint: str) -> None:
    """Prints to standard error what went wrong and, on a line of its own, what to do. `subject` is in red. Lines after
    the first are indented, so that it is seen where a trouble begins."""
    width = _width_of(_err())
    message, hint = as_called(message), as_called(hint)
    sentence = f"{subject}: {message}" if subject and message else f"{subject}{message}"
    for number, line in enumerate(lines_of(plain(sentence), width, "  ") if sentence else ()):
        text = Text(line)
        if number == 0 and subject:
            text.stylize("bold red", 0, len(plain(subject)))
        _err().print(text, soft_wrap=True)
    margin = "  " if sentence else ""
    for line in lines_of(margin + plain(hint), width, margin) if hint else ():
        _err().print(Text(line), soft_wrap=True)


def is_terminal() -> bool:
    """Whether a person reads standard output as it comes: no file, no pipe."""
    return _out().is_terminal


def width_of_results() -> int | None:
    """How wide a line of standard output may be; None: without limit."""
    return _width_of(_out())


def width_of_errors() -> int | None:
    """How wide a line of standard error may be; None: without limit."""
    return _width_of(_err())


def _width_of(console: Console) -> int | None:
    """The value of COLUMNS, else the terminal's width; None where there is neither."""
    return terminal_columns() or (console.width if console.is_terminal else None)


@contextmanager
def progress_bars(registry: Registry, service: str, *, of_source: bool = False) -> Iterator[Observer]:
    """Shows a bar for each service while the block runs, on a terminal; elsewhere log lines tell the progress. Its end
    is known if the run walks all records `of_source`."""
    if not _err().is_terminal:
        yield NOBODY
        return
    logging.getLogger("backup").setLevel(logging.WARNING)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err(), transient=True) as bars:
        tasks = {
            name: bars.add_task(name, total=_source_count(registry, name) if of_source else None)
            for name in registry.directory.chosen(service)
        }
        yield _Bars(bars, tasks)


class _Bars(Observer):
    """Moves the bar of each service."""

    def __init__(self, bars: Progress, tasks: Mapping[str, TaskID]) -> None:
        self._bars, self._tasks = bars, tasks

    def progress(self, service: str, counts: Counts) -> None:
        if service in self._tasks:  # a restore also works on services whose table is gone
            self._bars.update(self._tasks[service], completed=counts.seen - counts.deleted)


def _source_count(registry: Registry, name: str) -> int | None:
    try:
        return registry.get(name).count()
    except BackupError:
        return None  # the run itself reports it
