"""Draws docs/dashboard.png: the page over the demo's databases, with a month of nights. `make picture` runs it.

It needs Chromium. The page is the real one, served by `python -m backup serve`; only the nights before today are made.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from shutil import copy

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from backup.config.settings import load_settings  # noqa: E402 - the root is on the path only now
from backup.core.run_values import Counts, Run, Status, Trigger  # noqa: E402
from backup.dev.demo import FILES, run_demo  # noqa: E402
from backup.jobs.job_queue import JobQueue, open_job_queue  # noqa: E402
from backup.mirror.verification import Depth  # noqa: E402
from backup.services.registry import Registry  # noqa: E402
from tests.scenarios.browsing import Tab, chromium  # noqa: E402

PICTURE = ROOT / "docs/dashboard.png"
_NIGHTS = 34
_SIZE = {"width": 1280, "height": 1010}


def draw(folder: Path) -> None:
    """Makes the databases and the records in the folder, serves them, and writes the picture of the page."""
    run_demo(folder, lambda *_: None)
    (folder / "orders.db").rename(folder / "away.db")
    settings = {name: f"sqlite:///{folder / file}" for name, file in FILES.items()}
    settings["BackupJobs__File"] = str(folder / "jobs.db")
    loaded = load_settings(settings)
    job_queue = open_job_queue(loaded)
    registry = Registry(loaded, watcher=job_queue.watcher())
    _make_nights(job_queue, registry.directory.names())
    registry.sync("all", Trigger.TIMER)
    registry.verify("customer", Depth(full=True), drilled=True)
    job_queue.keys.close()
    for file in ("function_app.py", "host.json"):
        copy(ROOT / file, folder)
    command = [sys.executable, "-m", "backup", "serve", "--port", "0"]
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as server:  # noqa: S603
        try:
            assert server.stderr  # noqa: S101 - for mypy
            line = next(line for line in server.stderr if "running on " in line)
            address = line.partition("running on ")[2].split()[0]
            _take(f"{address}/api/dashboard")
        finally:
            server.terminate()
            server.communicate()


def _make_nights(job_queue: JobQueue, services: list[str]) -> None:
    """Records of the nights before today, some of which failed."""
    chance = random.Random(7)  # noqa: S311 - so that the picture stays alike
    tonight = job_queue.now().replace(hour=0, minute=0, second=0, microsecond=0)
    for days in range(_NIGHTS, 0, -1):
        for service in services:
            at = tonight - timedelta(days=days)
            if chance.random() > 0.03 or days == 1:
                job_queue.runs.save(_night(service, at, chance), due_at=at)


def _night(service: str, at: datetime, chance: random.Random) -> Run:
    counts = Counts(chance.randrange(40), chance.randrange(120), chance.randrange(9), 5_000)
    run = Run(service, Trigger.TIMER, False, at, counts=counts, status=Status.IN_PROGRESS)
    return replace(run, status=Status.COMPLETED, completed_at=at + timedelta(seconds=chance.uniform(8, 40)))


def _take(address: str) -> None:
    with chromium() as browser, Tab(browser, address) as tab:
        tab.page.set_viewport_size(_SIZE)  # type: ignore[arg-type]
        tab.row("Services", "customer").wait_for()
        tab.section("Runs").get_by_role("row").nth(1).wait_for()
        tab.page.screenshot(path=PICTURE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        draw(Path(made))
