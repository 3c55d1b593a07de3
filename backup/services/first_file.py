"""Writes the first backup.toml for a database: what it would back up, with comments. Asks the source alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from backup.config.set_values import set_name
from backup.core.errors import ConfigError
from backup.core.log import visible
from backup.core.suggestions import quantity, quoted
from backup.runs.upgrade import OWN_NAMES
from backup.services.left_out import as_left_out, left_out_texts
from backup.services.set_specs import unique_key
from backup.stores import Limits, Listed, PassedOver
from backup.stores.sides import Side, list_passed_over, list_places

_HEAD = """\
# What is backed up, and how. docs/whole-databases.md says what else may stand here.
# `python -m backup plan` shows what a sync would do, and writes nothing.

[defaults]
recycle_days = 30                # how long the bin keeps what a sync overwrites or deletes

[set.{name}]
source = "${{{source}}}"          # environment variables: a connection string may have a password
backup = "${{{backup}}}"
"""


def first_file(
    connection_string: str, name: str, limits: Limits, *, database: str | None = None, variable: str | None = None
) -> str:
    """Returns the text of a backup.toml for the database of this connection string. `variable` is the environment
    variable that has the connection string, if there is one. `database` names the one of a Cosmos DB account.

    Raises what a store raises, and ConfigError for a connection string that cannot be read, or a name that no set has.
    """
    try:
        set_name(name)
    except ValueError as error:
        raise ConfigError(
            f"{quoted(name)} cannot be the name of the set: {error}. Nothing was written.",
            hint="Name another: init … --name shop.",
        ) from None
    side = Side(f"set {name}", "source", variable or "<SOURCE>", connection_string, database=database, of_set=True)
    places = list_places(side, limits)
    upper = name.upper().replace("-", "_")
    head = _HEAD.format(name=name, source=variable or f"{upper}_SOURCE", backup=f"{upper}_BACKUP")
    if database is not None:
        listed = ", ".join(_quoted(place.name) for place in places)
        return (
            f"{head}database = {json.dumps(database)}\nbackup_database = {json.dumps(f'{database}_backup')}\n"
            f'containers = ["*"]                # there are {listed or "none"}\n'
        )
    tables = [place for place in places if not place.is_view]
    keyless = [table for table in tables if not table.primary_key and not table.unique_keys]
    lines = [
        f'tables = ["*"]                   # {quantity(len(tables), "table")} now; later ones too, see on_new_table'
    ]
    own = [table for table in tables if table.name.rpartition(".")[2].lower() in OWN_NAMES and table not in keyless]
    if keyless or own:
        names = ", ".join(_quoted(table.name) for table in [*keyless, *own])
        why = ["without a key; name one below to back them up"] if keyless else []
        why += ["named like the app's own tables, which lie beside the copies"] if own else []
        lines.append(f"exclude = [{names}]  # {'; '.join(why)}")
    left_out = _left_out(name, list_passed_over(side, limits), [place for place in places if place.is_view])
    lines.append('on_new_table = "add"             # or "ignore", or "fail"')
    lines.append("# consistent = true              # read all tables as of one moment; see docs/whole-databases.md")
    return "\n".join([head + lines[0], *lines[1:], "", *_sections(name, tables), *left_out, ""])


def _quoted(name: str) -> str:
    """The name as a string of TOML, which takes fewer control characters than JSON does."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", r"\u007f")


def _sections(name: str, tables: Sequence[Listed]) -> list[str]:
    lines = []
    for table in tables:
        section = f"# [set.{name}.table.{_quoted(table.name)}]"
        if not table.primary_key and not table.unique_keys:
            columns = ", ".join(_quoted(column.name) for column in table.columns)
            lines += [section, f"# key = [{columns}]  # columns that no two rows share", ""]
        elif not table.primary_key:
            index, columns_of_key = unique_key(table)
            lines += [
                visible(
                    f"# {table.name} has no primary key. Its key is {', '.join(columns_of_key)}, by the index {index}."
                ),
                "",
            ]
    return lines


def _left_out(name: str, things: Sequence[PassedOver], views: Sequence[Listed]) -> list[str]:
    texts = [visible(f"# {text[0].upper()}{text[1:]}") for text in left_out_texts([*things, *map(as_left_out, views)])]
    if views:
        section = f"# [set.{name}.table.{_quoted(views[-1].name)}]"
        texts += [section, '# key = ["…"]']
    return [*texts, ""] if texts else []
