"""What `func azure functionapp publish` sends: the app, its packages under `--no-build`, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pathspec import GitIgnoreSpec

ROOT = Path(__file__).parent.parent.parent
LINES = (ROOT / ".funcignore").read_text().splitlines()
PACKAGES = ".python_packages/lib/site-packages"

Sent = Callable[[str], bool]


def as_git_has_it(path: str) -> bool:
    """Whether git's rules, which are the documented ones, let it through."""
    return not GitIgnoreSpec.from_lines(LINES).match_file(path)


def as_core_tools_have_it(path: str) -> bool:
    """Whether Core Tools let it through: lines are beginnings of paths, and what a `!` names is sent whatever else."""

    def begins(lines: list[str]) -> bool:
        patterns = [re.escape(line.removeprefix("/")) for line in lines]
        return any(re.match(pattern.replace(r"\*\*", "(.+)").replace(r"\*", "([^/]+)"), path) for pattern in patterns)

    rules = [line.strip() for line in LINES if line.strip() and not line.startswith("#")]
    return begins([line[1:] for line in rules if line.startswith("!")]) or not begins(
        [line for line in rules if not line.startswith("!")]
    )


@pytest.fixture(params=[as_git_has_it, as_core_tools_have_it])
def sent(request: pytest.FixtureRequest) -> Sent:
    chosen: Sent = request.param
    return chosen


def test_the_app_and_its_packages_are_sent(sent: Sent) -> None:
    paths = [
        *("function_app.py", "host.json", "requirements.txt", "requirements/postgresql.txt"),
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "backup").rglob("*.py"))),
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "backup/entry/dashboard").rglob("*.*"))),
        *(f"{PACKAGES}/{name}" for name in ("azure/core/__init__.py", "rich/tests/x.py", "x/data/y.json", "six.py")),
        *(f"{PACKAGES}/{name}" for name in ("x/LICENSE", "x/docs/y.py", "x.libs/y.so", "x/env/y.py", "README.md")),
    ]
    assert [path for path in paths if not sent(path)] == []


def test_what_is_no_part_of_the_app_is_not_sent(sent: Sent) -> None:
    paths = [
        *(f"{folder}/lib/python3.12/site-packages/x.py" for folder in ("venv", ".venv", ".venv-bench", "env")),
        *(
            f"{folder}/x.cpython-312.pyc"
            for folder in ("__pycache__", "backup/__pycache__", "backup/stores/__pycache__")
        ),
        *(f"{folder}/x" for folder in (".git", ".github/workflows", ".mypy_cache", ".pytest_cache/v", ".ruff_cache")),
        *(f"{folder}/x" for folder in (".hypothesis", ".ci", ".vscode", "node_modules", "__blobstorage__", "dist")),
        *("tests/conftest.py", "tests/unit/test_sync.py", "tests/emulators/node_modules/x.js", "benchmarks/cold.py"),
        *("data/try/customers.db", "customers.db", "customers_backup.db-wal", ".env", ".gitignore", ".funcignore"),
        *("README.md", "local.settings.json", "local.settings.json.example", "pyproject.toml", "Makefile", "LICENSE"),
        *("docker-compose.yml", ".dockerignore", "backup/.DS_Store", "__azurite_db_blob__.json", "backup/x.pyc"),
    ]
    assert [path for path in paths if sent(path)] == []
