"""The direction of imports: each package knows only the packages before it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.sources import ROOT, nodes

PACKAGES = [
    {"backup.core"},
    {"backup.config"},
    {"backup.stores"},
    {"backup.recycle_bin", "backup.mirror"},
    {"backup.runs"},
    {"backup.verbs"},
    {"backup.services"},
    {"backup.jobs"},
    {"backup.notify"},
    {"backup.dev", "backup.doctor", "backup.telemetry"},
    {"backup.entry"},
    {"function_app", "backup.__main__"},
]
"""Each knows only those of the rows before it, and itself. ARCHITECTURE.md draws the same rows."""
DRIVERS = {"sqlite3", "pyodbc", "mssql_python_odbc", "psycopg", "azure.cosmos", "sqlalchemy", "azure.identity"}
OF_SINKS = {"apprise", "kombu", "amqp", "opentelemetry"}
READS_THE_ENVIRONMENT = {"backup.config.environment", "backup.dev.host"}


@cache
def modules() -> Mapping[str, Sequence[ast.AST]]:
    """The nodes of every module of the product, by its dotted name."""
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): all_of for path, all_of in nodes().items()}


@cache
def imported(name: str) -> frozenset[str]:
    """The dotted names that a module imports, wherever it does, `from a import b` as a and as a.b."""
    names: set[str] = set()
    for node in modules()[name]:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def package_of(name: str) -> str:
    """`backup.runs` of `backup.runs.lock`; the name itself of what lies in no package."""
    return ".".join(name.split(".")[:2])


def row_of(package: str) -> int | None:
    """The number of a package's row; None for what is none of the product's."""
    return next((number for number, row in enumerate(PACKAGES) if package in row), None)


def is_of(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_every_module_lies_in_a_package_that_has_a_row() -> None:
    assert [name for name in modules() if name != "backup" and row_of(package_of(name)) is None] == []


def test_every_row_names_packages_that_exist() -> None:
    assert {package for row in PACKAGES for package in row} <= modules().keys()


def test_the_rows_are_those_that_the_architecture_draws() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    [drawn] = re.findall(r"Imports point one way.*?```\n(.*?)```", text, re.S)
    rows = [set(line.replace("←", "").split()) for line in drawn.strip().splitlines()]
    assert rows == [{package.removeprefix("backup.") for package in row} for row in PACKAGES]


def test_the_decision_on_packages_has_a_line_for_each() -> None:
    lines = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / "docs/decisions/packages.md").read_text(), re.M)
    rows = [set(re.findall(r"\w+", line)) for line in lines]
    assert rows == [{package.removeprefix("backup.") for package in row} for row in PACKAGES[:-1]]


def test_a_module_imports_its_own_package_and_those_of_earlier_rows_alone() -> None:
    refused = {}
    for name in modules().keys() - {"backup"}:
        own = package_of(name)
        row = row_of(own)
        assert row is not None, name
        packages = {package_of(module) for module in imported(name)} - {own}
        refused[name] = {package for package in packages if (other := row_of(package)) is not None and other >= row}
    assert {name: packages for name, packages in refused.items() if packages} == {}


def test_no_function_has_the_name_of_a_module_that_is_not_its_own() -> None:
    stems = {name.split(".")[-1]: name for name in modules()}
    named = {
        (node.name, name)
        for name, [module, *_] in modules().items()
        for node in ast.iter_child_nodes(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and stems.get(node.name, name) != name
    }
    assert named == set()


def test_no_two_modules_import_each_other() -> None:
    # This package's __init__ opens what lies in it, and its modules use its names.
    alone = modules().keys() - {"backup.stores.sql.engines"}
    cycle: list[str] = []
    try:
        TopologicalSorter({name: imported(name) & alone for name in alone}).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert cycle == []


def test_the_functions_library_is_imported_by_the_triggers_and_the_local_host_alone() -> None:
    users = {name for name in modules() if any(is_of(module, {"azure.functions"}) for module in imported(name))}
    assert users == {"function_app", "backup.dev.host"}


def test_drivers_are_imported_under_stores_alone() -> None:
    users = {name for name in modules() if any(is_of(module, DRIVERS) for module in imported(name))}
    # The records are not in a store: they must be there when no store is.
    records = {"backup.jobs.sqlite_key_values", "backup.jobs.jobs_file"}
    assert [name for name in users - records if not name.startswith("backup.stores")] == []


STARTS = ("function_app", "backup.stores", "backup.entry.functions", "backup.entry.command_line.app", "cosmos")


@cache
def loaded() -> Mapping[str, set[str]]:
    """What a new process has loaded after each of the starts. One process has them all, one after the other: what none
    of them loads is loaded by none of them alone."""
    script = (
        "import importlib, sys\n"
        f"for start in {STARTS!r}:\n"
        "    if start == 'cosmos':\n"
        "        from backup.stores.connection import parse_connection\n"
        "        import backup.stores.cosmos.store\n"
        "        parse_connection('AccountEndpoint=https://a.documents.azure.com/', 'X')\n"
        "    else:\n"
        "        importlib.import_module(start)\n"
        "    print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return {start: set(line.split()) for start, line in zip(STARTS, ran.stdout.splitlines(), strict=True)}


def test_a_cold_app_is_seen_by_the_host_before_it_loads_what_calls_need() -> None:
    own = {name for name in loaded()["function_app"] if name.startswith("backup.")}
    assert own == {
        *("backup.config", "backup.config.bindings", "backup.config.environment"),
        *("backup.core", "backup.core.errors", "backup.core.interrupts", "backup.core.log"),
    }
    assert "pydantic" not in loaded()["function_app"]


@pytest.mark.parametrize("module", ["backup.entry.functions", "backup.entry.command_line.app", "backup.stores"])
def test_a_start_loads_no_driver(module: str) -> None:
    assert module in loaded()[module]
    assert sorted(loaded()[module] & (DRIVERS | OF_SINKS)) == []


def test_what_works_on_cosmos_db_alone_does_without_sqlalchemy() -> None:
    # Its import takes longer than a sync of a small container.
    assert "azure.cosmos" in loaded()["cosmos"]
    assert "sqlalchemy" not in loaded()["cosmos"]


def test_an_embedded_run_loads_no_driver_of_a_server(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from backup.dev.demo import run_demo;"
        "run_demo(pathlib.Path(sys.argv[1]), lambda title, outcomes: None); print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    servers = DRIVERS - {"sqlite3", "sqlalchemy"}
    assert sorted(name for name in ran.stdout.split() if name in servers) == []


def reads_the_environment(name: str) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv") for node in modules()[name]
    ) or bool(imported(name) & {"os.environ", "os.environb", "os.getenv"})


def test_the_environment_is_read_by_the_settings_alone() -> None:
    assert {name for name in modules() if reads_the_environment(name)} == READS_THE_ENVIRONMENT
