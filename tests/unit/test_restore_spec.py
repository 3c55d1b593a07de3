"""What a restore may be asked for: a contradiction is refused before there is a run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backup.core.errors import BadRequest
from backup.core.model import Action
from backup.verbs.restore_spec import RestoreSpec


def test_a_wish_names_one_state_and_the_run_whose_changes_it_chooses() -> None:
    with pytest.raises(BadRequest):
        RestoreSpec(run="a", at=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(BadRequest):
        RestoreSpec(only=Action.DELETED)
    assert RestoreSpec(run="a", only=Action.DELETED).only is Action.DELETED
