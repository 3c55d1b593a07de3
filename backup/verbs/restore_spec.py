"""What a restore is asked for. Knows no store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backup.core.errors import BadRequest
from backup.core.model import Action


@dataclass(frozen=True)
class RestoreSpec:
    """What to restore: the state `at` a time, or the newest (None); of these `keys`, or of all records (no keys).

    With the id of a `run`: the state before that run, of the records that it changed, or that it `only` inserted,
    updated or deleted. `without_masked`: only the values that are not masked, and only into records that exist.

    `deletes_later`: another run follows, which deletes. `beside`: the tables that are restored with this one; a dry run
    leaves out of account that their rows refer to records that would be deleted.
    """

    at: datetime | None = None
    keys: tuple[str, ...] = ()
    overwrite_newer: bool = False
    delete_extra: bool = False
    run: str | None = None
    only: Action | None = None
    without_masked: bool = False
    deletes_later: bool = False
    beside: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raises BadRequest for a spec that names two states, or no run to choose changes of."""
        if self.run is not None and self.at is not None:
            raise BadRequest(
                "The request names both a time and a run, and each names a state.", hint="Name one of them."
            )
        if self.only is not None and self.run is None:
            raise BadRequest(
                f"The request asks for what a run {self.only.lower()}, but names no run.",
                hint="Name the run: --run on the command line, `run` over HTTP.",
            )
