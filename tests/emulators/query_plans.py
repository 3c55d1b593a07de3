"""What Azure makes of a query across partitions: whether the gateway answers it, and the plan it gives if not. No I/O.

Knows the forms of queries that the stores ask, and refuses all others, so that none is answered wrongly unnoticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PATH = r'c(?:\.\w+|\["[^"]*"\])+'
_FORM = re.compile(
    r"SELECT (?P<value>VALUE )?(?P<selected>.+?) FROM c(?: WHERE (?P<where>.+?))?"
    rf"(?: ORDER BY (?P<by>{_PATH})(?P<down> ASC| DESC)?)?"
)
_AGGREGATE = re.compile(r"(?P<name>COUNT|SUM|MIN|MAX)\((?:[^()]|\((?:[^()]|\([^()]*\))*\))+\)")
_FIELD = re.compile(rf"(?P<path>{_PATH})(?: AS (?P<name>\w+))?")
_LAST = re.compile(r'(?:\.|\[")(\w+)(?:"\])?$')
# Of what is masked: "item" is "____" there.
_OF_A_PLAN = re.compile(
    rf'SELECT c\._rid, \[\{{"_+": {_PATH}\}}\] AS orderByItems, (?P<selected>.+) AS payload FROM c WHERE (?P<where>.+)'
    rf" ORDER BY (?P<by>{_PATH})(?P<down> ASC| DESC)"
)
_AGGREGATE_OF_A_PLAN = re.compile(r'SELECT VALUE \[\{"item": (?P<selected>.+)\}\] FROM c(?P<rest>.*)')
_AGGREGATES = {"COUNT": "Count", "SUM": "Sum", "MIN": "Min", "MAX": "Max"}


class UnknownQuery(Exception):
    """A query that this module has not been taught."""


@dataclass(frozen=True)
class Form:
    """A query in its parts."""

    value: bool
    selected: str
    where: str | None
    by: str | None
    descending: bool
    is_rewritten: bool = False
    """Whether a plan made it of another: its items are to say what they are sorted by."""

    @property
    def aggregate(self) -> str | None:
        """What the SDK calls the aggregate that it selects."""
        match = _AGGREGATE.fullmatch(self.selected) if self.value else None
        return _AGGREGATES[match["name"]] if match else None

    @property
    def is_served(self) -> bool:
        """Whether the gateway answers it across partitions, one after the other."""
        return self.aggregate is None and self.by is None

    @property
    def aggregated(self) -> str:
        """The expression whose values the aggregate is of."""
        return self.selected.partition("(")[2][:-1]

    @property
    def payload(self) -> str:
        """What it selects as one value."""
        if self.selected == "*":
            return "c"
        if self.value:
            return self.selected
        fields = [_named(piece) for piece in _split(self.selected)]
        return "{" + ", ".join(f'"{name}": {path}' for name, path in fields) + "}"


def parsed(text: str) -> Form:
    """The query in its parts. Raises UnknownQuery."""
    match = _FORM.fullmatch(_masked(text))
    if match is None:
        raise UnknownQuery(text)

    form = _form(text, match)
    if form.aggregate is None and form.selected != "*":
        for piece in [form.selected] if form.value else _split(form.selected):
            if not _FIELD.fullmatch(piece):
                raise UnknownQuery(text)
    if form.aggregate is not None and form.by is not None:
        raise UnknownQuery(text)
    return form


def plan(form: Form) -> dict[str, Any]:
    """The plan, as Azure's gateway gives it, of a query that it does not answer itself."""
    where = _closed(form.where or "true")
    if form.aggregate is not None:
        rewritten = f'SELECT VALUE [{{"item": {form.selected}}}] FROM c WHERE {where}'
    elif form.by is not None:
        order = "DESC" if form.descending else "ASC"
        rewritten = (
            f'SELECT c._rid, [{{"item": {form.by}}}] AS orderByItems, {form.payload} AS payload FROM c'
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


def for_one_partition(text: str) -> tuple[Form, bool]:
    """A query for one partition in its parts, and whether its items have to be `wrapped`. Raises UnknownQuery."""
    if match := _OF_A_PLAN.fullmatch(_masked(text)):
        return replace(_form(text, match), value=True, is_rewritten=True), False
    if aggregate := _AGGREGATE_OF_A_PLAN.fullmatch(text):
        return parsed(f"SELECT VALUE {aggregate['selected']} FROM c{aggregate['rest']}"), True
    return parsed(text), False


def wrapped(items: list[Any]) -> list[Any]:
    """The answer to a rewritten aggregate; none is undefined."""
    return [[{"item": item}] for item in items] or [[{}]]


def _form(text: str, match: re.Match[str]) -> Form:
    """The parts of the text where they were found in what is masked of it."""

    def part(name: str) -> str | None:
        start, end = match.span(name) if name in match.re.groupindex else (-1, -1)
        return text[start:end] if start >= 0 else None

    value = part("value") is not None
    return Form(value, part("selected") or "", part("where"), part("by"), match["down"] == " DESC")


def _closed(condition: str) -> str:
    """The condition as part of another."""
    return f"({condition})" if " OR " in _masked(condition) else condition


def _masked(text: str) -> str:
    """The text with its quoted names made plain, so that no word of the language is found in them."""
    return _QUOTED.sub(lambda quoted: '"' + "_" * (len(quoted[0]) - 2) + '"', text)


def _split(selected: str) -> list[str]:
    masked, pieces, start = _masked(selected), [], 0
    for comma in re.finditer(", ", masked):
        pieces.append(selected[start : comma.start()])
        start = comma.end()
    return [*pieces, selected[start:]]


def _named(piece: str) -> tuple[str, str]:
    field = _FIELD.fullmatch(piece)
    last = field and (field["name"] or ((match := _LAST.search(field["path"])) and match[1]))
    if not field or not last:
        raise UnknownQuery(piece)
    return last, field["path"]
