"""How deep it goes from a trigger to the first call of a database: who follows it through the code has to hold it."""

import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from types import FrameType
from typing import Any

import azure.functions as func
import pytest

import function_app
from backup.stores.sql.access import SqlAccess
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
def first_call(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The own frames above the first call of a database: of its thread, then of the main thread, which waits for it."""
    stack: list[str] = []
    once = SqlAccess.once

    def noted(access: SqlAccess, *of: Any, **how: Any) -> Any:
        if not stack:
            main = threading.main_thread().ident or 0
            stack.extend(own(sys._getframe(1)))
            while threading.get_ident() != main:
                if waits(frame := sys._current_frames()[main]):
                    stack.extend(own(frame))
                    break
        return once(access, *of, **how)

    monkeypatch.setattr(SqlAccess, "once", noted)
    return stack


def test_from_http_to_the_first_call_it_is_not_deep(
    sqlite_place: Place, first_call: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sqlite_place.settings.items():
        monkeypatch.setenv(name, value)
    trigger: Any = function_app.SyncCustomer
    answer = trigger.build().get_user_function()(func.HttpRequest("POST", "/api/backup/sync/customer", body=b""))
    assert answer.status_code == 200
    assert 0 < len(first_call) <= DEEPEST, first_call


def test_from_the_command_line_to_the_first_call_it_is_not_deep(
    sqlite_place: Place, first_call: list[str], tmp_path: Path
) -> None:
    assert command(tmp_path, sqlite_place.settings, "sync", "customer", "--json").code == 0
    assert 0 < len(first_call) <= DEEPEST, first_call
