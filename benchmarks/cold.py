"""Cold start: what `import function_app` takes, and which database drivers it loads."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.jobs import ROOT

DRIVERS = ("sqlite3", "pyodbc", "psycopg", "azure.cosmos", "sqlalchemy")
_TIMES = 5


@dataclass(frozen=True)
class ColdStart:
    """Medians; `bare_seconds` is an interpreter that does nothing, and is not in `import_seconds`."""

    import_seconds: float
    bare_seconds: float
    drivers_loaded: tuple[str, ...]


def cold_start() -> ColdStart:
    """Measured in processes of their own, alternately."""
    bare, whole = [], []
    _seconds("import function_app")  # compiles what was never imported
    for _ in range(_TIMES):
        bare.append(_seconds("pass"))
        whole.append(_seconds("import function_app"))
    script = "import sys, function_app; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    return ColdStart(median(whole) - median(bare), median(bare), tuple(name for name in DRIVERS if name in loaded))


def _seconds(script: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
