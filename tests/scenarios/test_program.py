"""The command line as an installed program: where it finds its settings, what it says of itself."""

import importlib
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from backup import __version__
from tests.scenarios.inside import command, done
from tests.scenarios.places import Place
from tests.scenarios.product import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Whatever a file of settings puts into the environment is gone after the test."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another folder than that of the settings."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def config(sqlite_place: Place, tmp_path: Path) -> Path:
    """A file of settings, under a name of its own."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"Values": sqlite_place.settings}))
    return path


def test_the_console_script_starts_the_command_line() -> None:
    module, _, function = PROJECT["scripts"]["backup"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert PROJECT["version"] == __version__
    assert command(tmp_path, {}, "--version").out == f"backup {__version__}\n"


@pytest.mark.parametrize("place", ["before", "after", "folder"])
def test_config_names_the_file_of_settings_before_or_after_the_command(
    config: Path, elsewhere: Path, place: str
) -> None:
    if place == "folder":
        config = config.rename(config.with_name("local.settings.json")).parent
    option = ["--config", str(config)]
    arguments = [*option, "sync", "--json"] if place == "before" else ["sync", *option, "--json"]
    assert len(done(command(elsewhere, {}, *arguments))["Results"]) == 2


def test_the_file_beside_is_not_read_where_another_is_named(config: Path, elsewhere: Path) -> None:
    (elsewhere / "local.settings.json").write_text(json.dumps({"Values": {"BackupSync__ChunkSize": "many"}}))
    done(command(elsewhere, {}, "--config", str(config), "history", "--json"))


def test_the_environment_goes_before_the_named_file(config: Path, elsewhere: Path) -> None:
    ended = command(elsewhere, {"BackupSync__ChunkSize": "many"}, "sync", "--config", str(config))
    assert (ended.code, "BackupSync__ChunkSize" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "There is no file"), ("{", "cannot be read"), ("[]", "cannot be read")]
)
def test_a_named_file_that_cannot_be_used_is_an_error_that_names_it(
    elsewhere: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (elsewhere / "its.json").write_text(text)
    ended = command(elsewhere, {}, "sync", "--config", "its.json")
    assert (ended.code, message in ended.err, "its.json" in ended.err) == (1, True, True)


def test_serve_in_a_folder_without_the_app_says_what_it_needs(config: Path, elsewhere: Path) -> None:
    ended = command(elsewhere, {}, "serve", "--config", str(config), "--port", "0")
    assert ended.code == 1
    assert "function_app.py" in ended.err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_the_commands_by_their_job(tmp_path: Path, option: str) -> None:
    text = command(tmp_path, {"COLUMNS": "80"}, option).out
    set_up, back_up, look, take_back = "─ Set up ─", "─ Back up ─", "─ Look ─", "─ Take back ─"
    in_order = [set_up, "│ initialize ", back_up, "│ sync ", look, "│ history ", "│ show ", take_back, "│ undo "]
    places = [text.index(part) for part in in_order]
    assert places == sorted(places)
    assert "-h" in command(tmp_path, {}, "sync", option).out
