"""Which test runs which line, and how long each test takes: for `make mutants`.

Coverage measures the lines. As a plugin of pytest this module tells it which test runs at the moment. Tests that need a
server other than Azurite are left out, and so are long ones.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Self

import pytest
from coverage import Coverage, CoverageData

ROOT = Path(__file__).parent.parent
TESTS = [
    *("tests/unit", "tests/contract", "tests/scenarios"),
    *("tests/reliability/test_mass_delete.py", "tests/reliability/test_machine.py"),
    *(f"--ignore=tests/{file}.py" for file in ("unit/test_mixing", "scenarios/test_memory", "scenarios/test_bench")),
]
ALONE = ["-q", "-p", "no:cacheprovider"]
OPTIONS = [*ALONE, "-n", "2", "--dist", "worksteal"]
MEASURE = """
[run]
source = backup
parallel = true
core = ctrace
patch =
  subprocess
  fork
  _exit
"""
LEFT_OUT = frozenset({"postgres", "cosmos_server", "plain_cosmos_server", "rabbit", "browser"})


class BrokenCopy(Exception):
    """Tests fail in a copy of the project that nobody has broken, so what fails there says nothing of a mutant."""


@dataclass(frozen=True)
class TestsOfLines:
    """What one run of all the tests has shown."""

    root: Path
    """Where they ran."""
    seconds: dict[str, float]
    data: CoverageData

    @classmethod
    def learned(cls, root: Path, folder: Path) -> Self:
        """From the folder, if it has that; else it runs the tests in `root`, four minutes, and puts it there.

        A test that fails judges no mutant. On a busy machine one fails that does not fail alone.

        Raises: BrokenCopy where a test fails alone too; pytest has printed which, and the folder has nothing to go by.
        """
        seconds, data, where = folder / "seconds.json", folder / "data", folder / "root"
        if not where.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "measure").write_text(MEASURE + f"data_file = {data}\n")
            here = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": ""}
            env = {**os.environ, **here, "TESTS_OF_LINES": str(seconds)}
            coverage = [sys.executable, "-m", "coverage"]
            run = ["run", f"--rcfile={folder}/measure", "-m", "pytest", "-p", "tests.tests_of_lines"]
            ended = subprocess.run([*coverage, *run, *OPTIONS, *TESTS], cwd=root, env=env, check=False).returncode
            if ended == pytest.ExitCode.TESTS_FAILED:
                failed = [name for name, taken in json.loads(seconds.read_text()).items() if taken == math.inf]
                alone = [sys.executable, "-m", "pytest", *ALONE, *failed]
                ended = subprocess.run(alone, cwd=root, env=env, check=False).returncode
            if ended:
                raise BrokenCopy("tests fail in a copy of the project without any mutant")
            subprocess.run([*coverage, "combine", "-q", f"--rcfile={folder}/measure"], cwd=root, check=True)
            where.write_text(str(root))
        known = CoverageData(str(data))
        known.read()
        passed = {name: taken for name, taken in json.loads(seconds.read_text()).items() if taken < math.inf}
        return cls(Path(where.read_text()), passed, known)

    def of(self, path: str, lines: range) -> list[str]:
        """The tests that run one of the lines. Lines that run at import have the tests that run any line of the file,
        and those whose file imports something from it.

        Two groups: first unit tests and those whose file imports something from it, then the others. Each group begins
        with the cheapest test of each file, then comes the next of each file.
        """
        by_line = self.data.contexts_by_lineno(str(self.root / path))
        names = {name for line in lines for name in by_line.get(line, ()) if name in self.seconds}
        imported = f"from {path.removesuffix('.py').replace('/', '.')} import "
        importing = {file for file in {name.split("::")[0] for name in self.seconds} if imported in _text(file)}
        if not names and any(by_line.get(line) for line in lines):
            names = {name for contexts in by_line.values() for name in contexts if name in self.seconds}
            names |= {name for name in self.seconds if name.split("::")[0] in importing}
        files = defaultdict[str, list[str]](list)
        for name in sorted(names, key=lambda name: (self.seconds[name], name)):
            files[name.split("::")[0]].append(name)
        first = {file for file in files if file in importing or file.startswith("tests/unit/")}
        in_turn = ([files[file] for file in files if (file in first) is is_first] for is_first in (True, False))
        return [name for tests in in_turn for name in chain(*zip_longest(*tests)) if name]

    def stages(self, path: str, lines: range, seconds: Sequence[float]) -> list[list[str]]:
        """Of those tests, what takes so many seconds, then what takes so many seconds of the others …"""
        names = iter(self.of(path, lines))
        return [stage for limit in seconds if (stage := self._within(names, limit))]

    def _within(self, names: Iterator[str], seconds: float) -> list[str]:
        taken = list[str]()
        for name in names:
            taken.append(name)
            seconds -= self.seconds[name]
            if seconds <= 0:
                break
        return taken


@cache
def _text(file: str) -> str:
    path = ROOT / file
    return path.read_text() if path.is_file() else ""  # removed since its lines were learned


_seconds: defaultdict[str, float] = defaultdict(float)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if _needs_a_server(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not _needs_a_server(item)]


def _needs_a_server(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", [])
    return not LEFT_OUT.isdisjoint(names) or any(word in item.name for word in ("cosmos", "postgres", "mssql"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """With its fixtures: what only the first test of a file prepares counts for that test."""
    if coverage := Coverage.current():
        coverage.switch_context(item.nodeid)
    yield
    if coverage:
        coverage.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not report.skipped:
        _seconds[report.nodeid] += math.inf if report.failed else report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # pytest-xdist's own process hears of all tests
        Path(os.environ["TESTS_OF_LINES"]).write_text(json.dumps(_seconds))
