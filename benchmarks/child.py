"""One turn in its own process: `python -m benchmarks.child` reads a Job from standard input and prints a Measured.

It imports modules and tries connections before the clock starts, so the clock measures only the work.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from pathlib import Path

from benchmarks import counting
from benchmarks.contenders import CONTENDERS
from benchmarks.jobs import Job, Measured, OwnMeasures, Reads

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
    own = work() or OwnMeasures()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    measured = Measured(
        seconds=seconds if own.seconds is None else own.seconds,
        cpu_seconds=cpu_seconds if own.cpu_seconds is None else own.cpu_seconds,
        idle_bytes=idle if own.idle_bytes is None else own.idle_bytes,
        peak_bytes=_peak() if own.peak_bytes is None else own.peak_bytes,
        records=own.records,
        reads=counts.reads() if counts is not None else Reads(),
    )
    print(measured.to_json(), flush=True)


def _memory_from_here() -> int:
    """Returns the bytes in memory now, and resets the peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:  # not Linux: the peak covers the whole life of the process
        return _of_whole_life()


def _peak() -> int:
    # getrusage would include the process that started this one.
    return _status("VmHWM") if _STATUS.exists() else _of_whole_life()


def _status(name: str) -> int:
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * _KIB


def _of_whole_life() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


if __name__ == "__main__":
    main()
