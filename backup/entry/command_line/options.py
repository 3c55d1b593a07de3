"""Arguments and options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backup.core.model import Action

AnyService = Annotated[str, typer.Argument(metavar="SERVICE", help="A service, a set, a pattern of names, or all")]
OneOrSet = Annotated[str, typer.Argument(metavar="SERVICE", help="A service, a set, or a pattern")]
OneService = Annotated[str, typer.Argument(metavar="SERVICE", help="A service")]
Yes = Annotated[bool, typer.Option("--yes", help="Write. Without --yes the command only shows what would change")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change, even with --yes")]
AllowMassDelete = Annotated[bool, typer.Option("--allow-mass-delete", help="Let this run pass the guard's limits")]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="The state at a time: 2026-11-20T00:00:00Z"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON: the answer that HTTP would give")]


class OnlyChange(StrEnum):
    """What a run did to a record, as a person types it."""

    INSERTED = "inserted"
    UPDATED = "updated"
    DELETED = "deleted"

    @property
    def action(self) -> Action:
        """The word for it in the recycle bin."""
        return Action(self.value.title())


Only = Annotated[
    OnlyChange | None,
    typer.Option(
        "--only", metavar="CHANGE", help="Only such changes: inserted, updated or deleted", show_default=False
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A file with settings, like local.settings.json", show_default=False),
]
