"""Answers a query about one physical partition page by page. No I/O but for what it has to have computed elsewhere."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
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
class _Kept:
    """The documents of a query at a version of the partition, by `_rid`; and each one's value of what is aggregated."""

    version: int
    documents: dict[str, Document]
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    def follow(self, version: int, written: Collection[str], now: Mapping[str, Document]) -> None:
        """Takes in what was written; `now` has those of it that the query is about. Their values are to be set anew."""
        is_in_order = all(rid in self.documents for rid in now)
        for by_rid in (self.documents, *self.values.values()):
            for rid in written:
                if rid not in now:
                    by_rid.pop(rid, None)
        self.documents |= now
        if not is_in_order:
            self.documents = dict(sorted(self.documents.items()))
        self.version = version


@dataclass
class Pages:
    """Keeps the documents that the latest queries are about: a page costs no more than it holds, and a second aggregate
    of the same documents does not look for them again. What was written since is judged alone, as an index does it.

    A page begins behind the last document of the page before, wherever that is by then.
    """

    compute: Compute
    """For what this process has not been taught."""
    _kept: OrderedDict[tuple[Physical, str], _Kept] = field(default_factory=OrderedDict)
    """By partition and query. It holds the partition itself: another one may get the `id()` of one that is gone."""

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
        kept = self._kept_for(documents, form, parameters, key)
        matching = list(kept.documents.values())
        if form.aggregate is not None:
            if form.aggregated not in kept.values:
                computed = self.values(form.aggregated, parameters, matching)
                kept.values[form.aggregated] = dict(zip(kept.documents, computed, strict=True))
            value = aggregated(form.aggregate, list(kept.values[form.aggregated].values()))
            return ([] if value is UNDEFINED else [value]), None
        start = 0 if token is None else _start(json.loads(token), documents.version, matching, form)
        part = matching[start : start + size]
        items = [item for item in self.values(form.payload, parameters, part) if item is not UNDEFINED]
        if form.is_rewritten:
            items = [
                {"_rid": document["_rid"], "orderByItems": [{"item": _by(form)(document)}], "payload": item}
                for document, item in zip(part, items, strict=True)
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

    def _kept_for(self, documents: Physical, form: Form, parameters: Mapping[str, Any], key: str | None) -> _Kept:
        query = documents, json.dumps([key, form.where, form.by, form.descending, parameters])
        kept, version = self._kept.pop(query, None), documents.version
        if kept is None or (kept.version != version and (key is not None or form.by is not None)):
            kept = _Kept(
                version, {document["_rid"]: document for document in self._matching(documents, form, parameters, key)}
            )
        elif kept.version != version:
            written = set(documents.written[kept.version :])
            now = {document["_rid"]: document for document in self._met(form, parameters, documents.at(written))}
            kept.follow(version, written, now)
            for text, values in kept.values.items():
                values |= zip(now, self.values(text, parameters, list(now.values())), strict=True)
        self._kept[query] = kept
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return kept

    def _matching(
        self, documents: Physical, form: Form, parameters: Mapping[str, Any], key: str | None
    ) -> list[Document]:
        try:
            conditions = [] if form.where is None else conjuncts(parsed_expression(form.where, parameters))
        except UnknownExpression:
            conditions = []
        matching = self._met(form, parameters, documents.candidates(key, conditions))
        if form.by is not None:
            by = _by(form)
            matching = [document for document in matching if by(document) is not UNDEFINED]
            matching.sort(key=lambda document: order_of(by(document)), reverse=form.descending)
        return matching

    def _met(self, form: Form, parameters: Mapping[str, Any], documents: Sequence[Document]) -> list[Document]:
        """Those of the documents that meet the condition."""
        if form.where is None:
            return list(documents)
        met = self.values(form.where, parameters, documents)
        return [document for document, is_met in zip(documents, met, strict=True) if is_met is True]


def _by(form: Form) -> Callable[[Document], Any]:
    return compiled(parsed_expression(form.by or "c._rid", {}))


def _start(token: Mapping[str, Any], version: int, matching: Sequence[Document], form: Form) -> int:
    """Where the next page begins."""
    if token["version"] == version:
        return int(token["at"])
    by, last = _by(form), order_of(token["by"])

    def is_behind(document: Document) -> bool:
        place = last if form.by is None else order_of(by(document))
        if place == last:
            return bool(document["_rid"] > token["rid"])
        return (place < last) == form.descending

    return next((n for n, document in enumerate(matching) if is_behind(document)), len(matching))
