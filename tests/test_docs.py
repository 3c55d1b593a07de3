"""The documents against the code: what they name exists, and what exists has its place in them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import click
import pytest
import typer

from backup.config.given_services import side_name
from backup.config.service_settings import BY_DEFAULT, PARTS, setting_of
from backup.config.settings import Settings, every_setting
from backup.core import errors
from backup.core.model import SIDES
from backup.entry.command_line.app import cli
from backup.entry.requests import RestoreRequest, SyncRequest, UndoRequest, VerifyRequest
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs.history_entries import COLUMNS, HISTORY
from tests.scenarios import inside

ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks/README.md")
}
MODULES = [
    str(path)
    for path in (
        ROOT / "function_app.py",
        *(path for name in ("backup", "tests", "benchmarks", "docs", "infra") for path in (ROOT / name).rglob("*.py")),
    )
]
EVERYTHING = "\n".join(DOCUMENTS.values())
ARCHITECTURE = DOCUMENTS["ARCHITECTURE.md"]
COMMAND_LINE = DOCUMENTS["docs/command-line.md"]
CONFIGURATION = DOCUMENTS["docs/configuration.md"]
HISTORY_PAGE = DOCUMENTS["docs/history.md"]
HTTP = DOCUMENTS["docs/http.md"]
JOBS = DOCUMENTS["docs/jobs.md"]
OPERATING = DOCUMENTS["docs/operating.md"]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
CONTAINERS = re.findall(r"^  ([\w-]+):$", COMPOSE.split("\nservices:\n")[1].split("\nconfigs:\n")[0], re.M)
SETTINGS = set(every_setting())
ANY_SERVICE = {setting_of(role, "<Name>", part) for role in SIDES for part in PARTS[role]}
"""The settings of any service, as the documents write them."""
COMMANDS = typer.main.get_command(cli).commands  # type: ignore[attr-defined]


def options_of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def routes() -> set[str]:
    """`METHOD /api/route` of every HTTP function, by the decorators of function_app.py."""
    registered = set()
    for node in ast.walk(ast.parse((ROOT / "function_app.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "route":
            path = str(ast.literal_eval(node.args[0])).replace(":minlength(1)", "")  # what only the host minds
            [methods] = [ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "methods"]
            registered |= {f"{method} /api/{path}" for method in methods}
    return registered


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.M))


def test_the_readme_has_at_most_250_lines() -> None:
    assert len(DOCUMENTS["README.md"].splitlines()) <= 250


@pytest.mark.parametrize("folder", ["docs", "docs/decisions"])
def test_every_page_is_in_the_list_of_its_folder(folder: str) -> None:
    listed = re.findall(r"\]\((\w[\w-]*\.md)\)", DOCUMENTS[f"{folder}/README.md"])
    pages = {path.name for path in (ROOT / folder).glob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted(pages)


def named_settings(text: str) -> set[str]:
    """Those in examples too, which have no backticks around them."""
    pattern = r"\b(?:Source|Backup|CosmosDb)(?:[A-Za-z]|<Name>)*__[A-Za-z]+|(?<=`)[A-Za-z]+__[A-Za-z]+(?=`)"
    return set(re.findall(pattern, text))


def test_every_setting_is_in_the_page_on_configuration() -> None:
    named = named_settings(CONFIGURATION)
    assert named >= ANY_SERVICE
    assert {name for name in SETTINGS if "__" in name and side_name(name) is None} <= named


def test_settings_in_a_document_exist() -> None:
    # What is not the app's own may be named as well: the Functions host reads it.
    of_the_host = ("AzureWebJobsStorage__", "AzureFunctionsJobHost__")
    for document, text in DOCUMENTS.items():
        named = {name for name in named_settings(text) if not name.startswith(of_the_host)}
        assert {name for name in named - SETTINGS - ANY_SERVICE if side_name(name) is None} == set(), document


def test_settings_without_parts_are_in_the_page_on_configuration() -> None:
    assert {name for name in SETTINGS if "__" not in name and f"`{name}`" not in CONFIGURATION} == set()


def test_every_default_in_the_page_on_configuration_is_the_settings_own() -> None:
    documented = dict(re.findall(r"^\| `(\w+__\w+)` \| `([^`]*)` \|", CONFIGURATION, re.M))
    defaults = {
        str(field.alias): str(field.default).lower()
        if isinstance(field.default, bool)
        else f"{field.default:g}"
        if isinstance(field.default, float)
        else str(field.default)
        for field in Settings.model_fields.values()
        if field.alias is not None and field.default_factory is None and field.default not in (None, "")
    }
    of_services = {name: value for parts in BY_DEFAULT.values() for name, value in parts.items()}
    assert {name: value for name, value in documented.items() if side_name(name) is not None} == of_services
    assert {name: documented.get(name) for name in defaults} == defaults


def _any_of(route: str, character: str) -> str:
    """A pattern of the addresses that have these characters where the route has a parameter."""
    return re.sub(r"\{\w+\}", f"{character}+", re.sub(r"\{\*\w+\}", f"({character}|/)+", route))


def named_endpoints(text: str) -> set[str]:
    return set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /api/[\w/{}*.]*)", text))


def test_endpoints_in_the_pages_on_http_and_jobs_are_those_that_exist() -> None:
    assert named_endpoints(HTTP) | named_endpoints(JOBS) == routes()


def test_endpoints_in_all_documents_exist() -> None:
    known = [_any_of(route, r"[\\w{}*-]") for route in routes()]
    assert {
        name for name in named_endpoints(EVERYTHING) if not any(re.fullmatch(pattern, name) for pattern in known)
    } == set()


def test_addresses_in_calls_exist() -> None:
    called = {
        f"/api/{path}"
        for path in re.findall(r"(?:127\.0\.0\.1:7071|APP\.azurewebsites\.net)/api/([\w/-]+)", EVERYTHING)
    }
    known = [_any_of(route.split()[1], r"[\\w-]") for route in routes()]
    assert called
    assert {path for path in called if not any(re.fullmatch(pattern, path) for pattern in known)} == set()


def test_commands_in_the_page_on_the_command_line_are_those_that_exist() -> None:
    assert set(re.findall(r"python -m backup ([a-z]+(?:-[a-z]+)*)", COMMAND_LINE)) == COMMANDS.keys()


def test_the_page_on_the_command_line_groups_commands_as_the_help_text_does() -> None:
    sections = re.findall(r"^## ([\w ]+)\n\n\| command (.*?)(?=^## )", COMMAND_LINE, re.M | re.S)
    documented = {
        name: [*dict.fromkeys(re.findall(r"^\| `python -m backup ([\w-]+)", text, re.M))] for name, text in sections
    }
    shown: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        shown.setdefault(command.rich_help_panel, []).append(name)
    assert documented == shown


def test_commands_in_all_documents_exist() -> None:
    assert set(re.findall(r"python -m backup ([a-z]+(?:-[a-z]+)*)", EVERYTHING)) <= COMMANDS.keys()


def test_options_in_the_page_on_the_command_line_are_those_that_exist() -> None:
    existing = {name: options_of(command) for name, command in COMMANDS.items()}
    documented = {
        option: set(re.findall(r"`([\w-]+)`", commands))
        for option, commands in re.findall(r"^\| `(--[a-z-]+)` \| ([^|]*) \|", COMMAND_LINE, re.M)
        if option != "--help"
    }
    assert documented == {
        option: {name for name, options in existing.items() if option in options}
        for option in set().union(*existing.values()) - {"--help"}
    }


def test_options_of_commands_in_examples_exist() -> None:
    used = re.findall(r"python -m backup ([a-z]+(?:-[a-z]+)*)([^`\n]*)", EVERYTHING)
    wrong = [
        (command, option)
        for command, rest in used
        for option in re.findall(r"(--[a-z-]+)", rest.split("|")[0])
        if option not in options_of(COMMANDS[command]) | {"--help"}
    ]
    assert wrong == []


def test_make_targets_in_the_first_steps_are_those_that_exist() -> None:
    assert set(re.findall(r"`make ([a-z]+)`", DOCUMENTS["docs/start.md"])) - {"help"} == make_targets() - {"help"}


def test_make_targets_in_all_documents_exist() -> None:
    assert set(re.findall(r"`make ([a-z]+)[` ]", EVERYTHING)) <= make_targets()


def test_files_that_a_document_links_to_exist() -> None:
    for document, text in DOCUMENTS.items():
        links = set(re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text))
        assert [link for link in links if not ((ROOT / document).parent / link).exists()] == [], document


def anchors(text: str) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_headings_that_a_document_links_to_exist() -> None:
    for document, text in DOCUMENTS.items():
        folder = (ROOT / document).parent
        links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", text)
        texts = {page: (folder / page).read_text() if page else text for page, _ in links}
        assert [(page, anchor) for page, anchor in links if anchor not in anchors(texts[page])] == [], document


def test_errors_that_exist_are_in_the_page_on_http() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.BackupError) and value is not errors.BackupError
    }
    assert {name for name in kinds if f"`{name}`" not in HTTP} == set()


def test_names_of_a_result_and_of_the_requests_are_in_the_page_on_http() -> None:
    requests = (SyncRequest, UndoRequest, RestoreRequest, VerifyRequest)
    names = {str(field.alias) for kind in requests for field in kind.model_fields.values()}
    names |= {column.name for column in COLUMNS if column.answered}
    assert {name for name in names if not re.search(rf"[`\"]{name}[`\"]", HTTP)} == set()


def test_columns_of_sync_history_are_in_its_page() -> None:
    assert {name for name in HISTORY.fields if f"`{name}`" not in HISTORY_PAGE} == set()


def test_columns_of_the_recycle_bin_are_in_its_page() -> None:
    page = DOCUMENTS["docs/guard-and-recycle-bin.md"]
    assert {name for name in RECYCLE_BIN.fields if f"`{name}`" not in page} == set()


def test_names_of_log_lines_are_in_the_page_on_operating() -> None:
    # Those of the local host are on its own terminal alone.
    sources = [path.read_text() for path in (ROOT / "backup").rglob("*.py")]
    names = {name for text in sources for name in re.findall(r'event\(\s*"([\w.]+)"', text)}
    assert names
    assert {name for name in names if not name.startswith("host.") and f"`{name}`" not in OPERATING} == set()


def test_packages_in_architecture_are_those_that_exist_and_say_the_same_of_themselves() -> None:
    named = dict(re.findall(r"^\| `(backup/[\w/]+)/` \| (.*) \|$", ARCHITECTURE, re.M))
    opened = [path for path in (ROOT / "backup").rglob("__init__.py") if path.parent.name != "backup"]
    assert named == {
        str(path.parent.relative_to(ROOT)): " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        for path in opened
    }


def test_tests_that_documents_name_exist() -> None:
    named = set(re.findall(r"`((?:\w+/)*test_\w+\.py)`", EVERYTHING))
    existing = [str(path) for path in (ROOT / "tests").rglob("test_*.py")]
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in existing)} == set()


def test_modules_that_a_document_names_exist() -> None:
    for document, text in DOCUMENTS.items():
        named = set(re.findall(r"`((?:[\w.]+/)*\w+\.py)\b", text))
        assert {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in MODULES)} == set(), (
            document
        )


def test_names_of_the_code_that_a_document_uses_are_in_the_code() -> None:
    in_the_code = {word for path in MODULES for word in re.findall(r"\w+", Path(path).read_text())}
    for document, text in DOCUMENTS.items():
        if document.startswith(("ARCHITECTURE", "CONTRIBUTING", "docs/decisions/")):
            # `LikeThis`, `like_this`, `like.this()`; other things stand in backticks too.
            named = re.findall(r"`((?:\w+\.)*(?:[A-Z]\w*[a-z]\w*|\w+_\w+|\w+(?=\(\))))(?:\(\))?`", text)
            assert {name.split(".")[-1] for name in named} - in_the_code == set(), document


def test_the_example_of_local_settings_has_every_setting() -> None:
    values = json.loads((ROOT / "local.settings.json.example").read_text())["Values"]
    assert {name for name in SETTINGS if name not in values and not name.startswith("AzureWebJobsStorage__")} == set()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_a_help_text(name: str, tmp_path: Path) -> None:
    ran = inside.command(tmp_path, {}, name, "--help")
    assert ran.code == 0, ran.err
    assert (COMMANDS[name].help or "").split(".")[0] in " ".join(ran.out.split())
    assert "<bool>" not in ran.out  # a flag takes no value


def test_tests_that_hold_a_promise_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENTS["docs/promises.md"])
    assert named
    assert [name for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_the_containers_have_the_names_that_manuals_use() -> None:
    assert [
        *("sqlserver", "sqlserver-backup", "sqlserver-init", "cosmosdb", "cosmosdb-backup", "azurite", "functions")
    ] == CONTAINERS
    assert re.findall(r"^  cosmosdb:\n(?:    .*\n)*?    container_name: ([\w-]+)", COMPOSE, re.M) == [
        "cosmosdb-emulator"
    ]
    volumes = re.findall(r"^  (\w+):$", COMPOSE.split("\nvolumes:\n")[1], re.M)
    assert volumes == [
        f"{name}_data" for name in ("sqlserver", "sqlserver_backup", "cosmosdb", "cosmosdb_backup", "azurite")
    ]
    assert set(volumes) == set(re.findall(r'volumes: \["(\w+):', COMPOSE))


def test_settings_in_the_compose_file_exist() -> None:
    assert named_settings(COMPOSE) - SETTINGS == set()
    hosts = set(re.findall(r"(?:Server=|https?://)([\w-]+)[,:]\d", COMPOSE.split("  functions:\n")[1]))
    assert {name for name in hosts if name not in CONTAINERS} == set()


def test_containers_that_a_command_starts_exist() -> None:
    others = (".github/workflows/ci.yml", "tests/conftest.py", "tests/contract/test_sqlserver_types.py")
    for path, text in {**DOCUMENTS, **{path: (ROOT / path).read_text() for path in others}}.items():
        started = re.findall(r"docker compose (?:up|run)((?: -{1,2}[a-z-]+(?: \d+)?)*)((?: [a-z][a-z-]+)*)", text)
        assert {name for _, names in started for name in names.split()} - {*CONTAINERS, "and", "set"} == set(), path
