"""A failure of these tests tells how to repeat it; the places they run in."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.reliability.effort import LONG, SEED
from tests.scenarios import places
from tests.scenarios.places import Place


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        long = " TORTURE=1" if LONG else ""
        report.sections.append(("seed", f"Repeat it with RELIABILITY_SEED={SEED}{long} pytest {item.nodeid!r}"))
    return report


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """Both services on SQLite, filled with the sample."""
    return places.filled_on_sqlite(tmp_path)
