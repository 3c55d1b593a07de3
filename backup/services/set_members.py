"""What a set has now: its services, by what the catalogues of its source and its backup say."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from backup.core.errors import BackupError, ConfigError, NotInitialized
from backup.core.log import event
from backup.core.patterns import NameIndex, is_pattern, matching, same_name
from backup.core.suggestions import did_you_mean, quoted
from backup.core.workers import Workers
from backup.runs.upgrade import OWN_NAMES
from backup.services.new_tables import fate_of
from backup.services.set_specs import SetSpecs
from backup.services.spec import ServiceSpec
from backup.services.unbegun import MARK_OF_COPIES, without_unbegun
from backup.stores import ForeignKey, Listed
from backup.stores.sides import list_places

_TYPED_AT_MOST = 60
_KEPT_AT_MOST = 20


@dataclass(frozen=True)
class Members:
    """What a set has now. `specs`: its services by table, big tables first. `listed`: what the catalogue says of them.

    `errors`: why the set is not whole, such as a pattern that stands for nothing. `views`: what fits a pattern
    and is left out all the same, because it is not a table of the source's own. `ignored`: new tables that the file
    tells to ignore. `gone`: tables of the backup that the source does not have any more. `copy_keys`: foreign keys that
    somebody has given to the backup's tables; a sync makes none. `may_change`: they hold for one call alone.
    """

    specs: Mapping[str, ServiceSpec] = field(default_factory=dict)
    listed: Mapping[str, Listed] = field(default_factory=dict)
    errors: Sequence[BackupError] = ()
    ignored: Sequence[str] = ()
    gone: Sequence[str] = ()
    copy_keys: Sequence[ForeignKey] = ()
    views: Sequence[Listed] = ()
    may_change: bool = False


class _Made(NamedTuple):
    """The members of a whole set, and all that they follow from."""

    settings: Sequence[object]
    in_source: Sequence[Listed]
    in_backup: Sequence[Listed] | BackupError
    members: Members


_made: dict[str, _Made] = {}
"""What was made last, by the names of sets."""


def members_of(specs: SetSpecs) -> Members:
    """Returns what the set has now. Costs a handful of statements on each side, both sides at the same time. Raises no
    error: `errors` has it.

    While settings and catalogues stay the same, nothing else is worked out again."""
    with Workers(2) as workers:
        in_source, in_backup = workers.both(lambda: _in_source(specs), lambda: _in_backup(specs))
    if isinstance(in_source, BackupError):
        # Each table that has a copy fails with an entry of its own, and its past can be seen.
        event("set.not_listed", level=logging.WARNING, set=specs.name, error=in_source, hint=in_source.hint)
        copies = [] if isinstance(in_backup, BackupError) else _gone(specs, (), in_backup)
        return _without_source(specs.among(copies), copies, in_source)
    made = _made.get(specs.name)
    if made is not None and _are_same(made.settings, specs.made_of) and made[1:3] == (in_source, in_backup):
        members = made.members
    else:
        members = _members(specs, in_source, in_backup)
        if not (members.errors or members.may_change):  # errors are of one call: each has its traceback
            for oldest in [*_made][: max(0, len(_made) + 1 - _KEPT_AT_MOST)]:
                _made.pop(oldest, None)
            _made[specs.name] = _Made(specs.made_of, in_source, in_backup, members)
    if members.gone or members.ignored:
        gone, ignored = ", ".join(members.gone), ", ".join(members.ignored)
        event("set.tables", level=logging.WARNING, set=specs.name, gone=gone, ignored=ignored)
    return members


def _without_source(specs: SetSpecs, copies: Sequence[str], error: BackupError) -> Members:
    services, errors = dict[str, ServiceSpec](), [error]
    for name in copies:
        try:
            services[name] = specs.spec(name, None)
        except ConfigError as refused:
            errors.append(refused)
    return Members(services, errors=errors)


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return all(item is other for item, other in zip(some, others, strict=True))


def _members(specs: SetSpecs, in_source: Sequence[Listed], seen_in_backup: Sequence[Listed] | BackupError) -> Members:
    in_backup = () if isinstance(seen_in_backup, BackupError) else seen_in_backup
    chosen, errors, views = chosen_tables(specs, in_source)
    specs = specs.among(listed.name for listed in in_source)
    copy_of = {listed.name: name for listed in in_backup if (name := same_name(listed.name, chosen))}
    copied = {*copy_of.values()}
    old_names = {name: old_name for name in chosen if (old_name := _old_name(specs, name, in_backup))}
    source_names = [listed.name for listed in in_source]
    new = [name for name in chosen if not (name in copied or name in old_names or name in specs.section.patterns)]
    copies = [listed for listed in in_backup if listed.name in copy_of or listed.name in old_names.values()]
    unlisted = seen_in_backup if isinstance(seen_in_backup, BackupError) else None
    fate = fate_of(specs, chosen, new, unlisted or copies, source_names)
    services, ignored = {}, []
    kind = "container" if specs.section.is_cosmos else "table"
    idle = _idle_section(specs, [*source_names, *(listed.name for listed in in_backup)])
    for name, listed in sorted(chosen.items(), key=lambda item: (-(item[1].records or 0), item[0])):
        is_new, is_late = name not in copied, name in fate.later
        if is_late and specs.section.on_new_table == "ignore":
            ignored.append(name)
            continue
        try:
            spec = replace(specs.spec(name, listed, is_new=is_new), beginning=fate.beginning)
        except ConfigError as error:  # such as a name that nobody can type
            hint = f"{error.hint} Or leave the {kind} out by exclude in backup.toml: {quoted(_typeable(name))}.".strip()
            errors.append(ConfigError(str(error), hint=hint))
            continue
        if name in fate.undecided:
            spec = replace(spec, refused=fate.error)
        elif is_late:
            spec = replace(spec, refused=_new_table(spec.name))
        elif is_new and idle is not None and not specs.own_options(name).told_by:
            spec = replace(spec, refused=_may_be_meant(spec.name, idle))
        if name in old_names:
            is_in_source = bool(same_name(old_names[name], source_names))
            spec = _renamed(specs, spec, old_names[name], is_new=is_new, in_source=is_in_source)
        services[name] = spec
    if not services and not errors and not ignored:
        hint = "Correct tables, containers or exclude in backup.toml."
        errors.append(ConfigError(f"The set {specs.name} has no table or container: all are excluded.", hint=hint))
    gone = [name for name in _gone(specs, in_source, in_backup) if name not in old_names.values()]
    copy_keys = [key for listed in in_backup for key in listed.foreign_keys]
    return Members(services, chosen, errors, ignored, gone, copy_keys, views, may_change=fate.may_change)


def _in_source(specs: SetSpecs) -> list[Listed] | BackupError:
    try:
        return list_places(specs.side("source"), specs.limits)
    except BackupError as error:
        return error


def _in_backup(specs: SetSpecs) -> Sequence[Listed] | BackupError:
    try:
        listed = list_places(specs.side("backup"), specs.limits)
    except NotInitialized:  # the first run makes the database
        return []
    except BackupError as error:  # each service will fail with it, one by one
        event("set.not_listed", level=logging.WARNING, set=specs.name, error=error, hint=error.hint)
        return error
    return without_unbegun(specs, listed)


def chosen_tables(
    specs: SetSpecs, in_source: Sequence[Listed]
) -> tuple[dict[str, Listed], list[BackupError], list[Listed]]:
    """The tables that the patterns stand for, the patterns that stand for nothing, and the views that fit a pattern and
    are left out."""
    section, names = specs.section, NameIndex(listed.name for listed in in_source)
    by_name = {listed.name: listed for listed in in_source}
    kind = "container" if section.is_cosmos else "table"
    chosen: dict[str, Listed] = {}
    views = dict[str, None]()
    errors: list[BackupError] = []
    keyed = {name for section_name in section.sections for name in names.matching(section_name)}
    for pattern in section.patterns:
        matched = names.matching(pattern)
        if not matched:
            meant = did_you_mean(pattern, by_name)
            errors.append(
                ConfigError(
                    f"The set {specs.name} has the pattern {quoted(pattern)}, and the source has no {kind} for it."
                    f"{meant}",
                    hint="Correct it in backup.toml. All other services of the set were tried.",
                )
            )
        for name in matched:
            # A view has no key of its own, so a pattern for many tables takes it only with a section of its own.
            if not by_name[name].is_view or not is_pattern(pattern) or name in keyed:
                chosen[name] = by_name[name]
            else:
                views[name] = None
    for pattern in section.exclude:
        for name in names.matching(pattern):
            chosen.pop(name, None)
            views.pop(name, None)
    chosen_names = NameIndex(chosen)
    for name in section.sections:
        if not chosen_names.matching(name):
            errors.append(_idle(specs, name, kind, chosen, names.matching(name)))
    return chosen, errors, [by_name[name] for name in views if name not in chosen]


def _idle(specs: SetSpecs, name: str, kind: str, chosen: Collection[str], left_out: Collection[str]) -> ConfigError:
    """The mistake of a section that stands for none of the `chosen` tables. `left_out`: those of the source for which
    it stands all the same."""
    begun, section = f"backup.toml has a section for {quoted(name)} in the set {specs.name}, which", specs.section
    excluding = [pattern for pattern in section.exclude if left_out and NameIndex(left_out).matching(pattern)]
    if excluding:
        text, mend = f"{begun} leaves it out by exclude: {', '.join(map(quoted, excluding))}.", "Remove one of the two"
    elif left_out:
        text, mend = f"{begun} has no pattern for it.", f"Add it to {kind}s, or remove the section"
    else:
        text, mend = f"{begun} has no such {kind}.{did_you_mean(name, chosen)}", "Correct it"
    return ConfigError(text, hint=f"{mend} in backup.toml. All other services of the set were tried.")


def _typeable(name: str) -> str:
    """A pattern for the name that can be typed: `?` for each bracket and each character that cannot, `*` for the end of
    a long one."""
    text = "".join(character if character.isprintable() and character not in "[]" else "?" for character in name)
    return text if len(text) <= _TYPED_AT_MOST else f"{text[:_TYPED_AT_MOST]}*"


def _gone(specs: SetSpecs, in_source: Sequence[Listed], in_backup: Sequence[Listed]) -> list[str]:
    """The copies in the backup whose table the source does not have any more."""
    sources, copies = ({listed.name for listed in listing} for listing in (in_source, in_backup))
    # A file of SQLite has no schemas.
    of_others = {name.rpartition(".")[2] for name in specs.neighbours}
    of_others |= {copy for name in specs.neighbours for copy in matching(name, copies)}

    def has_source(copy: str) -> bool:
        name = same_name(copy, sources)
        return name == copy or bool(name and name not in copies)  # one that has a copy of its own is another's source

    return [
        listed.name
        for listed in in_backup
        if not has_source(listed.name)
        and listed.name.rpartition(".")[2].lower() not in OWN_NAMES
        and listed.name not in of_others
        and (specs.section.is_cosmos or any(column.name == MARK_OF_COPIES for column in listed.columns))
        and specs.takes(listed.name)
    ]


def _old_name(specs: SetSpecs, table: str, in_backup: Sequence[Listed]) -> str:
    """The name in the backup of the table from which the file says that this one was renamed; empty without one."""
    renamed_from = specs.own_options(table).options.renamed_from
    return same_name(renamed_from, [listed.name for listed in in_backup]) if renamed_from else ""


def _renamed(specs: SetSpecs, spec: ServiceSpec, old_name: str, *, is_new: bool, in_source: bool) -> ServiceSpec:
    """The service of a table that was renamed from `old_name`, of which the backup has a copy. Two names that both
    exist on one side are not a renaming: the source's tables are two then, and the backup's copies too."""
    if is_new and in_source:
        text = f"The source has {old_name} as well, so {spec.name} was not renamed from it."
        hint = "Remove renamed_from: each has a copy of its own then."
        return replace(spec, refused=ConfigError(text, hint=hint))
    if not is_new and not in_source:
        text = f"The backup has copies under both names, {old_name} and that of {spec.name}. Nothing was renamed."
        hint = "Remove renamed_from to go on with the new copy; the old one stays. Or drop one of the two."
        return replace(spec, refused=ConfigError(text, hint=hint))
    return replace(spec, renamed_from=specs.side("backup", old_name)) if is_new else spec


def _idle_section(specs: SetSpecs, tables: Collection[str]) -> str | None:
    """The name of a section that hides values and stands for none of these tables; None without one."""
    names = NameIndex(tables)
    hiding = (name for name, section in specs.section.sections.items() if section.hides)
    return next((name for name in hiding if not names.matching(name)), None)


def _may_be_meant(service: str, section: str) -> ConfigError:
    return ConfigError(
        f"{service} is new, and the section {quoted(section)} hides values of a table that is not there. It may be "
        "meant for this one, so nothing was copied.",
        hint="Correct the name of the section in backup.toml, or remove it. Tables that have a copy were tried.",
    )


def _new_table(name: str) -> ConfigError:
    return ConfigError(
        f"{name} is new in the source, and on_new_table is fail. It was not backed up.",
        hint="Run initialize to take it in, or name it in exclude.",
    )
