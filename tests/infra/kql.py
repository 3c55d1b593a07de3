"""Evaluates the part of Kusto's language that the queries of infra/ use, on rows in memory. Refuses all else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Row = Mapping[str, Any]

_TOKENS = re.compile(
    r"""\s*(?:(?P<text>"(?:\\.|[^"\\])*")|(?P<span>\d+[dhms]\b)|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<sign>==|!=|>=|<=|[()=,.<>/-]))"""
)
_SPANS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_UNITS: Mapping[str, Callable[[Any], Any]] = {"tostring": str, "tolong": int, "toreal": float}


def rows_of(query: str, tables: Mapping[str, Sequence[Row]], now: datetime) -> list[dict[str, Any]]:
    """The rows of the query over these tables. Raises ValueError for what it does not know, KeyError for an unknown
    table or column: the server refuses these too."""
    lines = [line for line in query.splitlines() if line.strip() and not line.lstrip().startswith("//")]
    table, *steps = [part.strip() for part in " ".join(lines).split("| ")]
    rows = [dict(row) for row in tables[table]]
    for step in steps:
        operator, _, rest = step.partition(" ")
        rows = _Step(rest, now).applied(operator, rows)
    return rows


@dataclass
class _Named:
    name: str | None
    value: Callable[[Row], Any]
    function: str = ""


