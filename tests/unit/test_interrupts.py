"""What a signal changes in this process: the mark that runs ask for, and who is spared."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from backup.core import interrupts
from backup.core.errors import Interrupted

TWO_SIGNALS = """
import signal, threading
from backup.core import interrupts

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may run the tests
with interrupts.handled(lambda: print("told", flush=True)), interrupts.running():
    print("ready", flush=True)
    interrupts._mark.requested.wait()
    signal.raise_signal(signal.SIGHUP)  # a terminal that ends sends it twice
    print("heard", flush=True)
    threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_mark", interrupts._Mark())


def test_whoever_asks_after_a_signal_is_interrupted_but_for_last_words() -> None:
    interrupts.check()
    interrupts.request(signal.SIGTERM)
    with pytest.raises(Interrupted):
        interrupts.check()
    with interrupts.last_words():
        interrupts.check()
    with pytest.raises(Interrupted):
        interrupts.check()
    assert interrupts.exit_code() == 128 + signal.SIGTERM


def test_a_wait_ends_with_a_signal_and_calls_get_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    interrupts.request(signal.SIGINT)
    monkeypatch.setattr("time.sleep", asked.append)
    with pytest.raises(Interrupted):
        interrupts.sleep(60)
    assert asked == []
    assert interrupts.seconds_for(600) == interrupts.LAST_SECONDS


def test_a_second_signal_ends_the_process_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", TWO_SIGNALS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "heard\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == ""  # it did not wait for the run, to tell that it waits no more
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
