"""The direction of imports: each layer knows only the layers before it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {"backup.errors", "backup.models", "backup.meant"},
    {
        *("backup.setting_names", "backup.ncrontab_fields"),
        *("backup.log", "backup.loopback", "backup.ncrontab", "backup.settings", "backup.compare", "backup.requests"),
        *("backup.interrupts", "backup.retry"),
    },
    {"backup.stores"},
    {"backup.entries", "backup.run_entries", "backup.lease", "backup.timeline", "backup.clock", "backup.scratch"},
    {"backup.keeper"},
    {
        *("backup.history", "backup.guard", "backup.pending", "backup.locks"),
        *("backup.recycle", "backup.proof", "backup.policy", "backup.checkpoint", "backup.workers", "backup.set_aside"),
    },
    {"backup.sides", "backup.tally", "backup.app_tables", "backup.ownership"},
    {"backup.condition"},
    {"backup.writing", "backup.places", "backup.open_runs"},
    {"backup.settle", "backup.deleting"},
    {"backup.sync"},
    {"backup.verify"},
    {"backup.session"},
    {"backup.recorded"},
    {"backup.overwrite"},
    {"backup.restoring"},
    {"backup.undo", "backup.restore", "backup.follow", "backup.upkeep"},
    {"backup.drill"},
    {"backup.services"},
    {"backup.registry"},
    {"backup.answers"},
    {"backup.health"},
    {"backup.api", "backup.schedule", "backup.sample", "backup.demo"},
    {"backup.terminal", "backup.streams"},
    {"backup.devhost", "function_app", "backup.__main__"},
]
DRIVERS = {"sqlite3", "pyodbc", "mssql_python_odbc", "psycopg", "azure.cosmos", "sqlalchemy", "azure.identity"}
READS_THE_ENVIRONMENT = {"backup.settings", "backup.devhost"}


def modules() -> dict[str, ast.Module]:
    """Every module of the product by its dotted name."""
    paths = [ROOT / "function_app.py", *(ROOT / "backup").rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path in paths
    }


MODULES = modules()


def imported(tree: ast.AST) -> set[str]:
    """The dotted names that a module imports, wherever it does, `from a import b` as a and as a.b."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def layer_of(name: str) -> int | None:
    """The number of a module's layer; None for a name that is no module of the product."""
    for number, layer in enumerate(LAYERS):
        if name in layer or (name.startswith("backup.stores") and "backup.stores" in layer):
            return number
    return None


def is_of(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_every_module_has_its_layer() -> None:
    assert [name for name in MODULES if name != "backup" and layer_of(name) is None] == []


def test_every_layer_names_modules_that_exist() -> None:
    assert {name for layer in LAYERS for name in layer} <= MODULES.keys()


@pytest.mark.parametrize("name", [name for name in MODULES if name != "backup"])
def test_a_module_imports_nothing_of_a_later_layer(name: str) -> None:
    own = layer_of(name)
    assert own is not None
    later = [one for one in imported(MODULES[name]) if (layer_of(one) or 0) > own]
    assert later == []


def test_no_two_modules_import_each_other() -> None:
    uses = {name: {one for one in imported(tree) if one in MODULES} for name, tree in MODULES.items()}

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        nearer = uses[start] - seen
        return goal in nearer or any(reaches(one, goal, seen | nearer) for one in nearer)

    # A package's __init__ opens what lies in it, and its modules use its names; so packages are left out.
    alone = [name for name in MODULES if name not in ("backup", "backup.stores", "backup.stores.dialects")]
    assert [name for name in alone if reaches(name, name, {"backup.stores", "backup.stores.dialects"})] == []


def test_the_functions_library_is_imported_by_the_triggers_and_the_local_host_alone() -> None:
    users = {name for name, tree in MODULES.items() if any(is_of(one, {"azure.functions"}) for one in imported(tree))}
    assert users == {"function_app", "backup.devhost"}


def test_drivers_are_imported_under_stores_alone() -> None:
    users = {name for name, tree in MODULES.items() if any(is_of(one, DRIVERS) for one in imported(tree))}
    assert [name for name in users if not name.startswith("backup.stores")] == []


@pytest.mark.parametrize("module", ["function_app", "backup.__main__", "backup.stores"])
def test_a_start_loads_no_driver(module: str) -> None:
    script = f"import sys; import {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert sorted(name for name in ran.stdout.split() if name in DRIVERS) == []


def test_an_embedded_run_loads_no_driver_of_a_server(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from backup.demo import run_demo;"
        "run_demo(pathlib.Path(sys.argv[1]), lambda title, outcomes: None); print(*sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    servers = DRIVERS - {"sqlite3", "sqlalchemy"}
    assert sorted(name for name in ran.stdout.split() if name in servers) == []


def reads_the_environment(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv") for node in ast.walk(tree)
    ) or bool(imported(tree) & {"os.environ", "os.environb", "os.getenv"})


def test_the_environment_is_read_by_the_settings_alone() -> None:
    assert {name for name, tree in MODULES.items() if reads_the_environment(tree)} == READS_THE_ENVIRONMENT
