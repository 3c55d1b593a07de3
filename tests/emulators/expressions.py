"""What an expression of Cosmos DB's SQL comes to for a document, as far as it is one of those known here. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.emulators.json_values import OPERATIONS, UNDEFINED, as_number, equal

Evaluate = Callable[[Any], Any]
"""The value of an expression for one document."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)(?!\w)"
    r'|(?P<text>"(?:[^"\\]|\\.)*"|\'[^\'\\]*\')'
    r"|(?P<word>@?[A-Za-z_]\w*)"
    r"|(?P<sign><=|>=|!=|<>|[-+*/%=<>(),.\[\]{}:]))"
)
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": UNDEFINED}
_COMPARISONS = {"=", "!=", "<>", "<", "<=", ">", ">="}


class UnknownExpression(Exception):
    """An expression that this module has not been taught."""


class Node(NamedTuple):
    """A part of an expression: `path`, `value`, `object`, `list`, an operator or a function; and what it is made of."""

    kind: str
    parts: Sequence[Any]


def parsed_expression(text: str, values: Mapping[str, Any]) -> Node:
    """The expression with the parameters' values in it. Raises UnknownExpression."""
    parser = _Parser(text, values)
    node = parser.either()
    if parser.token is not None:
        raise UnknownExpression(text)
    return node


def conjuncts(node: Node) -> list[Node]:
    """The conditions that all have to hold for this one to hold."""
    return [condition for part in node.parts for condition in conjuncts(part)] if node.kind == "AND" else [node]


def compiled(node: Node) -> Evaluate:
    """Computes the node's value. Raises UnknownExpression, and so may what it returns."""
    kind = node.kind
    if kind == "value":
        return lambda _, value=node.parts[0]: value  # type: ignore[misc]
    if kind == "path":
        return _path(node.parts)
    if kind == "object":
        members = [(name, compiled(part)) for name, part in node.parts]
        return lambda document: {name: value for name, of in members if (value := of(document)) is not UNDEFINED}
    if kind == "=" and (quick := _is_text(*node.parts)) is not None:
        return quick
    parts = [compiled(part) for part in node.parts]
    if kind == "list":
        return lambda document: [value for of in parts if (value := of(document)) is not UNDEFINED]
    if kind == "IN":
        return _within(parts, node)
    operation = OPERATIONS.get((kind, len(parts)))
    if operation is None:
        raise UnknownExpression(f"{kind} of {len(parts)}")
    if len(parts) == 1:
        return lambda document, of=parts[0]: operation(of(document))  # type: ignore[misc]
    return lambda document, left=parts[0], right=parts[1]: operation(left(document), right(document))  # type: ignore[misc]


