"""Looks at the sides of services: that they answer, their clocks, that one record can be read, and the rights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from backup.core.errors import BackupError, ColumnMissing, NotInitialized
from backup.core.log import redact
from backup.core.model import Now, SideName
from backup.core.suggestions import quantity
from backup.doctor.findings import Check, Finding, Grade, fine, wrong
from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs import upgrade
from backup.runs.history_entries import HISTORY
from backup.services.sets import ServiceSet
from backup.services.spec import ServiceSpec
from backup.stores import Limits, Rules, Store
from backup.stores.grants import Needed, RightSeen, grouped
from backup.stores.rights import default_schema_of, look_at, place_of, tables_of
from backup.stores.sides import Side, list_places, open_store, write_triggers
from backup.stores.tokens import token_of
from backup.verbs.watermarks import NO_HINT

CLOCK_WARNS, CLOCK_FAILS = timedelta(seconds=5), timedelta(minutes=5)
"""How far clocks may be apart. Tokens and signatures are refused beyond the second."""

_INITIALIZE = "`python -m backup initialize`, or POST /api/backup/initialize."
_TOO_WIDE: dict[SideName, str] = {
    "source": (
        "Take the rights back: a login that cannot write to the source cannot spoil it. "
        "`python -m backup grant` has the least."
    ),
    "backup": "Use a login of the app's own; `python -m backup grant` has the least rights.",
}


_NAMED_AT_MOST = 5
_ITS_TABLE = re.compile(r", table (?:\w+\.)?SyncHistory\b")


@dataclass(frozen=True)
class Examiner:
    """What the checks of a side need: the limits of calls, and the clock of this machine."""

    limits: Limits
    now: Now


def subject_of(side: Side) -> str:
    """Returns what findings call the side."""
    return f"{side.service} {side.role}"


def server_check(examiner: Examiner, side: Side, spec: ServiceSpec | None) -> Check:
    """The check that the side's server answers, in whose name all its services are asked; and of its clock. `spec` is
    None for a set."""
    subject = subject_of(side)

    def work() -> Iterator[Finding]:
        if spec is None and side.is_cosmos:
            number = len(list_places(side, examiner.limits))
            yield fine(subject, "connection", f"answers; {quantity(number, 'container')}")
            return
        store = open_store(side, spec.rules, examiner.limits) if spec is not None else _any_table(examiner, side)
        try:
            try:
                store.ping()
            except NotInitialized as error:
                yield _not_initialized(side, "connection", error)
                return
            yield fine(subject, "connection", f"answers: {store.place.location}")
            yield clock_finding(subject, store.server_time(), examiner.now())
        finally:
            store.close()

    def of_database() -> Iterator[Finding]:
        """The same for a set: it is asked by way of one table's store, and that table is nothing to tell."""
        try:
            findings = list(work())
        except BackupError as error:
            findings = [wrong(subject, "connection", error)]
        for finding in findings:
            yield replace(finding, message=_ITS_TABLE.sub("", finding.message))

    return Check(subject, "connection", work if spec is not None else of_database)


def clock_finding(subject: str, theirs: datetime | None, ours: datetime) -> Finding:
    """Returns what the two clocks tell; None: the database is a library in this process."""
    if theirs is None:
        return fine(subject, "clock", "the database has the clock of this machine")
    difference = abs(theirs - ours)
    text = f"the server's clock is {difference.total_seconds():.1f} s {'ahead' if theirs > ours else 'behind'}"
    hint = "Set the clock of this machine by NTP. Runs go by the server's clock; schedules and tokens by this one."
    if difference > CLOCK_FAILS:
        return Finding(Grade.FAILED, subject, "clock", text, hint)
    if difference > CLOCK_WARNS:
        return Finding(Grade.WARNING, subject, "clock", text, hint)
    return fine(subject, "clock", text)


def service_checks(examiner: Examiner, spec: ServiceSpec, roles: Sequence[SideName]) -> list[Check]:
    """The checks of one service on those sides that answer."""
    sides = {"source": spec.source, "backup": spec.backup}
    return [_side_check(examiner, spec, sides[role]) for role in roles]


