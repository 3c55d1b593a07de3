"""What the partitioned server keeps of its queries, against what it would find anew."""

from __future__ import annotations

import random
from typing import Any

from tests.emulators import query_plans
from tests.emulators.pages import Pages
from tests.emulators.physical import Physical

_QUERIES = [
    "SELECT * FROM c WHERE c.kind = @kind",
    "SELECT * FROM c WHERE c.kind = @kind ORDER BY c.n DESC",
    "SELECT VALUE COUNT(1) FROM c WHERE c.kind = @kind",
    "SELECT VALUE SUM(c.n) FROM c WHERE c.kind = @kind",
    "SELECT VALUE MAX(c.n) FROM c WHERE c.kind = @kind",
    "SELECT VALUE MIN(c.n) FROM c",
]


def test_what_was_kept_of_a_query_follows_every_write() -> None:
    chance, documents, pages = random.Random(7), Physical("r"), _pages()
    for _ in range(150):
        key, name = chance.choice("ab"), chance.choice("stuvwxyz")
        if chance.random() < 0.3 and documents.find(key, name):
            documents.remove(key, name)
        else:
            documents.put(key, {"id": name, "kind": chance.choice(["big", "small"]), "n": chance.choice([1, 2.5, "x"])})
        for query in _QUERIES if chance.random() < 0.5 else ():
            for of in (None, "a"):
                assert _asked(pages, documents, query, of) == _asked(_pages(), documents, query, of), query


def test_a_partition_that_is_gone_leaves_nothing_to_the_next_one() -> None:
    """The next one's object may lie where the first one's lay."""
    pages = _pages()
    for name in "stu":
        documents = Physical(name)
        documents.put("a", {"id": name, "kind": "big"})
        [[document], _] = _asked(pages, documents, _QUERIES[0], None)
        assert document["id"] == name
        del documents


def _pages() -> Pages:
    return Pages(lambda *_: [])


def _asked(pages: Pages, documents: Physical, query: str, key: str | None) -> tuple[list[Any], str | None]:
    return pages.page(documents, query_plans.parsed(query), {"@kind": "big"}, key, None, 100)
