"""`make mutants`: breaks the app in small ways, one at a time, and prints which of them no test notices.

The sample is fixed: those mutants whose names have the lowest hashes. A change elsewhere in the code leaves it alone.
Each is tried in a copy of the project, by the tests that need nothing but SQLite. What survives for a reason stands in
`tests/mutants.txt`, with it: `path function: before → after | reason`. ARGS="--number 20 --under runs" tries less.
Ends with 1 where a mutant survives that is not named there.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = ("mirror", "recycle_bin", "runs")
NAMED = Path(__file__).with_suffix(".txt")
SECONDS_AT_MOST = 600  # what hangs is noticed
TESTS = [
    *("-x", "-q", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider"),
    *("-k", "not cosmos and not postgres and not mssql and not azurite"),
    *("tests/unit", "tests/contract", "tests/scenarios", "tests/reliability"),
    *(f"--ignore=tests/{file}.py" for file in ("unit/test_mixing", "scenarios/test_memory", "scenarios/test_bench")),
]
SWAPPED: dict[type[ast.AST], Any] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult},
}


@dataclass(frozen=True)
class Mutant:
    """One small change of one file: `after` stands for what is between two offsets."""

    path: str
    function: str
    start: int
    end: int
    before: str
    after: str

    @property
    def name(self) -> str:
        return f"{self.path} {self.function}: {' '.join(self.before.split())} → {' '.join(self.after.split())}"

    @property
    def rank(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants_of(path: Path) -> Iterator[Mutant]:
    """All that this script knows to do to the file. Annotations, messages and log lines are left alone."""
    source = path.read_bytes()
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
            yield Mutant(str(path.relative_to(ROOT)), function, start, end, source[start:end].decode(), after)
        for field, child in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise | ast.JoinedStr):
                continue
            for one in child if isinstance(child, list) else [child]:
                if isinstance(one, ast.AST) and not _says(one):
                    yield from visit(one, function)

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
        case ast.BinOp(left, operator, right) if type(operator) in SWAPPED:
            yield f"({ast.unparse(ast.BinOp(left, SWAPPED[type(operator)](), right))})"
        case ast.UnaryOp(ast.Not(), operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield str(not value)
        case ast.Constant(int(number)) if function:
            yield str(number + 1)
        case ast.Expr(ast.Call()) | ast.Continue() | ast.Break():
            yield "pass"


def noticed(folder: Path, mutant: Mutant | None) -> bool:
    """Whether a test fails, or hangs, in the copy of the project with that change."""
    file = folder / mutant.path if mutant else None
    source = file.read_bytes() if file else b""
    if mutant and file:
        file.write_bytes(mutant.apply(source))
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", *TESTS]
    try:
        process = subprocess.run(
            command, cwd=folder, env=env, timeout=SECONDS_AT_MOST, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        if file:
            file.write_bytes(source)
    if process.returncode and mutant is None:
        print(process.stdout[-3000:])
    return process.returncode != 0


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--number", type=int, default=40)
    asked.add_argument("--minutes", type=float, default=30)
    asked.add_argument("--under", choices=PACKAGES, action="append")
    given = asked.parse_args()
    files = [file for name in given.under or PACKAGES for file in (ROOT / "backup" / name).rglob("*.py")]
    sample = sorted((one for file in files for one in mutants_of(file)), key=lambda one: one.rank)[: given.number]
    reasons = dict(line.split(" | ", 1) for line in NAMED.read_text().splitlines() if " | " in line)
    survived, tried, end = list[Mutant](), 0, time.monotonic() + given.minutes * 60
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "project")
        left_out = shutil.ignore_patterns(".git", ".venv*", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache")
        shutil.copytree(ROOT, folder, ignore=left_out)
        if noticed(folder, None):
            print("The tests fail without any mutant.")
            return 1
        for tried, mutant in enumerate(sample, 1):
            if time.monotonic() > end:
                tried -= 1
                break
            alive = not noticed(folder, mutant)
            survived += [mutant] * alive
            print("survived" if alive else "noticed ", mutant.name, flush=True)
    print(f"{len(survived)} of {tried} survived.")
    for mutant in survived:
        print(f"{mutant.name} | {reasons.get(mutant.name, 'not named in tests/mutants.txt')}")
    return int(any(mutant.name not in reasons for mutant in survived))


if __name__ == "__main__":
    sys.exit(main())
