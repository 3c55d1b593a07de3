"""The configuration without secrets: another machine that has the secrets comes to the same settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backup.config.environment import use_local_settings
from backup.config.exported import exported_toml
from backup.config.set_file import SetText, read_sets
from backup.config.settings import Settings, load_settings
from backup.core.errors import ConfigError
from tests.scenarios.inside import command

SECRETS = {
    "SourceShopDb__ConnectionString": "Server=a;Database=b;User Id=c;Password=hidden-one",
    "BackupShopDb__ConnectionString": "Server=d;Database=b;User Id=c;Password=hidden-two",
    "BackupMask__Key": "hidden-key-of-masks",
    "SHOP_PASSWORD": "hidden-three",
}
GIVEN = {
    **SECRETS,
    "BackupRetry__BaseSeconds": "0",
    "SourceShopDb__Table": "dbo.Shop",
    "sourceshopdb__where": 'Region="EU, west"',
    "BackupSync__ChunkSize": "7",
    "BackupSchedule__Enabled": "false",
    "BACKUP_TOML": """
        [defaults]
        recycle_days = 2.5
        [set.shop-a]
        source = "postgresql://u:${SHOP_PASSWORD}@h/d"
        backup = 'postgresql://u:hidden-four@h/e'
        tables = ["public.*", 'a"b\\c']
        [set.shop-a.where."public.x y"]
        "Größe" = { from = 1, below = 2.5 }
        day = 2026-11-29
        is_open = [true, false]
        [set.shop-a.table."public.Customer"]
        mask = { Email = "email", Note = { text = "tab\\t\\u007f" } }
        [set.shop-a.table."public.Customer".columns]
        exclude = ["Fax"]
    """,
}


@pytest.fixture
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting is left behind, whatever is put into the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def values_of(settings: Settings) -> object:
    """What the settings say, but for how their sets are written."""
    return {name: value for name, value in settings if name != "set_text"}


def test_with_the_secrets_beside_it_the_file_gives_the_same_settings(tmp_path: Path, empty_environment: None) -> None:
    ended = command(tmp_path, GIVEN, "export-config")
    assert ended.code == 0, ended.err
    assert "hidden" not in ended.out + ended.err
    asked = ended.err.rpartition(": ")[2].strip().split(", ")
    assert set(asked) == {*SECRETS.keys() - {"SHOP_PASSWORD"}, "SHOP_A_SOURCE", "SHOP_A_BACKUP"}
    file = tmp_path / "exported.json"
    file.write_text(ended.out)
    os.environ.update(SECRETS)
    os.environ["SHOP_A_SOURCE"] = "postgresql://u:hidden-three@h/d"
    os.environ["SHOP_A_BACKUP"] = "postgresql://u:hidden-four@h/e"
    use_local_settings(file)
    names = json.loads(ended.out)["Values"].keys() | {"SHOP_A_SOURCE", "SHOP_A_BACKUP"}
    taken = load_settings({name: os.environ[name] for name in names})
    assert values_of(taken) == values_of(load_settings(GIVEN))


def test_a_file_whose_connection_strings_are_references_stays_as_it_is() -> None:
    text = '# mine\n[set.a]\nsource = "${A}"\nbackup = "${B}"\ntables = ["$${x}"]\n'
    assert exported_toml(text) == (text, ("A", "B"))


def test_what_is_written_anew_is_read_as_the_same_sets() -> None:
    exported = exported_toml(GIVEN["BACKUP_TOML"])
    values = {"SHOP_A_SOURCE": "postgresql://u:hidden-three@h/d", "SHOP_A_BACKUP": "postgresql://u:hidden-four@h/e"}
    anew = read_sets(SetText("anew", exported.text), values)
    assert anew == read_sets(SetText("given", GIVEN["BACKUP_TOML"]), SECRETS)


def test_the_file_of_sets_alone_and_defaults_where_they_are_asked_for(tmp_path: Path) -> None:
    alone = command(tmp_path, GIVEN, "export-config", "--toml")
    assert alone.out == exported_toml(GIVEN["BACKUP_TOML"]).text
    with_defaults = json.loads(
        command(tmp_path, {"BackupSync__ChunkSize": "7", "BackupRetry__BaseSeconds": "0"}, "export-config", "--all").out
    )
    assert with_defaults["Values"]["BackupSync__ChunkSize"] == "7"
    assert with_defaults["Values"]["BackupSchedule__TimeZone"] == "UTC"
    assert values_of(load_settings(with_defaults["Values"])) == values_of(
        load_settings({"BackupSync__ChunkSize": "7", "BackupRetry__BaseSeconds": "0"})
    )
    assert command(tmp_path, {}, "export-config", "--toml").code == 1


def test_a_variable_that_is_missing_is_told_by_its_name(tmp_path: Path, empty_environment: None) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"Values": {"BackupMask__Key": "${NOT_THERE}", "BackupSync__ChunkSize": "8"}}')
    with pytest.raises(ConfigError, match=r"BackupMask__Key from the variable NOT_THERE"):
        use_local_settings(file)
