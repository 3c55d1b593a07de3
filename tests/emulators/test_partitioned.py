"""The account with several physical partitions answers the real SDK as Azure does."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.cosmos import ContainerProxy, DatabaseProxy, PartitionKey
from azure.cosmos.exceptions import (
    CosmosBatchOperationError,
    CosmosHttpResponseError,
    CosmosResourceExistsError,
    CosmosResourceNotFoundError,
)
from azure.cosmos.partition_key import NonePartitionKeyValue

from tests.emulators.clients import cosmos_client
from tests.emulators.partitioned import Partitioned
from tests.emulators.query_plans import UnknownQuery, parsed

KEYS = [None, "", "a", "1", "it's", "grüße", 0, 1, 1.5, -7, True, False, *(f"customer-{n}" for n in range(12))]
DOCUMENTS = [
    {"id": f"{m:02}-{n}", "of": {"key": key}, "n": m * 2 + n, "group": n}
    for m, key in enumerate(KEYS)
    for n in range(2)
]
ACROSS = {"enable_cross_partition_query": True}


@pytest.fixture(scope="module")
def account(plain_cosmos_server: str) -> Iterator[Partitioned]:
    with Partitioned(plain_cosmos_server).running() as made:
        yield made


@pytest.fixture(scope="module")
def database(account: Partitioned) -> Iterator[DatabaseProxy]:
    with cosmos_client(account.account) as client:
        made = client.create_database(f"test-{uuid.uuid4()}")
        yield made
        client.delete_database(made.id)


@pytest.fixture
def partitioned(account: Partitioned) -> Partitioned:
    """The account as if nobody had asked anything yet."""
    account.page_size, account.batches = 100, True
    account.requests.clear()
    account.operations.clear()
    return account


@pytest.fixture(scope="module")
def filled(database: DatabaseProxy) -> ContainerProxy:
    """With the documents, and one whose key is undefined; for reading alone."""
    made = database.create_container("filled", PartitionKey("/of/key"))
    for n in range(0, len(DOCUMENTS), 2):
        pair = DOCUMENTS[n : n + 2]
        made.execute_item_batch([("upsert", (document,)) for document in pair], partition_key=pair[0]["of"]["key"])  # type: ignore[index]
    loose = {"id": "loose", "n": -1, "group": 2}
    made.execute_item_batch([("create", (loose,))], partition_key=NonePartitionKeyValue)
    return made


@pytest.fixture
def container(database: DatabaseProxy, partitioned: Partitioned) -> ContainerProxy:
    """With two documents of one key; to be changed."""
    made = database.create_container(f"things-{uuid.uuid4()}", PartitionKey("/of/key"))
    made.execute_item_batch([("upsert", (thing(name),)) for name in ("1", "2")], partition_key="a")
    partitioned.requests.clear()
    partitioned.operations.clear()
    return made


def thing(name: str, key: Any = "a", **more: Any) -> dict[str, Any]:
    return {"id": name, "of": {"key": key}, **more}


def asked(container: ContainerProxy, text: str, **options: Any) -> list[Any]:
    parameters = [{"name": f"@{name}", "value": value} for name, value in options.pop("values", {}).items()]
    return list(container.query_items(text, parameters=parameters, **options))


def ids(items: Any) -> list[str]:
    return sorted(item["id"] for item in items)


EVERY_ID = sorted([*(str(document["id"]) for document in DOCUMENTS), "loose"])


# --- containers and documents -----------------------------------------------------------------------------------------


def test_a_container_looks_like_one(database: DatabaseProxy, partitioned: Partitioned) -> None:
    made = database.create_container("things", PartitionKey("/of/key"))
    assert made.read()["partitionKey"]["paths"] == ["/of/key"]
    assert "things" in (names := [properties["id"] for properties in database.list_containers()])
    assert not [name for name in names if "~" in name]
    with pytest.raises(CosmosResourceExistsError):
        database.create_container("things", PartitionKey("/of/key"))
    made.create_item({"id": "1", "of": {"key": "a"}})
    database.delete_container("things")
    with pytest.raises(CosmosResourceNotFoundError):
        made.read()
    again = database.create_container("things", PartitionKey("/other"))
    assert list(again.read_all_items()) == []
    # The first proxy has kept what it knew of the container that is gone.
    made.create_item({"id": "1", "other": "a"})
    assert again.read_item("1", "a")["other"] == "a"


def test_documents_are_found_by_key_and_id(filled: ContainerProxy) -> None:
    for document in DOCUMENTS:
        key: Any = document["of"]["key"]  # type: ignore[index]
        read = filled.read_item(str(document["id"]), partition_key=key)
        assert {name: read[name] for name in document} == document
        assert set(read) == {*document, "_rid", "_self", "_etag", "_ts"}
    with pytest.raises(CosmosResourceNotFoundError):
        filled.read_item("00-0", partition_key="nobody")
    with pytest.raises(CosmosResourceNotFoundError):
        filled.delete_item("00-0", partition_key="nobody")


def test_one_id_lives_under_every_key(database: DatabaseProxy) -> None:
    container = database.create_container("typed", PartitionKey("/key"))
    keys: list[Any] = [None, "", "1", "null", 0, 1, True, False]
    for key in keys:
        container.upsert_item({"id": "same", "key": key})
    container.upsert_item({"id": "same"})
    assert len(list(container.read_all_items())) == len(keys) + 1
    for key in keys:
        assert json.dumps(container.read_item("same", partition_key=key)["key"]) == json.dumps(key)
        container.replace_item("same", {"id": "same", "key": key, "again": True})
        container.delete_item("same", partition_key=key)
    assert [("key" in document) for document in container.read_all_items()] == [False]


def test_a_hierarchical_key_is_taken_as_a_whole(database: DatabaseProxy) -> None:
    container = database.create_container("levels", PartitionKey(["/a", "/b"], kind="MultiHash"))
    keys: list[list[str | int]] = [["x", n] for n in range(9)]
    for key in keys:
        container.upsert_item({"id": "same", "a": key[0], "b": key[1]})
    container.execute_item_batch([("upsert", ({"id": "more", "a": "x", "b": 3},))], partition_key=["x", 3])
    assert [container.read_item("same", partition_key=key)["b"] for key in keys] == list(range(9))
    assert len(list(container.read_all_items())) == 10
    assert sorted(asked(container, "SELECT VALUE c.id FROM c", partition_key=["x", 3])) == ["more", "same"]
    with pytest.raises(CosmosHttpResponseError, match="parts of partitions"):
        asked(container, "SELECT VALUE c.id FROM c", partition_key=["x"])


def test_a_container_holds_again_what_it_held(container: ContainerProxy, partitioned: Partitioned) -> None:
    path = f"/{container.container_link}"

    def held() -> tuple[Any, ...]:
        everything = asked(container, "SELECT * FROM c WHERE c.of.key = @k", values={"k": "a"}, **ACROSS)
        counted = asked(container, "SELECT VALUE COUNT(1) FROM c WHERE c.of.key = @k", values={"k": "a"}, **ACROSS)
        written = asked(container, "SELECT VALUE c.id FROM c WHERE c._ts >= @t", values={"t": 0}, **ACROSS)
        return (
            sorted(everything, key=lambda document: document["id"]),
            counted,
            sorted(written),
            ids(partitioned.documents(path)),
        )

    before, kept = held(), partitioned.kept(path)
    for _ in range(2):
        container.replace_item("1", thing("1", n=2))
        container.delete_item("2", partition_key="a")
        container.create_item(thing("3"))
        assert [ids(held()[0]), *held()[1:]] == [["1", "3"], [2], ["1", "3"], ["1", "3"]]
        partitioned.put_back(kept)
        assert held() == before
    assert container.read_item("2", partition_key="a")["of"] == {"key": "a"}


# --- queries ----------------------------------------------------------------------------------------------------------


def test_every_partition_holds_some(filled: ContainerProxy, partitioned: Partitioned) -> None:
    ranges = list(filled.read_feed_ranges())
    assert len(ranges) == 3
    parts = [ids(asked(filled, "SELECT * FROM c WHERE true", feed_range=feed_range)) for feed_range in ranges]
    assert all(len(part) > 5 for part in parts)
    assert sorted(name for part in parts for name in part) == EVERY_ID
    assert partitioned.requests == {"pkranges": 2, "query 0": 1, "query 1": 1, "query 2": 1}


def test_a_feed_range_is_counted_summed_sorted_and_paged_by_itself(filled: ContainerProxy) -> None:
    for feed_range in filled.read_feed_ranges():
        documents = asked(filled, "SELECT * FROM c", feed_range=feed_range)
        numbers = sorted(item["n"] for item in documents)
        assert asked(filled, "SELECT VALUE COUNT(1) FROM c WHERE true", feed_range=feed_range) == [len(documents)]
        assert asked(filled, "SELECT VALUE SUM(c.n) FROM c WHERE true", feed_range=feed_range) == [sum(numbers)]
        assert asked(filled, "SELECT VALUE c.n FROM c ORDER BY c.n", feed_range=feed_range) == numbers
        assert ids(asked(filled, "SELECT * FROM c", feed_range=feed_range, max_item_count=3)) == ids(documents)


def test_simple_queries_are_served_partition_after_partition(filled: ContainerProxy, partitioned: Partitioned) -> None:
    assert ids(asked(filled, "SELECT c.id, c.n AS number FROM c", **ACROSS)) == EVERY_ID
    assert partitioned.requests == {"query": 3}
    partitioned.page_size = 5
    assert ids(filled.read_all_items()) == EVERY_ID
    assert partitioned.requests["query"] > 3 + len(EVERY_ID) // 5
    some = asked(filled, 'SELECT * FROM c WHERE c["group"] = @g', values={"g": 1}, max_item_count=4, **ACROSS)
    assert ids(some) == [name for name in EVERY_ID if name.endswith("-1")]
    with pytest.raises(CosmosHttpResponseError, match="Cross partition query is required"):
        asked(filled, "SELECT * FROM c")


def test_sorted_queries_are_merged_by_the_sdk(filled: ContainerProxy, partitioned: Partitioned) -> None:
    partitioned.page_size = 4
    assert asked(filled, "SELECT VALUE c.id FROM c ORDER BY c.id", **ACROSS) == EVERY_ID
    rows = asked(filled, 'SELECT c.id, c["n"] AS x FROM c WHERE c.n >= @n ORDER BY c.n DESC', values={"n": 3}, **ACROSS)
    assert [item["x"] for item in rows] == list(range(len(DOCUMENTS) - 1, 2, -1))
    assert set(rows[0]) == {"id", "x"}
    whole = asked(filled, "SELECT * FROM c ORDER BY c.n", **ACROSS)
    assert [item["n"] for item in whole] == list(range(-1, len(DOCUMENTS)))
    assert set(whole[-1]) == {"id", "of", "n", "group", "_rid", "_self", "_etag", "_ts"}
    assert partitioned.requests["query"] == partitioned.requests["plan"] == 3
    assert min(partitioned.requests[f"query {n}"] for n in range(3)) > 6


def test_aggregates_are_added_up_by_the_sdk(filled: ContainerProxy, partitioned: Partitioned) -> None:
    numbers = [-1, *(document["n"] for document in DOCUMENTS)]

    def value(aggregate: str, where: str = "true") -> Any:
        [answer] = asked(filled, f"SELECT VALUE {aggregate} FROM c WHERE {where}", **ACROSS)
        return answer

    assert value("COUNT(1)") == len(numbers)
    assert value("SUM(c.n)") == sum(numbers)  # type: ignore[arg-type]
    assert value("MAX(c.n)") == len(DOCUMENTS) - 1
    assert value("MIN(c.n)") == -1
    assert value("SUM((c.n + 3))") == sum(numbers) + 3 * len(numbers)  # type: ignore[arg-type]
    assert value("SUM(FLOOR((c.n + 2) / 2))") == sum((int(str(n)) + 2) // 2 for n in numbers)
    assert value("COUNT(1)", "c.id = 'loose'") == 1
    assert value("MAX(c.n)", "c.id = 'loose'") == -1
    assert (value("COUNT(1)", "false"), value("SUM(c.n)", "false"), value("MAX(c.n)", "false")) == (0, 0, None)
    assert partitioned.requests["plan"] == partitioned.requests["query 2"] == 11


def test_a_query_of_a_key_sees_that_key_alone(filled: ContainerProxy, partitioned: Partitioned) -> None:
    assert asked(filled, "SELECT VALUE c.id FROM c ORDER BY c.id", partition_key="it's") == ["04-0", "04-1"]
    assert asked(filled, "SELECT VALUE COUNT(1) FROM c", partition_key=1) == [2]
    assert partitioned.requests == {"query of a key": 2}


def test_pages_are_right_after_documents_were_replaced(container: ContainerProxy, partitioned: Partitioned) -> None:
    for name in ("3", "4", "5", "2", "1"):
        container.upsert_item(thing(name))
    partitioned.page_size = 2
    assert ids(container.read_all_items()) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT COUNT(1) AS n FROM c",
        "SELECT VALUE COUNT(1) + SUM(c.n) FROM c",
        "SELECT TOP 3 * FROM c",
        "SELECT DISTINCT c.n FROM c",
        "SELECT c.n FROM c GROUP BY c.n",
        "SELECT * FROM c ORDER BY c.n, c.id",
        "SELECT * FROM c OFFSET 1 LIMIT 1",
        "SELECT VALUE AVG(c.n) FROM c",
    ],
)
def test_a_query_of_an_unknown_form_is_refused(text: str) -> None:
    with pytest.raises(UnknownQuery):
        parsed(text)


def test_what_is_refused_says_so(filled: ContainerProxy) -> None:
    with pytest.raises(CosmosHttpResponseError, match="not been taught") as refused:
        asked(filled, "SELECT TOP 3 * FROM c", **ACROSS)
    assert refused.value.status_code == 400


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_carried_out_as_a_whole(container: ContainerProxy, partitioned: Partitioned) -> None:
    results = container.execute_item_batch(
        [
            ("create", (thing("new"),)),
            ("upsert", (thing("1", changed=1),)),
            ("replace", ("2", thing("2", changed=2))),
            ("read", ("2",)),
            ("delete", ("1",)),
        ],
        partition_key="a",
    )
    assert [result["statusCode"] for result in results] == [201, 200, 200, 200, 204]
    assert results[3]["resourceBody"]["changed"] == 2
    assert results[3]["eTag"] == results[3]["resourceBody"]["_etag"]
    assert set(results[0]["resourceBody"]) == {"id", "of", "_rid", "_self", "_etag", "_ts"}
    assert ids(asked(container, "SELECT c.id FROM c", partition_key="a")) == ["2", "new"]
    assert partitioned.requests["batch"] == 1
    assert partitioned.operations == dict.fromkeys(("create", "upsert", "replace", "read", "delete"), 1)


@pytest.mark.parametrize(
    ("failing", "status"),
    [
        (("create", (thing("1"),)), 409),
        (("delete", ("nothing",)), 404),
        (("read", ("nothing",)), 404),
        (("replace", ("nothing", thing("nothing"))), 404),
        (("upsert", (thing("1", "b"),)), 400),
        (("upsert", ({"id": "1"},)), 400),
        (("upsert", (thing("1"),), {"if_match_etag": "old"}), 412),
        (("create", (thing("first"),)), 409),
    ],
)
def test_a_batch_of_which_an_operation_fails_changes_nothing(
    container: ContainerProxy, partitioned: Partitioned, failing: Any, status: int
) -> None:
    before = asked(container, "SELECT * FROM c", **ACROSS)
    operations = [("upsert", (thing("first"),)), failing, ("delete", ("2",))]
    with pytest.raises(CosmosBatchOperationError) as refused:
        container.execute_item_batch(operations, partition_key="a")
    assert (refused.value.error_index, refused.value.status_code) == (1, status)
    assert [response["statusCode"] for response in refused.value.operation_responses] == [424, status, 424]
    assert asked(container, "SELECT * FROM c", **ACROSS) == before
    assert partitioned.operations == {}


def test_a_batch_has_limits(container: ContainerProxy) -> None:
    container.execute_item_batch([("upsert", (thing(f"{n}"),)) for n in range(100)], partition_key="a")
    for operations, status in (
        ([], 400),
        ([("upsert", (thing(f"{n}"),)) for n in range(101)], 400),
        ([("upsert", (thing(f"{n}", text="x" * 700_000),)) for n in range(3)], 413),
    ):
        with pytest.raises(CosmosHttpResponseError) as refused:
            container.execute_item_batch(operations, partition_key="a")
        assert refused.value.status_code == status


def test_a_batch_can_be_throttled_and_its_answer_lost(container: ContainerProxy, partitioned: Partitioned) -> None:
    partitioned.next_batches.extend([429, 429])
    container.execute_item_batch([("create", (thing("throttled"),))], partition_key="a")  # the SDK tries again
    assert partitioned.requests["batch"] == 3
    partitioned.next_batches.append("lost")
    with pytest.raises(ServiceResponseError):
        container.execute_item_batch([("create", (thing("unheard"),))], partition_key="a")
    assert container.read_item("unheard", partition_key="a")["id"] == "unheard"


def test_an_account_may_not_know_batches(container: ContainerProxy, partitioned: Partitioned) -> None:
    partitioned.batches = False
    with pytest.raises(CosmosHttpResponseError) as refused:
        container.execute_item_batch([("create", (thing("new"),))], partition_key="a")
    assert refused.value.status_code == 500


def test_what_is_loaded_lies_under_the_key_that_its_document_has(
    container: ContainerProxy, partitioned: Partitioned
) -> None:
    """Numbers are kept as doubles, with the digits that JavaScript writes."""
    partitioned.load(f"/{container.container_link}", [thing("big", -(2**60))])
    [loaded] = asked(container, "SELECT * FROM c WHERE c.id = 'big'", **ACROSS)
    assert loaded["of"]["key"] != -(2**60)  # here, whole numbers have all digits
    assert container.read_item("big", partition_key=loaded["of"]["key"])["id"] == "big"