def _side_check(examiner: Examiner, spec: ServiceSpec, side: Side) -> Check:
    subject = subject_of(side)

    def work() -> Iterator[Finding]:
        store = open_store(side, spec.rules, examiner.limits)
        try:
            yield from _readable(store, subject)
            if side.role == "backup":
                yield from _own_tables(store, spec.name, side)
            elif spec.needs_hint and store.incremental is None:
                hint = "Name a column that every write raises with ModifiedBy, or remove FullEveryDays."
                yield Finding(Grade.WARNING, subject, "FullEveryDays", NO_HINT, hint)
        except NotInitialized as error:
            yield _not_initialized(side, "table", error)
        except BackupError as error:
            yield wrong(subject, "table", error)
        finally:
            store.close()
        yield from _rights(examiner, side, subject)

    return Check(subject, "table", work)


def _readable(store: Store, subject: str) -> Iterator[Finding]:
    name = store.catalog.qualified_name()
    has_records = store.has_records()
    yield fine(subject, "table", f"{name} can be read{'' if has_records else '; it has no record'}")
    if subject.endswith("source") and not has_records:
        hint = "Is it the right table, and the right filter? An empty source is not copied over a backup with records."
        yield Finding(Grade.WARNING, subject, "records", f"{name} has no record of the service", hint)


def _own_tables(store: Store, service: str, side: Side) -> Iterator[Finding]:
    """Whether the app's own tables beside the backup are those of this release."""
    subject = subject_of(side)
    try:
        opening = upgrade.read(store, service)
    except NotInitialized as error:
        yield _not_initialized(side, "SyncHistory", error)
        return
    except (BackupError, ColumnMissing) as error:
        yield wrong(subject, "SyncHistory", error)
        return
    if opening is None:
        yield Finding(
            *(Grade.WARNING, subject, "SyncHistory", "it is of an earlier release"),
            "The next run brings it up to date, if its login may alter it; so does initialize.",
        )
    else:
        yield fine(subject, "SyncHistory", f"of version {opening.version}, as this release writes it")


def _not_initialized(side: Side, check: str, error: NotInitialized) -> Finding:
    """What is not there yet may be made; on Cosmos DB not by an identity."""
    makes_none = side.is_cosmos and token_of(side) is not None
    hint = "A data role makes no container: docs/security.md has the commands of az that do."
    return Finding(Grade.WARNING, subject_of(side), check, redact(str(error)), hint if makes_none else _INITIALIZE)


def _rights(examiner: Examiner, side: Side, subject: str) -> Iterator[Finding]:
    if side.is_cosmos:
        yield _cosmos_rights(side, subject)
        return
    tables = tables_of(side, examiner.limits, [side.table or side.default_table])
    role: SideName = "source" if side.role == "source" else "backup"
    needed = _needed(role, tables, tables[0][0])
    yield from _of_rights(look_at(side, examiner.limits, needed), role, subject)
    yield from _triggers(examiner, side, tables)