class _Step:
    """One step of a query: its tokens, read from left to right."""

    def __init__(self, text: str, now: datetime) -> None:
        self._now, self._tokens, place = now, list[tuple[str, str]](), 0
        while place < len(text.rstrip()):
            match = _TOKENS.match(text, place)
            if match is None:
                raise ValueError(f"Not read: {text[place:]}")
            self._tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
            place = match.end()

    def applied(self, operator: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if operator == "where":
            keeps = self._expression()
            chosen = [row for row in rows if keeps(row) is True]
        elif operator == "extend":
            columns = self._list()  # a later one may not use an earlier one of the same step
            chosen = [{**row, **{str(column.name): column.value(row) for column in columns}} for row in rows]
        elif operator == "project":
            columns = self._list()
            chosen = [{str(column.name): column.value(row) for column in columns} for row in rows]
        elif operator == "summarize":
            chosen = self._summarized(rows)
        elif operator == "order":
            self._take("by")
            by = self._take_name()
            descending = self._take_name() == "desc"
            chosen = sorted(rows, key=lambda row: row[by], reverse=descending)
        else:
            raise ValueError(f"Unknown operator {operator}")
        if self._tokens:
            raise ValueError(f"Left over: {self._tokens}")
        return chosen

    def _summarized(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sums = self._list()
        by = self._list() if self._accept("by") else []
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {} if by else {(): rows}
        for row in rows if by else []:
            groups.setdefault(tuple(column.value(row) for column in by), []).append(row)
        return [
            {
                **{str(column.name): part for column, part in zip(by, key, strict=True)},
                **{str(column.name): _AGGREGATES[column.function](map(column.value, group)) for column in sums},
            }
            for key, group in groups.items()
        ]

    def _list(self) -> list[_Named]:
        columns = [self._named()]
        while self._accept(","):
            columns.append(self._named())
        return columns

    def _named(self) -> _Named:
        name = None
        if len(self._tokens) > 1 and self._tokens[1] == ("sign", "=") and self._tokens[0][0] == "name":
            name = self._take_name()
            self._take("=")
        elif self._tokens[0][0] == "name" and (len(self._tokens) < 2 or self._tokens[1][1] in (",", "by")):
            name = self._tokens[0][1]
        function = self._tokens[0][1]
        if function in _AGGREGATES and self._tokens[1][1] == "(":
            self._take(function)
            self._take("(")
            value = (lambda _: 1) if self._next() == ")" else self._expression()
            self._take(")")
            return _Named(name, value, function)
        return _Named(name, self._expression())

    # --- expressions, weakest operator first --------------------------------------------------------------------------

    def _expression(self) -> Callable[[Row], Any]:
        left = self._all()
        while self._accept("or"):
            left = _either(left, self._all())
        return left

    def _all(self) -> Callable[[Row], Any]:
        left = self._comparison()
        while self._accept("and"):
            left = _both(left, self._comparison())
        return left

    def _comparison(self) -> Callable[[Row], Any]:
        left, sign = self._sum(), self._next()
        if sign in _COMPARISONS:
            self._take(sign)
            return _compared(_COMPARISONS[sign], left, self._sum())
        if sign == "in":
            self._take("in")
            self._take("(")
            values = [self._sum()]
            while self._accept(","):
                values.append(self._sum())
            self._take(")")
            return lambda row: left(row) in [value(row) for value in values]
        return left

    def _sum(self) -> Callable[[Row], Any]:
        left = self._atom()
        while (sign := self._next()) in ("-", "/"):
            self._take(sign)
            left = _minus(left, self._atom()) if sign == "-" else _divided(left, self._atom())
        return left

    def _atom(self) -> Callable[[Row], Any]:
        if self._accept("("):
            inside = self._expression()
            self._take(")")
            return inside
        kind, text = self._tokens.pop(0)
        if kind == "text":
            constant = json.loads(text)
            return lambda _: constant
        if kind == "span":
            span = timedelta(seconds=int(text[:-1]) * _SPANS[text[-1]])
            return lambda _: span
        if kind == "number":
            number = float(text) if "." in text else int(text)
            return lambda _: number
        if kind != "name":
            raise ValueError(f"Unexpected {text}")
        if self._next() == "(":
            return self._call(text)
        path = [text]
        while self._accept("."):
            path.append(self._take_name())
        return lambda row: _in(row, path)

    def _call(self, name: str) -> Callable[[Row], Any]:
        self._take("(")
        arguments = [] if self._next() == ")" else [self._expression()]
        while self._accept(","):
            arguments.append(self._expression())
        self._take(")")
        first: Callable[[Row], Any] = arguments[0] if arguments else _nothing
        if name == "now":
            return lambda _: self._now
        if name == "ago":
            return lambda row: self._now - first(row)
        if name == "parse_json":
            return lambda row: _json(first(row))
        if name == "isnotnull":
            return lambda row: first(row) is not None
        if name == "bin":
            return lambda row: _floor(first(row), arguments[1](row))
        if name in _UNITS:
            return lambda row: _converted(name, first(row))
        if name == "iff":
            return lambda row: arguments[1 if first(row) else 2](row)
        if name == "extract":  # pattern, group, text; empty where nothing fits
            return lambda row: _extracted(*(argument(row) for argument in arguments))
        raise ValueError(f"Unknown function {name}")

    def _next(self) -> str:
        return self._tokens[0][1] if self._tokens else ""

    def _accept(self, text: str) -> bool:
        if self._next() == text and self._tokens[0][0] != "text":
            self._tokens.pop(0)
            return True
        return False

    def _take(self, text: str) -> None:
        if not self._accept(text):
            raise ValueError(f"{text} is missing before {self._tokens}")

    def _take_name(self) -> str:
        kind, text = self._tokens.pop(0)
        if kind != "name":
            raise ValueError(f"A name is missing before {text}")
        return text


_AGGREGATES: Mapping[str, Callable[[Any], Any]] = {
    "count": lambda values: len(list(values)),
    "sum": lambda values: sum(value for value in values if value is not None),
    "max": lambda values: max(value for value in values if value is not None),
    "avg": lambda values: (lambda kept: sum(kept) / len(kept))([value for value in values if value is not None]),
}
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "startswith": lambda left, right: left.lower().startswith(right.lower()),
}


def _compared(
    compare: Callable[[Any, Any], Any], left: Callable[[Row], Any], right: Callable[[Row], Any]
) -> Callable[[Row], Any]:
    return lambda row: compare(left(row), right(row))


def _either(left: Callable[[Row], Any], right: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: left(row) or right(row)


def _both(left: Callable[[Row], Any], right: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: left(row) and right(row)


def _minus(left: Callable[[Row], Any], right: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: left(row) - right(row)


def _divided(left: Callable[[Row], Any], right: Callable[[Row], Any]) -> Callable[[Row], Any]:
    return lambda row: left(row) / right(row)


def _nothing(_: Row) -> Any:
    return None


def _in(row: Row, path: Sequence[str]) -> Any:
    value: Any = row[path[0]]
    for part in path[1:]:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _extracted(pattern: str, group: int, text: str) -> str:
    match = re.search(pattern, text)
    return match[group] if match else ""


def _floor(value: datetime, span: timedelta) -> datetime:
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return start + (value - start) // span * span


def _converted(name: str, value: Any) -> Any:
    """As Kusto does: nothing becomes an empty text, or no number; a truth becomes a small word."""
    if value is None:
        return "" if name == "tostring" else None
    if isinstance(value, bool) and name == "tostring":
        return str(value).lower()
    return _UNITS[name](value)
