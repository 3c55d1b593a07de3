"""One turn in a process of its own: `python -m benchmarks.child` takes a Job on standard input and prints a Measured.

Imports are made and connections are tried before the clock starts; nothing but the work is timed.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from pathlib import Path

from benchmarks import counting
from benchmarks.contenders import CONTENDERS
from benchmarks.jobs import Job, Measured, Reads, Told

_STATUS = Path("/proc/self/status")
_KIB = 1024


def main() -> None:
    """Does the job that standard input describes."""
    job = Job.from_json(sys.stdin.read())
    counts = counting.install(job) if job.counting else None
    work = CONTENDERS[job.contender].prepare(job)
    gc.collect()
    idle = _memory_from_here()
    if counts is not None:
        counts.begin()
    started, worked = time.perf_counter(), time.process_time()
    told = work() or Told()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    measured = Measured(
        seconds=seconds if told.seconds is None else told.seconds,
        cpu_seconds=cpu_seconds if told.cpu_seconds is None else told.cpu_seconds,
        idle_bytes=idle if told.idle_bytes is None else told.idle_bytes,
        peak_bytes=_peak() if told.peak_bytes is None else told.peak_bytes,
        records=told.records,
        reads=counts.reads() if counts is not None else Reads(),
    )
    print(measured.to_json(), flush=True)


def _memory_from_here() -> int:
    """Bytes held now, and from now on the peak is counted anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:  # not Linux: the peak is that of the whole life
        return _of_whole_life()


def _peak() -> int:
    # Of this program alone: what getrusage gives includes the process that started it.
    return _status("VmHWM") if _STATUS.exists() else _of_whole_life()


def _status(name: str) -> int:
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * _KIB


def _of_whole_life() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


if __name__ == "__main__":
    main()