def _triggers(examiner: Examiner, side: Side, tables: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Whether triggers of the backup's tables may change what is written. A proof compares versions, so only a look at
    whole records would notice."""
    wanted = {(schema.lower(), table.lower()) for schema, table in tables} if side.role == "backup" else set()
    triggers = write_triggers(side, examiner.limits) if wanted else []
    names = [f"{name} of {table}" for schema, table, name in triggers if (schema.lower(), table.lower()) in wanted]
    if names:
        text = f"may change what is written: {quantity(len(names), 'trigger')} ({_first(names)})"
        hint = "Drop or disable what changes values; then sync with force. `verify --full` compares whole records."
        yield Finding(Grade.WARNING, subject_of(side), "triggers", text, hint)


def _needed(role: SideName, tables: Sequence[tuple[str, str]], own_schema: str) -> Needed:
    """What the app works with: these tables, and beside a backup its own ones."""
    own = [(own_schema, shape.name) for shape in (HISTORY, RECYCLE_BIN)] if role == "backup" else []
    every = (*tables, *own)
    return Needed(role, tuple(dict.fromkeys(schema for schema, _ in every)), every)


def _of_rights(seen: Sequence[RightSeen], role: SideName, subject: str) -> Iterator[Finding]:
    missing, to_alter, excess = (grouped(seen, kind) for kind in ("missing", "later", "excess"))
    if missing:
        text = f"the login lacks {missing}"
        yield Finding(Grade.FAILED, subject, "rights", text, "`python -m backup grant` gives it, as an administrator.")
    if to_alter:
        text = f"the login lacks {to_alter}: it cannot follow new tables and columns"
        hint = (
            "`python -m backup grant` gives it. On PostgreSQL a table that is there also needs ALTER TABLE … OWNER TO."
        )
        yield Finding(Grade.WARNING, subject, "rights", text, hint)
    if excess:
        yield Finding(Grade.WARNING, subject, "rights", f"the login has more than it needs: {excess}", _TOO_WIDE[role])
    if not (missing or to_alter or excess):
        yield fine(subject, "rights", "it may read, and nothing else" if role == "source" else "it may read and write")


def _cosmos_rights(side: Side, subject: str) -> Finding:
    if "accountkey" in side.connection_string.lower():
        if side.role == "backup":
            return fine(subject, "rights", "an account key may do everything")
        hint = (
            "Use an identity with the role Cosmos DB Built-in Data Reader: `python -m backup grant` prints the command."
        )
        return Finding(Grade.WARNING, subject, "rights", "an account key may also write to the source", hint)
    text = "the identity may read"
    if side.role == "backup":
        text += "; only a write would show whether it may write: it needs Cosmos DB Built-in Data Contributor"
    return fine(subject, "rights", text)


def set_checks(examiner: Examiner, service_set: ServiceSet, roles: Sequence[SideName]) -> list[Check]:
    """The checks of a set, a few statements for all of its tables, on those sides that answer."""
    checks = [Check(f"{service_set.name} source", "tables", partial(_tables, service_set))] if "source" in roles else []
    if "source" in roles and service_set.is_consistent:
        checks.append(Check(f"{service_set.name} source", "one moment", partial(_one_moment, service_set)))
    sides = [service_set.specs.side(role) for role in roles]
    return [
        *checks,
        *(Check(subject_of(side), "rights", partial(_set_rights, examiner, service_set, side)) for side in sides),
    ]


def _tables(service_set: ServiceSet) -> Iterator[Finding]:
    members, subject = service_set.members, f"{service_set.name} source"
    for error in members.errors:
        yield wrong(subject, "tables", error)
    for spec in members.specs.values():
        if spec.refused is not None:
            yield wrong(f"{spec.name} source", "tables", spec.refused)
    if keyless := service_set.without_key():
        text = f"{quantity(len(keyless), 'table')} without a primary key: {_first(keyless)}"
        yield Finding(Grade.FAILED, subject, "tables", text, "Name a key of each in backup.toml, or exclude it.")
    if members.gone:
        text = f"gone from the source: {quantity(len(members.gone), 'table')} of the backup: {_first(members.gone)}"
        yield Finding(Grade.WARNING, subject, "tables", text, "Their copies stay. Exclude them if that is meant.")
    if members.specs:
        number = quantity(len(members.specs), "container" if service_set.specs.section.is_cosmos else "table")
        yield fine(subject, "tables", f"the set has {number}")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")


def _one_moment(service_set: ServiceSet) -> Iterator[Finding]:
    subject, refusals = f"{service_set.name} source", service_set.refusals()
    for error in refusals:
        yield wrong(subject, "one moment", error)
    if not refusals and service_set.members.listed:
        yield fine(subject, "one moment", "all tables of the set can be read as of one moment")


def _set_rights(examiner: Examiner, service_set: ServiceSet, side: Side) -> Iterator[Finding]:
    if side.is_cosmos:
        yield _cosmos_rights(side, subject_of(side))
        return
    role: SideName = "source" if side.role == "source" else "backup"
    names = [spec.name.partition("/")[2] for spec in service_set.members.specs.values()]
    tables = tables_of(side, examiner.limits, names)
    needed = replace(_needed(role, tables, default_schema_of(side, examiner.limits)), grows=True)
    yield from _of_rights(look_at(side, examiner.limits, needed), role, subject_of(side))
    yield from _triggers(examiner, side, tables)


def place_key(examiner: Examiner, side: Side) -> tuple[str, ...]:
    """What tells servers apart: sides with the same key are asked once. The login is part of it."""
    if side.is_cosmos:
        return ("cosmos", side.connection_string, side.database or "")
    return (*place_of(side, examiner.limits), side.connection_string)


def _any_table(examiner: Examiner, side: Side) -> Store:
    """A store of the side's database; nobody asks for its table."""
    return open_store(replace(side, table="SyncHistory"), Rules(of_set=True), examiner.limits)
