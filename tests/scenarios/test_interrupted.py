"""Ctrl-C, SIGTERM, and readers that leave: what runs ends within seconds, and can be resumed."""

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.scenarios.places import Place, Sql
from tests.scenarios.product import DEADLINE_SECONDS, Ended, cli, python, start
from tests.scenarios.proxy import Proxy

SOON_SECONDS = 15

# Has the process interrupted as soon as it imports what takes longest.
AT_START = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "pydantic":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["backup", "history"]
runpy.run_module("backup", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(("number", "side"), [(signal.SIGINT, "source"), (signal.SIGTERM, "backup")])
def test_a_signal_ends_a_sync_within_seconds_though_a_server_does_not_answer(
    postgres_place: Place, tmp_path: Path, number: signal.Signals, side: str
) -> None:
    service = postgres_place.customer
    place: Sql = getattr(service, side)
    with Proxy(sa.make_url(place.url).port or 0, cut_after=14_000, silent=True).running() as proxy:
        url = sa.make_url(place.url).set(port=proxy.port).render_as_string(hide_password=False)
        settings = service.on(side, replace(place, url=url)).settings
        settings |= {"BackupSync__BatchSize": "10", "BackupSync__ChunkSize": "10"}
        with start(tmp_path, settings, "-m", "backup", "sync", "customer") as process:
            try:
                assert proxy.reached.wait(DEADLINE_SECONDS)
                process.send_signal(number)
                out, err = process.communicate(timeout=SOON_SECONDS)
            finally:
                process.kill()
    assert process.returncode == 128 + number
    match = re.search(r"Interrupted(?: at (\d+) %)?; run it again to continue", err)
    assert match, err
    assert "Traceback" not in out + err
    [left] = service.backup.history()
    assert (left["Status"], left["Owner"], bool(left["Checkpoint"])) == ("InProgress", None, True)
    # How far it is, it knows once its first chunk is settled: that may be the one that waits for the server.
    assert left["Percent"] == (match[1] and int(match[1]))
    assert cli(tmp_path, service.settings, "sync", "customer").code == 0
    [entry] = service.backup.history()
    assert (entry["SyncId"], entry["Status"], service.is_mirrored()) == (left["SyncId"], "Completed", True)


def at_start(folder: Path) -> Ended:
    return python(folder, {}, "-c", AT_START, anew=True)


def without_reader(folder: Path) -> Ended:
    with start(folder, {}, "-m", "backup", "--help") as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        return Ended(process.wait(DEADLINE_SECONDS), "", process.stderr.read())


@pytest.mark.parametrize(
    ("ended", "code", "message"),
    [(at_start, 130, "Interrupted before a run began; run it again.\n"), (without_reader, 0, "")],
)
def test_neither_an_early_signal_nor_a_closed_output_shows_a_traceback(
    ended: Callable[[Path], Ended], code: int, message: str, tmp_path: Path
) -> None:
    shown = ended(tmp_path)
    assert (shown.code, shown.err) == (code, message)
