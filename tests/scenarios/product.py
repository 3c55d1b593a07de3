"""The product as its users start it: the command line as a process, the triggers in the real Functions worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.functions.worker import Worker
from tests.programs import ROOT, Program

__all__ = ["DEADLINE_SECONDS", "ROOT", "Counts", "Ended", "cli", "counts", "environment", "post", "python", "start"]

DEADLINE_SECONDS = 60

Counts = tuple[int, int, int, int]
"""Inserted, updated, deleted, skipped."""


@dataclass(frozen=True)
class Ended:
    """A process that ran to its end."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON value and nothing else."""
        return dict(json.loads(self.out))


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with `settings` instead of its own settings of the app. Unless `settings` say
    otherwise, retries do not wait and lines do not break."""
    left_out = ("AzureWebJobs", "SERVE_", "COLUMNS")
    inherited = {k: v for k, v in os.environ.items() if "__" not in k and not k.startswith(left_out)}
    return {**inherited, "PYTHONPATH": str(ROOT), "BackupRetry__BaseSeconds": "0", **settings}


def start(folder: Path, settings: Mapping[str, str], *arguments: str, **streams: Any) -> Program:
    """Starts Python with these arguments in `folder`, so that no local.settings.json of a developer is read."""
    piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return Program(arguments, folder, environment(settings), **piped | streams)


def start_anew(folder: Path, settings: Mapping[str, str], *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    """Starts a Python that has imported nothing yet. Slower than `start`; for tests of the imports and of the start."""
    piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment(settings), text=True, **piped | streams
    )


def python(folder: Path, settings: Mapping[str, str], *arguments: str, anew: bool = False) -> Ended:
    """Runs Python with these arguments to its end."""
    with (start_anew if anew else start)(folder, settings, *arguments) as process:
        try:
            out, err = process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()
        return Ended(process.wait(), out, err)


def cli(folder: Path, settings: Mapping[str, str], *arguments: str, anew: bool = False) -> Ended:
    """Runs `python -m backup …` to its end."""
    return python(folder, settings, "-m", "backup", *arguments, anew=anew)


def post(running: Worker, name: str, body: Any = None, query: str = "", **route: str) -> tuple[int, dict[str, Any]]:
    """Calls an HTTP function in the worker; returns status and body. `route` has the parameters of the address."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    method = "GET" if name == "HealthCheck" else "POST"
    answer = running.http(name, method, f"http://localhost/api/x{query}", content, route=route)
    assert "failed" not in answer, answer["failed"]
    return answer["status"], json.loads(answer["body"])


def counts(results: Iterable[Mapping[str, Any]]) -> dict[str, Counts]:
    """The counts of each service in an answer's Results."""
    return {
        run["ServiceName"]: (run["InsertedCount"], run["UpdatedCount"], run["DeletedCount"], run["SkippedCount"])
        for run in results
    }
