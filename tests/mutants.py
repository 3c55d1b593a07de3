"""`make mutants`: breaks the app in small ways, one at a time, and prints which of them no test notices.

The sample is fixed by its seed: of every module the mutant with the lowest hash, then those with the lowest of all. A
change elsewhere in the code leaves it alone. First all tests that need no server but Azurite run once in a copy of the
project, to learn which of them run which line. A mutant is tried in a copy too, by the tests that run its lines: unit
tests first, the cheapest of each file first, for a minute at most. A mutant that does not end counts as noticed only if
the same tests end without it in a third of the time.

What survives for a reason stands in `tests/mutants.txt`, with it: `path function: before → after | reason`. Ends with 1
where a mutant survives that is not named there, or where time was up; with 2, and judges nothing more, where tests fail
in a copy without any mutant.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from tests.tests_of_lines import BrokenCopy, TestsOfLines

ROOT = Path(__file__).parent.parent
PACKAGES = ("mirror", "recycle_bin", "runs")
NAMED = Path(__file__).with_suffix(".txt")
SERVERS = "tests/emulators/node_modules"
STAGES_SECONDS = (10, 50)  # how long tests may try a mutant: first the cheapest, then the others
NO_TEST = "what pytest does before the tests"  # it fails where an import fails, or a test's name is unknown
START_SECONDS = 30  # how long pytest may take to start; on an idle machine it takes a tenth
SLOWED_AT_LEAST = (
    3  # tests that take so many times longer have a mutant that does not end: the machine's speed varies less
)
LAST_SECONDS = 300  # before the end no mutant begins: one that hangs takes as long
SWAPPED: dict[type[ast.AST], Any] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult},
}


@dataclass(frozen=True)
class Mutant:
    """One small change of one file: `after` stands for what is between two offsets. Lines count from 1."""

    path: str
    function: str
    start: int
    end: int
    lines: range
    before: str
    after: str
    ordinal: int = 1  # among those of the function that say the same

    @property
    def name(self) -> str:
        change = f"{' '.join(self.before.split())} → {' '.join(self.after.split())}"
        return f"{self.path} {self.function}: {change}" + (f" ({self.ordinal})" if self.ordinal > 1 else "")

    def rank(self, seed: int) -> str:
        return hashlib.sha256(f"{seed} {self.name}".encode()).hexdigest()

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


@cache
def all_mutants() -> list[list[Mutant]]:
    """Those of each module."""
    files = [file for package in PACKAGES for file in sorted((ROOT / "backup" / package).rglob("*.py"))]
    return [list(mutants_of(file)) for file in files]


def sample(seed: int, number: int, of_modules: Sequence[Sequence[Mutant]]) -> list[Mutant]:
    """That many of the mutants, at least one of every module that has any, by module."""
    of_modules = [sorted(mutants, key=lambda mutant: mutant.rank(seed)) for mutants in of_modules]
    first = [mutants[0] for mutants in of_modules if mutants]
    others = sorted((mutant for mutants in of_modules for mutant in mutants[1:]), key=lambda mutant: mutant.rank(seed))
    chosen = first + others[: max(0, number - len(first))]
    return sorted(chosen, key=lambda mutant: (mutant.path, mutant.start))


def named() -> dict[str, str]:
    """The reasons of the mutants that survive for one, by their names."""
    return dict(line.split(" | ", 1) for line in NAMED.read_text().splitlines())


def mutants_of(path: Path) -> Iterator[Mutant]:
    """All that this script knows to do to the file. Annotations, messages and log lines are left alone."""
    source = path.read_bytes()
    counts = Counter[str]()
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))

    def visit(node: ast.AST, function: str) -> Iterator[Mutant]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        for after in changed(node, function):
            assert isinstance(node, ast.expr | ast.stmt)
            start = offsets[node.lineno - 1] + node.col_offset
            end = offsets[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            mutant = Mutant(str(path.relative_to(ROOT)), function, start, end, lines, source[start:end].decode(), after)
            counts[mutant.name] += 1
            yield replace(mutant, ordinal=counts[mutant.name])
        for field, child in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise | ast.JoinedStr):
                continue
            for part in child if isinstance(child, list) else [child]:
                if isinstance(part, ast.AST) and not _says(part):
                    yield from visit(part, function)

    yield from visit(ast.parse(source), "")


def _says(node: ast.AST) -> bool:
    """Whether it only tells somebody something."""
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Constant) or (isinstance(call, ast.Call) and ast.unparse(call.func) == "event")


def changed(node: ast.AST, function: str) -> Iterator[str]:
    """What may stand instead of the node. Numbers outside functions are sizes, chosen by measurements."""
    match node:
        case ast.Compare(left, [operator, *others], comparators) if type(operator) in SWAPPED:
            yield f"({ast.unparse(ast.Compare(left, [SWAPPED[type(operator)](), *others], comparators))})"
        case ast.BoolOp(operator, values):
            yield f"({ast.unparse(ast.BoolOp(SWAPPED[type(operator)](), values))})"
        case ast.BinOp(left, operator, right) if function and type(operator) in SWAPPED:
            yield f"({ast.unparse(ast.BinOp(left, SWAPPED[type(operator)](), right))})"
        case ast.UnaryOp(ast.Not(), operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield str(not value)
        case ast.Constant(int(number)) if function:
            yield str(number + 1)
        case ast.Expr(ast.Call()) | ast.Continue() | ast.Break():
            yield "pass"


class Trial:
    """Copies of the project, in each of which one mutant at a time is tried."""

    def __init__(self, copies: Sequence[Path]) -> None:
        self._copies = SimpleQueue[Path]()
        for copy in copies:
            self._copies.put(copy)

    def outcome(self, mutant: Mutant, tests: TestsOfLines) -> str | None:
        """What notices it: a test's name, or that it does not end. Empty where it survives; None on a machine that is
        too slow to tell.

        Raises: BrokenCopy where what fails fails without the mutant too; the copy is as it was.
        """
        copy = self._copies.get()
        try:
            by: str | None = ""
            for stage in tests.stages(mutant.path, mutant.lines, STAGES_SECONDS):
                if by == "":
                    by = self._noticed(copy, mutant, stage, tests)
            return by
        finally:
            self._copies.put(copy)

    def _noticed(self, copy: Path, mutant: Mutant, names: Sequence[str], tests: TestsOfLines) -> str | None:
        limit = START_SECONDS + 3 * sum(tests.seconds[name] for name in names)
        file = copy / mutant.path
        source = file.read_bytes()
        file.write_bytes(mutant.apply(source))
        try:
            failed = first_failure(copy, names, limit)
        finally:
            file.write_bytes(source)
        if failed is None:  # no end: of the mutant, or of a machine that is slow, perhaps only for a while
            if first_failure(copy, names, limit / SLOWED_AT_LEAST) == "":
                return "tests that do not end"
            print(f"{limit:g} s were too few for the tests of {mutant.name}", flush=True)
            return None
        if failed:
            without = first_failure(copy, [failed] if failed in names else names, LAST_SECONDS)
            if without is None:  # no failure: a busy machine is slow to start pytest
                print(f"{LAST_SECONDS} s were too few for {failed} without {mutant.name}", flush=True)
                return None
            if without:
                raise BrokenCopy(f"{without} fails without any mutant")
        return failed


def copied(folder: Path) -> Path:
    left_out = shutil.ignore_patterns(".git", ".venv*", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache")
    shutil.copytree(ROOT, folder, ignore=left_out)
    if (ROOT / SERVERS).is_dir():
        (folder / SERVERS).symlink_to((ROOT / SERVERS).resolve())
    # Python compares compiled files with their sources by hash from now on: by time it would miss a mutant.
    compileall.compile_dir(folder / "backup", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return folder


def first_failure(folder: Path, names: Sequence[str], seconds: float) -> str | None:
    """The first of those tests that fails there, or NO_TEST; empty if all pass, None if they do not end in time."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]
    # Into a file: a program that a test leaves behind would hold a pipe open.
    with (
        TemporaryFile("w+") as output,
        subprocess.Popen(
            command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the programs of its tests
        output.seek(0)
        lines = [line.split(" ", 1)[1] for line in output if line.startswith(("FAILED ", "ERROR "))]
    if process.returncode == 0:
        return ""
    failed = [name for name in names if any(line.startswith(name) for line in lines)]
    return max(failed, key=len, default=NO_TEST)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--number", type=int, default=80)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--minutes", type=float, default=30)
    asked.add_argument("--at-once", type=int, default=2)
    asked.add_argument("--under", choices=PACKAGES, action="append", help="try only those of the sample that lie there")
    asked.add_argument("--lines", type=Path, help="folder that keeps which test runs which line, for the next time")
    given = asked.parse_args()
    end = time.monotonic() + given.minutes * 60
    under = tuple(f"backup/{package}/" for package in given.under or PACKAGES)
    mutants = [mutant for mutant in sample(given.seed, given.number, all_mutants()) if mutant.path.startswith(under)]
    reasons = named()
    survived, tried = list[Mutant](), 0
    with TemporaryDirectory() as temporary, ThreadPoolExecutor(given.at_once) as threads:
        copies = [copied(Path(temporary, f"project-{number}")) for number in range(given.at_once)]
        tests = TestsOfLines.learned(copies[0], given.lines or Path(temporary, "lines"))
        trial = Trial(copies)

        def outcome(mutant: Mutant) -> str | None:
            return trial.outcome(mutant, tests) if time.monotonic() < end - LAST_SECONDS else None

        for mutant, by in zip(mutants, threads.map(outcome, mutants), strict=True):
            if by is None:
                continue
            tried += 1
            survived += [mutant] * (not by)
            print(f"noticed  {mutant.name} by {by}" if by else f"survived {mutant.name}", flush=True)
    print(f"Seed {given.seed}: {tried} of {len(mutants)} mutants tried, {len(survived)} survived.")
    for mutant in survived:
        print(f"{mutant.name} | {reasons.get(mutant.name, 'not named in tests/mutants.txt')}")
    return int(tried < len(mutants) or any(mutant.name not in reasons for mutant in survived))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenCopy as broken:
        print(f"Refused to judge: {broken}", file=sys.stderr)
        sys.exit(2)
