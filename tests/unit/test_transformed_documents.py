"""What a transform makes of documents, without a server."""

from __future__ import annotations

from typing import Any

from backup.core.model import Key
from backup.core.transforms import FromJson, JsonValue, OwnFunction, Transform, path_of_json
from backup.stores.cosmos.copies import CosmosCopies
from backup.stores.cosmos.transformed import TransformedDocuments


def in_place(document: dict[str, Any]) -> dict[str, Any] | None:
    """Changes the objects in the document that it gets."""
    document["tenant"]["id"] = "other"
    return None if document["id"] == "gone" else document


def key_of(document: Any) -> Key:
    return document["tenant"]["id"], document["id"]


def reasons(*documents: dict[str, Any]) -> tuple[dict[Key, str], frozenset[Key]]:
    transform = Transform((OwnFunction("own:in_place", in_place),))
    copies, left_out = TransformedDocuments(transform, [["id"], ["tenant", "id"]], "source").applied(documents, key_of)
    assert not copies
    return dict(left_out.failed), left_out.keys


def test_a_function_that_changes_the_key_within_the_document_is_told_of_it() -> None:
    failed, left_out = reasons({"id": "1", "tenant": {"id": "a"}}, {"id": "gone", "tenant": {"id": "a"}})
    assert failed == {("a", "1"): "The transform changed the key, the version or the filter."}
    assert left_out == {("a", "gone")}


def test_a_document_that_has_the_property_of_the_note_is_named_and_not_the_transform() -> None:
    failed, _ = reasons({"id": "1", "tenant": {"id": "a"}, "_backup": 1})
    assert failed == {("a", "1"): "The document has a property _backup, which its copy cannot keep: rename it."}


def test_numbers_are_the_doubles_that_the_server_gives_back() -> None:
    transform = Transform((FromJson({"city": JsonValue("own", path_of_json("$.a"))}),))
    documents = TransformedDocuments(transform, [["id"]], "source")
    given = {"1": [1, 2.0, {"x": 3.0}], "2": [12345678901234567891, 2**53 + 1], "3": '{"a": [1e16, 0.1, -0.0, 1e22]}'}
    asked = [{"id": name, "own": own if isinstance(own, str) else {"a": own}} for name, own in given.items()]
    copies, left_out = documents.applied(
        [*asked, {"id": "4", "own": '{"a": [1e400]}'}], lambda document: (document["id"],)
    )
    assert left_out.failed == {("4",): "The transform gave a value that JSON cannot hold."}
    kept = [[1, 2, {"x": 3}], [12345678901234567000, 9007199254740992], [10000000000000000, 0.1, 0, 1e22]]
    content = CosmosCopies().content
    assert [content(copy)["city"] for copy in copies] == [content({"city": city})["city"] for city in kept]
