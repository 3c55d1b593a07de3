"""What Azure makes of a query across partitions: whether the gateway answers it, and the plan it gives if not. No I/O.

Knows the forms of queries that the stores ask, and refuses all others, so that none is answered wrongly unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PATH = r'c(?:\.\w+|\["[^"]*"\])+'
_FORM = re.compile(
    r"SELECT (?P<value>VALUE )?(?P<what>.+?) FROM c(?: WHERE (?P<where>.+?))?"
    rf"(?: ORDER BY (?P<by>{_PATH})(?P<down> ASC| DESC)?)?"
)
_AGGREGATE = re.compile(r"(?P<name>COUNT|SUM|MIN|MAX)\([^()]+(?:\([^()]*\)[^()]*)*\)")
_FIELD = re.compile(rf"(?P<path>{_PATH})(?: AS (?P<name>\w+))?")
_LAST = re.compile(r'(?:\.|\[")(\w+)(?:"\])?$')
_IN = re.compile(rf"({_PATH}) IN \((@\w+(?:, @\w+)*)\)")
_OF_A_PLAN = "SELECT c._rid, [{"
_AGGREGATE_OF_A_PLAN = re.compile(r'SELECT VALUE \[\{"item": (?P<what>.+)\}\] FROM c(?P<rest>.*)')
_AGGREGATES = {"COUNT": "Count", "SUM": "Sum", "MIN": "Min", "MAX": "Max"}


class UnknownQuery(Exception):
    """A query that this module has not been taught."""


@dataclass(frozen=True)
class Form:
    """A query in its parts."""

    value: bool
    what: str
    where: str | None
    by: str | None
    descending: bool

    @property
    def aggregate(self) -> str | None:
        """What the SDK calls the aggregate that it selects."""
        found = _AGGREGATE.fullmatch(self.what) if self.value else None
        return _AGGREGATES[found["name"]] if found else None

    @property
    def is_served(self) -> bool:
        """Whether the gateway answers it across partitions, one after the other."""
        return self.aggregate is None and self.by is None

    def text(self, condition: str | None = None) -> str:
        """The query for one partition, of what meets the condition too. In some order, which pages need."""
        conditions = [one for one in (condition, self.where) if one is not None]
        where = f" WHERE {' AND '.join(map(_closed, conditions))}" if conditions else ""
        by = f" ORDER BY {self.by or 'c._rid'}{' DESC' if self.descending else ''}" if self.aggregate is None else ""
        return f"SELECT {'VALUE ' if self.value else ''}{self.what} FROM c{where}{by}"

    @property
    def payload(self) -> str:
        """What it selects as one value."""
        if self.what == "*":
            return "c"
        if self.value:
            return self.what
        fields = [_named(piece) for piece in _split(self.what)]
        return "{" + ", ".join(f'"{name}": {path}' for name, path in fields) + "}"


def parsed(text: str) -> Form:
    """The query in its parts. Raises UnknownQuery."""
    found = _FORM.fullmatch(_masked(text))
    if found is None:
        raise UnknownQuery(text)

    def part(name: str) -> str | None:
        start, end = found.span(name)
        return text[start:end] if start >= 0 else None

    form = Form(found["value"] is not None, part("what") or "", part("where"), part("by"), found["down"] == " DESC")
    if form.aggregate is None and form.what != "*":
        for piece in [form.what] if form.value else _split(form.what):
            if not _FIELD.fullmatch(piece):
                raise UnknownQuery(text)
    if form.aggregate is not None and form.by is not None:
        raise UnknownQuery(text)
    return form


def plan(form: Form) -> dict[str, Any]:
    """The plan, as Azure's gateway gives it, of a query that it does not answer itself."""
    where = _closed(form.where or "true")
    if form.aggregate is not None:
        rewritten = f'SELECT VALUE [{{"item": {form.what}}}] FROM c WHERE {where}'
    elif form.by is not None:
        order = "DESC" if form.descending else "ASC"
        rewritten = (
            f'{_OF_A_PLAN}"item": {form.by}}}] AS orderByItems, {form.payload} AS payload FROM c'
            f" WHERE {where} AND ({{documentdb-formattableorderbyquery-filter}}) ORDER BY {form.by} {order}"
        )
    else:
        rewritten = ""
    return {
        "partitionedQueryExecutionInfoVersion": 2,
        "queryInfo": {
            "distinctType": "None",
            "top": None,
            "offset": None,
            "limit": None,
            "orderBy": [] if form.by is None else ["Descending" if form.descending else "Ascending"],
            "orderByExpressions": [] if form.by is None else [form.by],
            "groupByExpressions": [],
            "groupByAliases": [],
            "aggregates": [] if form.aggregate is None else [form.aggregate],
            "groupByAliasToAggregateType": {},
            "rewrittenQuery": rewritten,
            "hasSelectValue": form.value,
            "hasNonStreamingOrderBy": False,
        },
        "queryRanges": [{"min": "", "max": "FF", "isMinInclusive": True, "isMaxInclusive": False}],
    }


def for_one_partition(text: str) -> tuple[str, bool]:
    """A query for one partition as the npm server can run it, and whether each of its items has to be `wrapped`.

    Raises UnknownQuery.
    """
    if text.startswith(_OF_A_PLAN):
        return text, False
    if found := _AGGREGATE_OF_A_PLAN.fullmatch(text):
        return f"SELECT VALUE {found['what']} FROM c{found['rest']}", True
    return parsed(text).text(), False


def shortened(text: str, parameters: Sequence[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    """The query and its parameters with each list of an IN as one parameter.

    The npm server takes in a long list in a third of a second, once for each that it has not seen yet.
    """
    values = {one["name"]: one["value"] for one in parameters}

    def one_list(found: re.Match[str]) -> str:
        name = f"@list{len(values)}"
        values[name] = [values[one] for one in found[2].split(", ")]
        return f"ARRAY_CONTAINS({name}, {found[1]})"

    text = _IN.sub(one_list, text)
    return text, [{"name": name, "value": value} for name, value in values.items()]


def wrapped(items: list[Any]) -> list[Any]:
    """The answer to a rewritten aggregate; none is undefined."""
    return [[{"item": item}] for item in items] or [[{}]]


def _closed(condition: str) -> str:
    """The condition as part of another; in brackets only where it needs them, for they cost the npm server time."""
    return f"({condition})" if " OR " in _masked(condition) else condition


def _masked(text: str) -> str:
    """The text with its quoted names made plain, so that no word of the language is found in them."""
    return _QUOTED.sub(lambda quoted: '"' + "_" * (len(quoted[0]) - 2) + '"', text)


def _split(what: str) -> list[str]:
    masked, pieces, start = _masked(what), [], 0
    for comma in re.finditer(", ", masked):
        pieces.append(what[start : comma.start()])
        start = comma.end()
    return [*pieces, what[start:]]


def _named(piece: str) -> tuple[str, str]:
    field = _FIELD.fullmatch(piece)
    last = field and (field["name"] or ((found := _LAST.search(field["path"])) and found[1]))
    if not field or not last:
        raise UnknownQuery(piece)
    return last, field["path"]
