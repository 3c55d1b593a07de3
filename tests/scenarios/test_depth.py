"""How deep it goes from a trigger to the first SQL statement: who follows a call through the code has to hold it."""

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path
from types import FrameType
from typing import Any

import azure.functions as func
import pytest
import sqlalchemy as sa

import function_app
from backup.stores.sql.engines.sqlite import system_tables
from backup.stores.sql.engines.sqlite.connection import asked_plainly
from tests.scenarios.inside import command
from tests.scenarios.places import Place
from tests.scenarios.product import ROOT

DEEPEST = 10


def waits(frame: FrameType | None) -> bool:
    """Whether a thread of this stack waits for others: it has started them all."""
    while frame is not None:
        if frame.f_code is wait.__code__:
            return True
        frame = frame.f_back
    return False


def own(frame: FrameType | None) -> list[str]:
    """The project's own frames of a stack, the innermost first."""
    frames = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "backup") or path == ROOT / "function_app.py":
            frames.append(f"{path.relative_to(ROOT)}: {frame.f_code.co_qualname}")
        frame = frame.f_back
    return frames


@pytest.fixture
def first_statement(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The own frames above the first statement: of its thread, then of the main thread, which waits for it."""
    stack: list[str] = []

    def note(*_: Any) -> None:
        if not stack:
            main = threading.main_thread().ident or 0
            stack.extend(own(sys._getframe(1)))
            while threading.get_ident() != main:
                if waits(frame := sys._current_frames()[main]):
                    stack.extend(own(frame))
                    break

    def noted(cx: sa.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        note()
        return asked_plainly(cx, statement, values)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    monkeypatch.setattr(system_tables, asked_plainly.__name__, noted)
    yield stack
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_from_http_to_the_first_statement_it_is_not_deep(
    sqlite_place: Place, first_statement: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sqlite_place.settings.items():
        monkeypatch.setenv(name, value)
    trigger: Any = function_app.SyncCustomer
    answer = trigger.build().get_user_function()(func.HttpRequest("POST", "/api/backup/sync/customer", body=b""))
    assert answer.status_code == 200
    assert 0 < len(first_statement) <= DEEPEST, first_statement


def test_from_the_command_line_to_the_first_statement_it_is_not_deep(
    sqlite_place: Place, first_statement: list[str], tmp_path: Path
) -> None:
    assert command(tmp_path, sqlite_place.settings, "sync", "customer", "--json").code == 0
    assert 0 < len(first_statement) <= DEEPEST, first_statement
