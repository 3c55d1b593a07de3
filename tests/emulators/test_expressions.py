"""What this project computes of queries is what the npm server's engine computes, whatever documents hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.emulators.json_values import UNDEFINED
from tests.emulators.pages import Pages
from tests.emulators.partitioned import Partitioned
from tests.emulators.physical import Physical
from tests.emulators.query_plans import parsed

ODD: list[Any] = [
    *(
        UNDEFINED,
        None,
        True,
        False,
        0,
        1,
        -7,
        1.5,
        70_000,
        -70_001,
        1 << 53,
        1e300,
        "",
        "a",
        "A",
        "1",
        "true",
        "é",
        "ab",
    ),
    *(
        "\ud7ff",
        "\ue000",
        "\U0001f600",
        "\uffff",
        "it's",
        "null",
        [],
        [1],
        [True],
        ["a", None],
        {},
        {"x": 1},
        {"x": True},
    ),
    *({"x": None}, {"x": {"x": "a"}}, {"x": ["a"], "y": 2}, {"y": 2, "x": ["a"]}),
]
DOCUMENTS = [{"id": f"{n}", **({} if value is UNDEFINED else {"p": value})} for n, value in enumerate(ODD)]
PATHS = ["c.p", 'c["p"]["x"]', 'c["p"].x["x"]', "c.nothing"]
OPERATORS = ["=", "!=", "<", "<=", ">", ">="]
EXPRESSIONS = [
    *(f"{path} {operator} @v" for path in PATHS for operator in OPERATORS),
    *(f"c.p {operator} @v {word} c.id > @w" for operator in OPERATORS for word in ("AND", "OR")),
    *(
        "NOT (c.p > @v OR c.p.x = @v)",
        "c.p IN (@v, @w)",
        "c.p IN (@w, 1, 'a', true)",
        "IS_DEFINED(c.p.x)",
    ),
    *("NOT IS_DEFINED(c.p)", "c.p % 65536", "FLOOR(c.p / 65536)", "(c.p + 3) % 7 - 1", "c.p * 70000", "c.p", "c"),
    *("@v", '{"a": c.p, "b": [c.p.x, c.id]}'),
]


@pytest.fixture(scope="module")
def partitioned(plain_cosmos_server: str) -> Partitioned:
    """It asks the npm server, and nobody asks it."""
    return Partitioned(plain_cosmos_server)


def shown(values: Any) -> Any:
    """Values that differ from each other where JSON's do: true is not 1."""
    return [json.dumps(None if value is UNDEFINED else [value], sort_keys=True) for value in values]


def refused(*_: Any) -> list[Any]:
    raise AssertionError("it should have been computed here")


def test_expressions_come_to_what_the_npm_server_says(partitioned: Partitioned) -> None:
    pages, different = Pages(refused), []
    for n, expression in enumerate(EXPRESSIONS):
        for value in ODD[n % 3 or 3 :: 3]:
            if isinstance(value, list | dict) and " IN " in expression:
                continue  # the npm server takes equal ones for different
            parameters = {"@v": value, "@w": "2"}
            own = shown(pages.values(expression, parameters, DOCUMENTS))
            npm = shown(partitioned.computed(expression, parameters, DOCUMENTS))
            different += [(expression, value, *pair) for pair in zip(own, npm, strict=True) if pair[0] != pair[1]]
    assert not different


def test_what_is_not_known_here_is_computed_by_the_npm_server(partitioned: Partitioned) -> None:
    pages = Pages(partitioned.computed)
    for expression, value in (
        ("UPPER(c.p)", "A"),
        ("c.p ?? 3", "a"),
        ("STARTSWITH(c.p, 'a')", True),
        ("1 % 0 = 1", False),
    ):
        assert pages.values(expression, {}, [{"id": "1", "p": "a"}]) == [value], expression


def documents_of(values: list[Any]) -> Physical:
    documents = Physical("r")
    for n, value in enumerate(values):
        documents.put(f"{n % 2}", {"id": f"{n:03}", **({} if value is UNDEFINED else {"p": value})})
    return documents


def read(documents: Physical, text: str, key: str | None = None, **parameters: Any) -> list[Any]:
    pages, items, token = Pages(refused), list[Any](), None
    while True:
        named = {f"@{name}": value for name, value in parameters.items()}
        page, token = pages.page(documents, parsed(text), named, key, token, 3)
        items += page
        if token is None:
            return items


def test_documents_are_sorted_by_type_and_then_by_utf_16(partitioned: Partitioned) -> None:
    documents = documents_of([value for value in ODD if not isinstance(value, list | dict)][::-1])
    every = documents.candidates(None, ())
    for direction in ("", " DESC"):
        asked = json.dumps({"query": f"SELECT VALUE c.p FROM c ORDER BY c.p{direction}", "documents": every})
        assert shown(read(documents, f"SELECT VALUE c.p FROM c ORDER BY c.p{direction}")) == shown(
            partitioned.engine(asked.encode())
        )


def test_an_index_leaves_out_nothing(partitioned: Partitioned) -> None:
    names = sorted({value for value in ODD if isinstance(value, str) and value})
    documents = Physical("r")
    for n, name in enumerate([*names, *names[::2], *names[1::3]]):
        documents.put(f"{n % 3}", {"id": name, "n": n})
    for name in names[::4]:
        for key in "012":
            if documents.find(key, name):
                documents.remove(key, name)
    every = documents.candidates(None, ())
    seconds = every[0]["_ts"]
    conditions = [f"c.id {operator} @v" for operator in OPERATORS]
    conditions += ["c.id > @w AND c.id <= @v", "c.id IN (@v, @w)", "c._ts >= @s AND c.id = @v", "c._ts >= @t"]
    for condition in conditions:
        for n, value in enumerate(names):
            values = {"v": value, "w": names[n // 2], "s": seconds, "t": seconds + 1}
            named = {f"@{name}": given for name, given in values.items()}
            met = partitioned.computed(condition, named, every) if n % 5 == 0 else None
            rids = read(documents, f"SELECT VALUE c._rid FROM c WHERE {condition}", **values)
            scanned = Pages(refused).values(condition, named, every) if met is None else met
            assert rids == [document["_rid"] for document, is_met in zip(every, scanned, strict=True) if is_met is True]


def test_a_page_begins_behind_the_last_document_of_the_page_before() -> None:
    for text, expected in (
        ("SELECT VALUE c.id FROM c", ["000", "001", "002", "004", "005", "006"]),
        ("SELECT VALUE c.id FROM c ORDER BY c.p DESC", ["005", "004", "003", "000"]),
    ):
        documents, pages = documents_of([1, 2, 3, 4, 5, 6]), Pages(refused)
        first, token = pages.page(documents, parsed(text), {}, None, None, 3)
        documents.remove("1", "003" if "ORDER" not in text else "001")
        documents.put("0", {"id": "006", "p": 9})
        documents.put("0", {"id": "002", "p": 7})
        rest = []
        while token is not None:
            page, token = pages.page(documents, parsed(text), {}, None, token, 2)
            rest += page
        assert [*first, *rest] == expected
