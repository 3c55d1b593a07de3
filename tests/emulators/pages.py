"""Answers a query about one physical partition page by page. No I/O but for what it has to have computed elsewhere."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.emulators.expressions import UnknownExpression, compiled, conjuncts, parsed_expression
from tests.emulators.json_values import UNDEFINED, UnknownValue, aggregated, order_of
from tests.emulators.physical import Document, Physical
from tests.emulators.query_plans import Form

_KEPT = 64

Compute = Callable[[str, Mapping[str, Any], Sequence[Document]], list[Any]]
"""Computes an expression with parameters for each of the documents."""


@dataclass
class Pages:
    """Keeps the documents that the latest queries are about: a page costs no more than it holds, and a second aggregate
    of the same documents does not look for them again.

    A page begins behind the last document of the page before, wherever that is by then.
    """

    compute: Compute
    """For what this process has not been taught."""
    _kept: OrderedDict[str, tuple[int, list[Document]]] = field(default_factory=OrderedDict)

    def page(
        self,
        documents: Physical,
        form: Form,
        parameters: Mapping[str, Any],
        key: str | None,
        token: str | None,
        size: int,
    ) -> tuple[list[Any], str | None]:
        """Up to `size` items, of one partition key if named, and the token of the next page."""
        matching = self._kept_matching(documents, form, parameters, key)
        if form.aggregate is not None:
            value = aggregated(form.aggregate, self.values(form.aggregated, parameters, matching))
            return ([] if value is UNDEFINED else [value]), None
        start = 0 if token is None else _start(json.loads(token), documents.version, matching, form)
        part = matching[start : start + size]
        items = [item for item in self.values(form.payload, parameters, part) if item is not UNDEFINED]
        if form.is_rewritten:
            items = [
                {"_rid": one["_rid"], "orderByItems": [{"item": _by(form)(one)}], "payload": item}
                for one, item in zip(part, items, strict=True)
            ]
        end = start + len(part)
        if end == len(matching):
            return items, None
        last = {"rid": part[-1]["_rid"], "by": None if form.by is None else _by(form)(part[-1])}
        return items, json.dumps({"at": end, "version": documents.version, **last})

    def values(self, text: str, parameters: Mapping[str, Any], documents: Sequence[Document]) -> list[Any]:
        """The expression's value for each document."""
        try:
            evaluate = compiled(parsed_expression(text, parameters))
            return [evaluate(document) for document in documents]
        except (UnknownExpression, UnknownValue):
            return self.compute(text, parameters, documents)

    def _kept_matching(
        self, documents: Physical, form: Form, parameters: Mapping[str, Any], key: str | None
    ) -> list[Document]:
        query = json.dumps([id(documents), key, form.where, form.by, form.descending, parameters])
        version, matching = self._kept.pop(query, (-1, []))
        if version != documents.version:
            matching = self._matching(documents, form, parameters, key)
        self._kept[query] = documents.version, matching
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return matching

    def _matching(
        self, documents: Physical, form: Form, parameters: Mapping[str, Any], key: str | None
    ) -> list[Document]:
        if form.where is None:
            matching = documents.candidates(key, ())
        else:
            try:
                conditions = conjuncts(parsed_expression(form.where, parameters))
            except UnknownExpression:
                conditions = []
            candidates = documents.candidates(key, conditions)
            met = self.values(form.where, parameters, candidates)
            matching = [one for one, is_met in zip(candidates, met, strict=True) if is_met is True]
        if form.by is not None:
            by = _by(form)
            matching = [one for one in matching if by(one) is not UNDEFINED]
            matching.sort(key=lambda one: order_of(by(one)), reverse=form.descending)
        return matching


def _by(form: Form) -> Callable[[Document], Any]:
    return compiled(parsed_expression(form.by or "c._rid", {}))


def _start(token: Mapping[str, Any], version: int, matching: Sequence[Document], form: Form) -> int:
    """Where the next page begins."""
    if token["version"] == version:
        return int(token["at"])
    by, last = _by(form), order_of(token["by"])

    def is_behind(one: Document) -> bool:
        place = last if form.by is None else order_of(by(one))
        if place == last:
            return bool(one["_rid"] > token["rid"])
        return (place < last) == form.descending

    return next((n for n, one in enumerate(matching) if is_behind(one)), len(matching))
