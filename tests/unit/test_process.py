"""How an entry of SyncHistory names the process that owns its run, and when that process is surely gone."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from backup.runs.process import Process, this_process


def test_a_process_is_read_as_it_was_written_and_nothing_else_is_a_process() -> None:
    here = this_process()
    assert Process.read(str(here)) == here
    others = [str(here).replace("pid=", f"pid={digits}") for digits in ("x", "²", "9" * 20)]
    assert [Process.read(text) for text in ("", "host", f"{here} more=1", *others)] == [None] * 6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells when a process was started")
def test_a_process_is_gone_when_its_number_is_free_or_another_one_has_it() -> None:
    here = this_process()
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    assert not here.is_gone
    assert replace(here, started="1").is_gone
    assert replace(here, number=ended.pid).is_gone
    for elsewhere in (replace(here, host="other"), replace(here, boot="other"), replace(here, namespace="other")):
        assert not replace(elsewhere, number=ended.pid).is_gone


@pytest.mark.skipif(shutil.which("unshare") is None, reason="only Linux has namespaces")
@pytest.mark.parametrize("namespace", [["--time", "--boottime", "1000"], ["--pid"], ["--pid", "--mount-proc"]])
def test_a_process_that_lives_is_not_gone_for_one_with_another_clock_or_other_numbers(namespace: list[str]) -> None:
    asked = "import sys; from backup.runs.process import *; here = this_process()"
    asked += "; print(Process.read(sys.argv[1]).is_gone, here.is_gone, here.started if '--pid' in sys.argv else '')"
    command = ["unshare", *namespace, "--fork", sys.executable, "-c", asked, str(this_process()), *namespace]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode and "unshare" in answer.stderr:
        pytest.skip("this user may make no namespaces")
    gone, own_gone, *started = answer.stdout.split()
    assert (gone, own_gone) == ("False", "False")
    assert bool(started) == ("--mount-proc" in namespace)
