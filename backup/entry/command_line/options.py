"""Arguments and options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backup.core.model import Action

AnyService = Annotated[str, typer.Argument(help="A service, or all")]
OneService = Annotated[str, typer.Argument(help="A service")]
Yes = Annotated[bool, typer.Option("--yes", help="Write; without it the command only says what would change")]
AllowMassDelete = Annotated[bool, typer.Option("--allow-mass-delete", help="Let this run pass the delete guard")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="ISO 8601 with offset: 2026-11-20T00:00:00Z")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what HTTP would answer, and nothing else")]


class OnlyChange(StrEnum):
    """What a run did to a record, as it may be typed."""

    INSERTED = "inserted"
    UPDATED = "updated"
    DELETED = "deleted"

    @property
    def action(self) -> Action:
        """The same as the bin writes it."""
        return Action(self.value.title())


Only = Annotated[OnlyChange | None, typer.Option("--only", help="Only what the run did so", show_default=False)]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings, as local.settings.json has them", show_default=False),
]
