"""The sample of `make mutants` is fixed, has every module, and each of its mutants is another program. It judges a
mutant only by tests that pass without it."""

import ast
import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from coverage import CoverageData

from tests import mutants, tests_of_lines
from tests.mutants import NO_TEST, ROOT, Mutant, Trial, all_mutants, named, sample
from tests.tests_of_lines import BrokenCopy

ADDED = Mutant("added.py", "", 4, 9, range(1, 2), "1 + 1", "(1 - 1)")
NAMES = ["tests/test_a.py::test_one", "tests/test_a.py::test_two"]


def test_the_sample_is_fixed_by_its_seed_and_has_a_mutant_of_every_module_that_has_any() -> None:
    of_modules = all_mutants()
    chosen = sample(0, 80, of_modules)
    assert len(chosen) == len({mutant.name for mutant in chosen}) == 80
    assert {mutant.path for mutant in chosen} == {mutants[0].path for mutants in of_modules if mutants}
    assert sample(0, 80, [mutants[::-1] for mutants in of_modules[::-1]]) == chosen
    assert sample(1, 80, of_modules) != chosen
    for mutant in chosen[::8]:
        source = (ROOT / mutant.path).read_bytes()
        assert ast.unparse(ast.parse(mutant.apply(source))) != ast.unparse(ast.parse(source)), mutant.name


def test_each_mutant_that_is_named_with_a_reason_exists() -> None:
    assert named().keys() <= {mutant.name for mutants in all_mutants() for mutant in mutants}


@pytest.mark.parametrize(
    ("with_it", "without_it", "asked", "judged"),
    [
        ("", None, None, ""),
        (NAMES[1], "", NAMES[1:], NAMES[1]),
        (NAMES[1], NAMES[1], NAMES[1:], BrokenCopy),
        (NAMES[1], None, NAMES[1:], None),
        (NO_TEST, "", NAMES, NO_TEST),
        (NO_TEST, NO_TEST, NAMES, BrokenCopy),
        (None, "", NAMES, "tests that do not end"),
        (None, None, NAMES, None),
    ],
)
def test_a_mutant_is_judged_by_what_its_tests_do_with_it_and_without(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_it: str | None,
    without_it: str | None,
    asked: list[str] | None,
    judged: str | type[Exception] | None,
) -> None:
    file = tmp_path / ADDED.path
    file.write_text("n = 1 + 1")
    runs = list[tuple[str, list[str]]]()
    limits = list[float]()

    def first_failure(folder: Path, names: Sequence[str], seconds: float) -> str | None:
        runs.append((file.read_text(), [*names]))
        limits.append(seconds)
        return with_it if len(runs) == 1 else without_it

    monkeypatch.setattr(mutants, "first_failure", first_failure)
    lines = CoverageData(no_disk=True)
    lines.set_context(NAMES[0])
    lines.add_lines({str(tmp_path / ADDED.path): [1]})
    lines.set_context(NAMES[1])
    lines.add_lines({str(tmp_path / ADDED.path): [1]})
    known, trial = tests_of_lines.TestsOfLines(tmp_path, dict.fromkeys(NAMES, 1.0), lines), Trial([tmp_path])
    if judged is BrokenCopy:
        with pytest.raises(BrokenCopy, match="fails without any mutant"):
            trial.outcome(ADDED, known)
    else:
        assert trial.outcome(ADDED, known) == judged
    assert runs == [("n = (1 - 1)", NAMES), *([("n = 1 + 1", asked)] if asked else [])]
    if with_it is None:  # it is slower by far than the tests are without it
        assert limits == [36, 12]
    assert trial._copies.get_nowait() == tmp_path


def run_with_failures(monkeypatch: pytest.MonkeyPatch, alone: int) -> list[list[str]]:
    """Has the first of NAMES fail among all tests; alone, it ends as said. Returns the tests of each later run."""
    runs = list[list[str]]()

    def run(command: list[str], env: dict[str, str] | None = None, **_: object) -> subprocess.CompletedProcess[bytes]:
        if "combine" in command:
            return subprocess.CompletedProcess(command, 0)
        if "tests.tests_of_lines" not in command:
            runs.append([part for part in command if part in NAMES])
            return subprocess.CompletedProcess(command, alone)
        assert env is not None
        Path(env["TESTS_OF_LINES"]).write_text(json.dumps({NAMES[0]: math.inf, NAMES[1]: 1.0}))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    return runs


def test_nothing_is_judged_where_tests_fail_in_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = run_with_failures(monkeypatch, alone=1)
    for _ in range(2):  # what the first left in the folder is nothing to go by
        with pytest.raises(BrokenCopy):
            tests_of_lines.TestsOfLines.learned(tmp_path, tmp_path / "lines")
    assert runs == [NAMES[:1]] * 2


def test_a_test_that_fails_only_among_others_judges_no_mutant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = run_with_failures(monkeypatch, alone=0)
    assert tests_of_lines.TestsOfLines.learned(tmp_path, tmp_path / "lines").seconds == {NAMES[1]: 1.0}
    assert runs[0] == NAMES[:1]


def test_what_a_module_says_at_its_import_is_for_the_tests_that_import_it() -> None:
    path = "backup/runs/history_entries.py"
    lines = CoverageData(no_disk=True)
    lines.set_context("")
    lines.add_lines({str(ROOT / path): [85]})
    names = [
        "tests/unit/test_history_entries.py::test_answers_have_these_values_of_a_run",
        "tests/unit/test_log.py::test",
    ]
    known = tests_of_lines.TestsOfLines(ROOT, dict.fromkeys(names, 1.0), lines)
    assert known.of(path, range(85, 86)) == names[:1]
    assert known.of(path, range(86, 87)) == []


def test_unit_tests_and_those_whose_file_imports_the_module_come_first_the_cheapest_of_each_file_before_others() -> (
    None
):
    path, unit, contract = "backup/mirror/guard.py", "tests/unit/test_guard.py", "tests/contract/test_set_aside.py"
    imports, others = "tests/contract/test_store.py", "tests/scenarios/test_rest.py"
    seconds = {f"{unit}::a": 3.0, f"{unit}::b": 2.0, f"{imports}::c": 1.0, f"{contract}::d": 0.5, f"{others}::e": 0.1}
    lines = CoverageData(no_disk=True)
    for name in seconds:
        lines.set_context(name)
        lines.add_lines({str(ROOT / path): [85]})
    known = tests_of_lines.TestsOfLines(ROOT, {**seconds, f"{others}::f": 0.1}, lines)
    assert [name[-1] for name in known.of(path, range(85, 86))] == ["c", "b", "a", "e", "d"]