class _Parser:
    def __init__(self, text: str, values: Mapping[str, Any]) -> None:
        self._text, self._values, self._at = text, values, 0
        self.token: str | None = None
        self._kind = ""
        self._next()

    def _next(self) -> str:
        token, rest = self.token or "", self._text[self._at :]
        match = _TOKEN.match(self._text, self._at)
        if match is None and rest.strip():
            raise UnknownExpression(rest)
        self._kind = (match and match.lastgroup) or ""
        self.token = match[self._kind] if match else None
        self._at = match.end() if match else len(self._text)
        return token

    def _takes(self, *tokens: str) -> str | None:
        if self.token is not None and self._kind != "text" and self.token.upper() in tokens:
            return self._next().upper()
        return None

    def _needs(self, token: str) -> None:
        if not self._takes(token):
            raise UnknownExpression(self._text)

    def either(self) -> Node:
        node = self._all()
        while self._takes("OR"):
            node = Node("OR", [node, self._all()])
        return node

    def _all(self) -> Node:
        node = self._denied()
        while self._takes("AND"):
            node = Node("AND", [node, self._denied()])
        return node

    def _denied(self) -> Node:
        if not self._takes("NOT"):
            return self._compared()
        denied = Node("NOT", [self._primary()])
        if self.token in _COMPARISONS:  # engines differ in what is denied then
            raise UnknownExpression(self._text)
        return denied

    def _compared(self) -> Node:
        node = self._sum()
        if comparison := self._takes(*_COMPARISONS):
            return Node("!=" if comparison == "<>" else comparison, [node, self._sum()])
        if self._takes("IN"):
            self._needs("(")
            return Node("IN", [node, *self._items(")")])
        return node

    def _sum(self) -> Node:
        node = self._product()
        while sign := self._takes("+", "-"):
            node = Node(sign, [node, self._product()])
        return node

    def _product(self) -> Node:
        node = self._primary()
        while sign := self._takes("*", "/", "%"):
            node = Node(sign, [node, self._primary()])
        return node

    def _primary(self) -> Node:
        if self._takes("("):
            node = self.either()
            self._needs(")")
            return node
        if self._takes("-"):
            return Node("-", [Node("value", [0]), self._primary()])
        if self._takes("["):
            return Node("list", self._items("]"))
        if self._takes("{"):
            return self._object()
        kind, token = self._kind, self._next()
        if kind == "number":
            return Node("value", [as_number(float(token))])
        if kind == "text":
            return Node("value", [_text(token)])
        if kind != "word":
            raise UnknownExpression(self._text)
        if token.startswith("@"):
            return Node("value", [self._values.get(token, UNDEFINED)])
        if token in _CONSTANTS:
            return Node("value", [_CONSTANTS[token]])
        if self._takes("("):
            return Node(token.upper(), self._items(")"))
        if token != "c":
            raise UnknownExpression(self._text)
        return Node("path", self._names())

    def _names(self) -> list[str]:
        names = []
        while sign := self._takes(".", "["):
            if self._kind != ("word" if sign == "." else "text"):
                raise UnknownExpression(self._text)
            name = self._next()
            names.append(name if sign == "." else _text(name))
            if sign == "[":
                self._needs("]")
        return names

    def _items(self, end: str) -> list[Node]:
        items = [self.either()]
        while self._takes(","):
            items.append(self.either())
        self._needs(end)
        return items

    def _object(self) -> Node:
        members = []
        while True:
            if self._kind != "text":
                raise UnknownExpression(self._text)
            name = _text(self._next())
            self._needs(":")
            members.append((name, self.either()))
            if not self._takes(","):
                self._needs("}")
                return Node("object", members)


def _text(token: str) -> str:
    return str(json.loads(token)) if token[0] == '"' else token[1:-1]


def _path(names: Sequence[str]) -> Evaluate:
    if not names:
        return lambda document: document
    if len(names) == 1:
        return lambda document, name=names[0]: document.get(name, UNDEFINED)  # type: ignore[misc]

    def value_at(document: Any) -> Any:
        for name in names:
            if not isinstance(document, dict):
                return UNDEFINED
            document = document.get(name, UNDEFINED)
        return document

    return value_at


def _is_text(left: Node, right: Node) -> Evaluate | None:
    """Whether a property is a text, which most conditions ask of every document; None if it is not that."""
    if left.kind != "path" or len(left.parts) != 1 or right.kind != "value" or type(right.parts[0]) is not str:
        return None
    name, text = left.parts[0], right.parts[0]

    def is_text(document: Any) -> Any:
        value = document.get(name, UNDEFINED)
        return UNDEFINED if value is UNDEFINED else value == text

    return is_text


def _within(parts: Sequence[Evaluate], node: Node) -> Evaluate:
    of, *others = parts
    if all(part.kind == "value" and isinstance(part.parts[0], str) for part in node.parts[1:]):
        texts = {part.parts[0] for part in node.parts[1:]}
        return lambda document: isinstance(value := of(document), str) and value in texts

    if any(part.kind != "value" or isinstance(part.parts[0], list | dict) for part in node.parts[1:]):
        raise UnknownExpression("IN of what is no plain value")

    def is_within(document: Any) -> bool:
        value = of(document)
        return any(equal(value, other(document)) is True for other in others)

    return is_within
