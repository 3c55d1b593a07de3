"""What a transform makes of documents, without a server."""

from __future__ import annotations

from typing import Any

from backup.core.model import Key
from backup.core.transforms import OwnFunction, Transform
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
