"""The locked requirements: what pyproject.toml asks for, for every Python and system, and all that the code imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.sources import ROOT, nodes

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ADDED = ("brokers", "people", "postgresql", "telemetry")
GROUPS: dict[str, list[str | dict[str, str]]] = PYPROJECT["dependency-groups"]
APP = ROOT / "requirements.txt"
FILES = [APP, *sorted((ROOT / "requirements").glob("*.txt"))]
SYSTEMS = [
    *(("linux", "Linux", machine) for machine in ("x86_64", "aarch64")),
    *(("darwin", "Darwin", machine) for machine in ("x86_64", "arm64")),
    ("win32", "Windows", "AMD64"),
]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PIN = re.compile(r"(\S+==\S+(?: ; [^\\]+)?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")


class Pin(NamedTuple):
    """A version that a file asks for, where its marker says so, and the hashes of its files."""

    requirement: Requirement
    hashes: frozenset[str]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        [only] = self.requirement.specifier
        return only.version


def pins_of(path: Path) -> list[Pin]:
    pins = PIN.findall(path.read_text())
    return [Pin(Requirement(text), frozenset(re.findall(r"[0-9a-f]{64}", hashes))) for text, hashes in pins]


PINS = {path: pins_of(path) for path in FILES}


def declared(group: str | None = None) -> list[Requirement]:
    """What the app needs, or a group with those that it includes."""
    if group is None:
        return list(map(Requirement, PYPROJECT["project"]["dependencies"]))
    own = [Requirement(entry) for entry in GROUPS[group] if isinstance(entry, str)]
    included = [entry["include-group"] for entry in GROUPS[group] if isinstance(entry, dict)]
    return [*own, *(requirement for name in included for requirement in declared(name))]


def applies(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


def environments() -> Iterator[dict[str, str]]:
    for python in PYTHONS:
        for system, name, machine in SYSTEMS:
            yield {
                **default_environment(),  # type: ignore[dict-item]
                "python_version": python,
                "python_full_version": f"{python}.1",
                "sys_platform": system,
                "platform_system": name,
                "platform_machine": machine,
                "extra": "",
            }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_locked_file_says_nothing_but_versions_and_hashes(path: Path) -> None:
    rest = PIN.sub("", path.read_text())
    lines = [line for line in rest.splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"-r requirements/\w+\.txt", line)] == []
    assert "://" not in rest
    assert str(Path.home()) not in rest


def test_every_group_is_locked_in_a_file_of_its_own() -> None:
    assert {path.stem for path in FILES if path != APP} == GROUPS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_python_and_system_gets_one_version_of_what_is_asked_for(path: Path) -> None:
    asked = declared(None if path == APP else path.stem)
    for environment in environments():
        versions_of: dict[str, list[str]] = {}
        for pin in PINS[path]:
            if applies(pin.requirement, environment):
                versions_of.setdefault(pin.name, []).append(pin.version)
        assert {name: versions for name, versions in versions_of.items() if len(versions) > 1} == {}
        for requirement in asked:
            if applies(requirement, environment):
                [version] = versions_of[canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(version, prereleases=True), (requirement, version)


def test_files_that_are_installed_together_agree() -> None:
    apps = {(pin.name, pin.version): pin.hashes for pin in PINS[APP]}
    names = {name for name, _ in apps}
    for path in FILES:
        if path.stem in (*ADDED, "tests"):
            shared = [pin for pin in PINS[path] if pin.name in names]
            assert [pin for pin in shared if apps.get((pin.name, pin.version)) != pin.hashes] == []


def test_whatever_a_locked_package_asks_for_is_locked_too() -> None:
    """As the packages that are installed here say, where they are the locked ones."""
    here = {**default_environment(), "extra": ""}
    together = PINS[APP] + PINS[ROOT / "requirements" / "tests.txt"]
    locked = {pin.name: pin for pin in together if applies(pin.requirement, here)}  # type: ignore[arg-type]
    missing = []
    for name, pin in locked.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, installed.requires or ()):
            needed = installed.version == pin.version and applies(requirement, here)  # type: ignore[arg-type]
            other = locked.get(canonicalize_name(requirement.name))
            if needed and not (other and requirement.specifier.contains(other.version, prereleases=True)):
                missing.append((name, str(requirement)))
    assert missing == []


def owners() -> dict[str, str]:
    """The distribution that each installed module comes from, by its dotted name."""
    owner_of: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])  # which is read anew each time
        for file in distribution.files or ():
            parts = file.parts[:-1] if file.name == "__init__.py" else (*file.parts[:-1], file.name.partition(".")[0])
            if file.suffix in (".py", ".so", ".pyd") and len(parts) <= 4:
                owner_of[".".join(parts)] = name
    return owner_of


def all_nodes(path: Path) -> Iterable[ast.AST]:
    return nodes().get(path.relative_to(ROOT)) or ast.walk(ast.parse(path.read_text()))


def imported(paths: Iterator[Path]) -> set[str]:
    """The absolute names that the modules import, of others than this project and the standard library."""
    names: set[str] = set()
    for node in (node for path in paths for node in all_nodes(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {"backup", "tests", "benchmarks", "docs", "function_app"} | sys.stdlib_module_names
    return {name for name in names if name.partition(".")[0] not in ours}


def test_whatever_is_imported_is_declared() -> None:
    owner = owners()

    def undeclared(folders: list[str], allowed: list[Requirement]) -> set[str]:
        names = {canonicalize_name(requirement.name) for requirement in allowed}
        paths = (path for folder in folders for path in sorted(ROOT.glob(f"{folder}.py")))
        wrong = set()
        for name in imported(paths):
            parts = name.split(".")
            starts = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
            distribution = next((owner[start] for start in starts if start in owner), None)
            if distribution not in names:
                wrong.add(name)
        return wrong

    # What a deployment adds when it needs it; SQLAlchemy imports psycopg by its name.
    added = [requirement for group in ADDED for requirement in declared(group)]
    assert undeclared(["function_app", "backup/**/*"], [*declared(), *added]) == set()
    assert undeclared(["tests/*", "tests/*/*"], [*declared(), *declared("tests"), *declared("worker")]) == set()
