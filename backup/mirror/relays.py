"""Has the servers of both sides pass records on among themselves, and counts what they have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from backup.core import spans
from backup.core.errors import ConstraintRefused
from backup.core.model import Chunk, Key
from backup.core.run_values import Counts, Run
from backup.mirror.lower_versions import tell_number_of_lower
from backup.mirror.pair import StorePair
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.stores import CopyNote, Keep, NotRelayed, RelayedPart, Store

FEWEST = 200  # changed records of a chunk: for fewer, to read and to send them costs as much, docs/decisions/relay.md
_NOT_RELAYED = "The servers refused to copy parts of the table by themselves, so the app copied them record by record."

_Rest = TypeVar("_Rest", Chunk, Sequence[Key])


class Relays:
    """What the servers write by themselves, for several threads.

    Each method returns what they have written, and the rest, which this process has to write; None if all is written.
    """

    def __init__(self, pair: StorePair, run: Run, tally: Tally, steps: Steps, check: Callable[[], None]) -> None:
        """`check` is called before every part, like `steps.check_lock`. It raises to stop the run."""
        self._source, self._backup = pair.source, pair.backup
        self._run, self._tally, self._steps, self._check = run, tally, steps, check

    def copy(self, chunk: Chunk) -> tuple[Counts, Chunk | None]:
        """Has the servers copy a chunk where the backup has no record."""
        relational = self._backup.relational
        return (Counts(), chunk) if relational is None else self._relay(chunk, relational.relay, over=False)

    def overwrite(self, chunk: Chunk) -> tuple[Counts, Chunk | None]:
        """Has the servers write the records of a chunk over the backup's: in a forced run all of them, else those with
        another version. What only the backup has stays."""
        relational = self._backup.relational
        if relational is None:
            return Counts(), chunk
        return self._relay(chunk, partial(relational.overwrite, changed=not self._run.forced), over=True)

    def write(self, keys: frozenset[Key]) -> tuple[Counts, frozenset[Key]]:
        """Has the servers write the records of these keys."""
        relational = self._backup.relational
        if relational is None:
            return Counts(), keys
        counts, rest = self._relay(self._backup.keys.in_order(keys), relational.relay_changes, over=True)
        return counts, frozenset(rest or ())

    def _relay(
        self,
        rest: _Rest,
        relay: Callable[[Store, _Rest, CopyNote, Keep], Iterator[RelayedPart]],
        *,
        over: bool,
    ) -> tuple[Counts, _Rest | None]:
        """`over`: the backup has older copies. Then a constraint that refuses one need not last: it is no news."""
        counts = Counts()
        self._check()
        self._steps.check_lock()
        note = CopyNote(self._run.sync_id, self._steps.now())
        with spans.span("backup.relay", service=self._run.service) as span:
            try:
                for part in relay(self._source, rest, note, self._steps.keep):
                    tell_number_of_lower(self._run, part.lower, part.first_lower)
                    written = {"inserted": part.inserted, "updated": part.updated, "skipped": part.skipped}
                    self._tally.add(**written)
                    counts = counts.plus(**written)
                    self._check()
                    self._steps.check_lock()
            except NotRelayed as refused:
                if refused.error is not None and not (over and isinstance(refused.error, ConstraintRefused)):
                    self._tally.note(f"The first refusal: {refused.error}", once=_NOT_RELAYED)
                return counts, refused.rest
            finally:
                span.tell(records=counts.inserted + counts.updated)
        return counts, None
