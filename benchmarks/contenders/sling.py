"""sling from PyPI: its binary, `full-refresh` for a copy, `incremental` by key and ModifiedAt for changes."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders.base import OTHERS, Contender
from benchmarks.jobs import EngineName, Job, OwnMeasures, Work

_KIB = 1024


class Sling(Contender):
    """Its measures leave out the time of `sling --version`, so that the start of its process does not count."""

    name = "sling"
    exact = False
    drives_python = False

    def cannot(self, engine: EngineName, workload: str) -> str | None:
        if engine == "cosmos":
            return "does not know Cosmos DB"
        if _program() is None:
            return f"not installed: `make bench` does, where PyPI has it for {platform.system()} {platform.machine()}"
        if workload == "deleted":
            return "its option delete_missing needs a paid token"
        return None

    def prepare(self, job: Job) -> Work:
        place = job.place
        home = Path(place.folder) / "sling"
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "HOME": str(home),
            "SLING_HOME_DIR": str(home),
            "SLING_DISABLE_TELEMETRY": "true",
            "SOURCE": _url(place.source, place.engine),
            "TARGET": _url(place.backup, place.engine),
        }
        program = str(_program())
        command = [program, "run", *_arguments(job)]
        # Subtracts the quickest start: on a busy machine a slow start may take longer than the work itself.
        start = min((_run([program, "--version"], environment) for _ in range(4)), key=lambda ran: ran.seconds)

        def work() -> OwnMeasures:
            ran = _run(command, environment)
            return OwnMeasures(
                seconds=max(0.0, ran.seconds - start.seconds),
                cpu_seconds=max(0.0, ran.cpu_seconds - start.cpu_seconds),
                idle_bytes=start.peak_bytes,
                peak_bytes=ran.peak_bytes,
            )

        return work


def _arguments(job: Job) -> list[str]:
    place = job.place
    options: dict[str, object] = {"table_keys": {"primary": ["Id"]}}
    if place.engine == "sqlite":
        # Its bulk path for SQLite, a CSV file and the sqlite3 program, writes empty texts for NULLs.
        options["use_bulk"] = False
    changes = (
        ["--mode", "incremental", "--update-key", "ModifiedAt"] if job.task == "sync" else ["--mode", "full-refresh"]
    )
    return [
        *("--src-conn", "SOURCE", "--src-stream", _table(place.source_table)),
        *("--tgt-conn", "TARGET", "--tgt-object", _table(place.backup_table)),
        *("--primary-key", "Id", "--tgt-options", json.dumps(options), *changes),
    ]


def _table(name: str) -> str:
    return name if "." in name else f"main.{name}"


def _url(text: str, engine: EngineName) -> str:
    if engine == "postgresql":
        return text.replace("postgresql+psycopg:", "postgres:") + "?sslmode=disable"
    if engine == "sqlite":
        return text.replace("sqlite:////", "sqlite:///")
    pairs = {
        name.strip().lower(): value.strip() for name, _, value in (pair.partition("=") for pair in text.split(";"))
    }
    user, password = pairs.get("user id") or pairs.get("uid"), pairs.get("password") or pairs.get("pwd")
    server = pairs["server"].removeprefix("tcp:").replace(",", ":")
    return f"sqlserver://{user}:{password}@{server}?database={pairs['database']}&TrustServerCertificate=true"


@dataclass(frozen=True)
class _Ran:
    """What a program cost."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def _run(command: list[str], environment: dict[str, str]) -> _Ran:
    """Runs the program. Raises RuntimeError with the end of its output when it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode or "execution failed" in ended.stdout:
        raise RuntimeError(" ".join(re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout).split())[-300:])
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Ran(seconds, worked, after.ru_maxrss * _KIB)


def _program() -> Path | None:
    programs = sorted(OTHERS.glob("lib/python*/site-packages/sling_*/bin/sling-*"))
    if programs and not os.access(programs[0], os.X_OK):
        programs[0].chmod(0o755)  # the package does not mark it as a program
    return programs[0] if programs else None
