"""The foreign keys kept beside a set's backup: what of them cannot be read is named, and written anew."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backup.runs.set_catalog import SET_CATALOG, keep_foreign_keys, kept_foreign_keys
from backup.stores import ForeignKey
from tests.scenarios.places import on_sqlite

AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ForeignKey("of", "Child", ["ParentId"], "Parent", ["Id"])


@pytest.mark.parametrize(
    "text", ["", "{", "5", "[5]", '[{"name":"of"}]', json.dumps([KEY.__dict__ | {"table": 5}]), "[" * 100_000]
)
def test_what_cannot_be_read_counts_as_missing_until_it_is_written_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    caplog.set_level(logging.WARNING)
    place = on_sqlite(tmp_path)
    with place.registry.get("customer").stores() as (_, backup):
        keep_foreign_keys(backup, "shop", [KEY], AT)
        backup.sibling(SET_CATALOG).put([{"SetName": "shop", "ForeignKeys": text, "SavedAt": AT}])
        assert kept_foreign_keys(backup, "shop") is None
        assert "set.foreign_keys_not_read" in caplog.text
        keep_foreign_keys(backup, "shop", [KEY], AT)
        assert kept_foreign_keys(backup, "shop") == ([KEY], AT)
