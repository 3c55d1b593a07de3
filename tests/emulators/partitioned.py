"""A Cosmos DB account whose containers have several physical partitions and that knows transactional batches.

Keeps documents in memory, with indexes, and stands before the npm server, which knows the databases and containers, and
computes what `expressions` does not know. What Azure's gateway does by the REST protocol is done here: it routes by the
hash of the partition key, answers simple queries partition after partition, refuses the others with a plan for the SDK,
and carries out batches as a whole.

It has been taught what this project asks. All else is a 400 that says so: TOP, OFFSET, DISTINCT, GROUP BY, AVG, several
aggregates, part of a physical partition, patches, the change feed. A document without the property of an ORDER BY is
left out, as the npm server has it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from tests.emulators import batches, query_plans
from tests.emulators.front import Answer, Request
from tests.emulators.json_values import UNDEFINED, as_number
from tests.emulators.pages import Pages
from tests.emulators.partition_keys import Container, text_of
from tests.emulators.partitioned_containers import Containers, Refused, is_true
from tests.emulators.physical import Document, Physical
from tests.emulators.servers import COMPUTE

_KEY, _RANGE, _CONTINUATION = "x-ms-documentdb-partitionkey", "x-ms-documentdb-partitionkeyrangeid", "x-ms-continuation"
_PAGE = "x-ms-max-item-count"
_IS_QUERY, _ACROSS = "x-ms-documentdb-isquery", "x-ms-documentdb-query-enablecrosspartition"
_IS_UPSERT, _IS_BATCH = "x-ms-documentdb-is-upsert", "x-ms-cosmos-is-batch-request"
_IS_PLAN = "x-ms-cosmos-is-query-plan-request"
_CONDITIONS = {"if-match": "ifMatch", "if-none-match": "ifNoneMatch"}
_FAILURES = {
    404: "Entity with the specified id does not exist in the system.",
    409: "Entity with the specified id already exists in the system.",
    412: "One of the specified pre-condition is not met.",
}


@dataclass
class Partitioned(Containers):
    """Serves under `account` while `running`. `requests` counts them by kind.

    Kinds are `batch`, `create`, `upsert`, `replace`, `read`, `delete` and `pkranges`; `query` for one that the gateway
    answers or refuses, `plan`, `query of a key`, and `query 0` for one of the partition 0 alone. `operations` counts
    those of batches that were carried out, by kind.
    """

    batches: bool = True
    """Whether it knows them; else they are a 500, as the npm server has it."""
    page_size: int = 100
    next_batches: deque[int | Literal["lost"]] = field(default_factory=deque)
    """What becomes of the next batches, one each: a status is answered, and nothing done; or the answer is lost."""
    requests: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    _pages: Pages = field(init=False)
    _alone: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever reads or writes documents."""
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._pages = Pages(self.computed)

    def respond(self, request: Request) -> Answer | None:
        where = [part for part in urlsplit(request.path).path.split("/") if part]
        path = "/" + "/".join(where)
        try:
            match where:
                case []:
                    return self.about_the_account(request)
                case ["dbs", _] if request.method == "DELETE":
                    self.forget(path)
                case ["dbs", _, "colls"]:
                    return self.about_containers(replace(request, path=path))
                case ["dbs", database, "colls", name]:
                    return self.about_container(replace(request, path=path))
                case ["dbs", database, "colls", name, *rest]:
                    container = self.container(f"/dbs/{database}/colls/{name}", request)
                    return self._about_documents(container, rest, request)
        except Refused as refused:
            return refused.answer
        except query_plans.UnknownQuery as unknown:
            return Refused(400, f"This server has not been taught such a query: {unknown}").answer
        except (LookupError, ValueError, TypeError, AttributeError) as mistake:  # else it would look like a lost answer
            return Refused(400, f"This server failed: {mistake!r} at {request.method} {request.path}").answer
        return self.ask(replace(request, path=path))

    def load(self, path: str, documents: Iterable[Document]) -> None:
        """Writes documents to the container with that path (`/dbs/…/colls/…`) without a request for each."""
        container = self.container(path, Request("GET", path, {}, b""))
        for document in documents:
            kept = _document_in(json.dumps(document))
            key = container.key_of(kept)
            with self._alone:
                container.part_of(key).put(text_of(key), kept)

    def split(self, path: str, number: int) -> None:
        """Splits a partition of the container with that path, as Azure does by itself: who asks for it gets a 410."""
        container = self.container(path, Request("GET", path, {}, b""))
        with self._alone:
            container.split(number)

    # --- documents ----------------------------------------------------------------------------------------------------

    def _about_documents(self, container: Container, rest: Sequence[str], request: Request) -> Answer | None:
        match request.method, *rest:
            case "GET", "pkranges":
                return self._ranges(container, request)
            case "POST", "docs" if is_true(request, _IS_PLAN):
                self._count("plan")
                return _told(query_plans.plan(query_plans.parsed(request.content["query"])))
            case "POST", "docs" if is_true(request, _IS_BATCH):
                return self._batch(container, request)
            case "POST", "docs" if is_true(request, _IS_QUERY):
                return self._query(container, request.content, request)
            case "GET", "docs" if "a-im" not in request.headers:
                return self._query(container, {"query": "SELECT * FROM c"}, request)
            case ("POST", "docs") | ("PUT" | "GET" | "DELETE", "docs", _):
                return self._one_document(container, rest[1:], request)
        raise Refused(400, f"This server has not been taught {request.method} {request.path}.")

    def _ranges(self, container: Container, request: Request) -> Answer:
        self._count("pkranges")
        # Read as a change feed, until that has no more: what was made since the last answer.
        known = request.headers.get("if-none-match", '""').strip('"').rpartition("-")[2]
        with self._alone:
            ranges = [range_ for range_ in container.ranges if not known or int(range_["id"]) > int(known)]
            etag = f'"{container.rid}-{max(part.number for part in container.partitions)}"'
        if not ranges:
            return Answer(304, {"etag": etag}, b"")
        return _told({"_rid": container.rid, "PartitionKeyRanges": ranges, "_count": len(ranges)}, etag=etag)

    def _one_document(self, container: Container, name: Sequence[str], request: Request) -> Answer:
        kind = {"PUT": "Replace", "GET": "Read", "DELETE": "Delete"}.get(
            request.method, "Upsert" if is_true(request, _IS_UPSERT) else "Create"
        )
        self._count(kind.lower())
        key = _key(request)
        if len(request.body) > batches.MOST_BYTES:
            raise Refused(413, "Request size is too large")
        operation: dict[str, Any] = {"operationType": kind}
        if request.body:
            operation["resourceBody"] = _document_in(request.body)
            if text_of(container.key_of(operation["resourceBody"])) != text_of(key):
                raise Refused(400, "PartitionKey extracted from document doesn't match the one in the header.", 1001)
        if name:
            operation["id"] = unquote(name[0])
        operation |= {to: request.headers[of] for of, to in _CONDITIONS.items() if of in request.headers}
        results, failed = self._carried_out(container, key, [operation])
        status = results[0]["statusCode"]
        if failed:
            raise Refused(status, _FAILURES.get(status, "The request is invalid."))
        document = results[0].get("resourceBody")
        if document is None or "return=minimal" in request.headers.get("prefer", ""):
            return replace(_told(None, etag=results[0].get("eTag")), status=status, body=b"")
        return replace(_told(document, etag=document["_etag"]), status=status)

    def _batch(self, container: Container, request: Request) -> Answer | None:
        self._count("batch")
        with self._counting:
            fate = self.next_batches.popleft() if self.next_batches else None
        if isinstance(fate, int):
            raise Refused(fate, "As told.")
        if not self.batches:
            raise Refused(500, "Failed to parse x-ms-documentdb-partitionkey headers: undefined")
        operations, key = _document_in(request.body), _key(request)
        if refused := batches.refusal(operations, len(request.body)):
            raise Refused(*refused)
        results, failed = self._carried_out(container, key, operations)
        if not failed:
            with self._counting:
                self.operations.update(operation["operationType"].lower() for operation in operations)
        if fate == "lost":
            return None
        return replace(_told(results), status=207) if failed else _told(results, charge=len(results))

    def _carried_out(
        self, container: Container, key: Sequence[Any], operations: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], bool]:
        """What becomes of each operation, and whether one has failed: then nothing was done."""
        text = text_of(key)
        with self._alone:
            documents = container.part_of(key)
            failed = batches.failure(
                operations, documents.etags(text), lambda body: text_of(container.key_of(body)) == text
            )
            return (
                (failed, True) if failed else ([_done(documents, text, operation) for operation in operations], False)
            )

    # --- queries ------------------------------------------------------------------------------------------------------

    def _query(self, container: Container, query: Mapping[str, Any], request: Request) -> Answer:
        part = {name: request.headers.get(name) for name in ("x-ms-start-epk", "x-ms-end-epk")}
        if _RANGE in request.headers:
            asked = next((one for one in container.partitions if str(one.number) == request.headers[_RANGE]), None)
            if asked is None:
                raise Refused(410, "There is no such range.", 1002)
            if list(part.values()) not in ([None, None], [asked.low, asked.high]):
                raise Refused(400, f"This server has not been taught parts of partitions: {part} of {asked}.")
            self._count(f"query {asked.number}")
            form, wrap = query_plans.for_one_partition(query["query"])
            items, token = self._page(asked.documents, form, query, request)
            return _listed(container, query_plans.wrapped(items) if wrap else items, token)
        if any(part.values()):
            raise Refused(400, "This server wants the partition that a range is of.")
        form = query_plans.parsed(query["query"])
        if _KEY in request.headers:
            self._count("query of a key")
            key = _key(request)
            of_key = container.part_of(key)
            return _listed(container, *self._page(of_key, form, query, request, text_of(key)))
        self._count("query")
        if request.method == "POST" and not is_true(request, _ACROSS):
            raise Refused(400, "Cross partition query is required but disabled.")
        if not form.is_served:
            raise Refused(400, "The provided cross partition query can not be directly served by the gateway.", 1004)
        # What is left to read: bounds, and the token of the next page there, which those have too that were split off.
        left: list[tuple[str, str, str]] = json.loads(request.headers.get(_CONTINUATION) or '[["", "FF", ""]]')
        left = [(one.low, one.high, at[2]) for at in left for one in container.partitions if one.holds(at[0], at[1])]
        here = next(one for one in container.partitions if one.low == left[0][0])
        headers = {**request.headers, _CONTINUATION: left[0][2]}
        items, token = self._page(here.documents, form, query, replace(request, headers=headers))
        left = left[1:] if token is None else [(here.low, here.high, token), *left[1:]]
        return _listed(container, items, json.dumps(left) if left else None)

    def _page(
        self,
        documents: Physical,
        form: query_plans.Form,
        query: Mapping[str, Any],
        request: Request,
        key: str | None = None,
    ) -> tuple[list[Any], str | None]:
        wanted = int(request.headers.get(_PAGE) or -1)
        parameters = {parameter["name"]: parameter["value"] for parameter in query.get("parameters", ())}
        token = request.headers.get(_CONTINUATION) or None
        size = wanted if wanted > 0 else self.page_size
        with self._alone:
            return self._pages.page(documents, form, parameters, key, token, size)

    def computed(self, text: str, parameters: Mapping[str, Any], documents: Sequence[Document]) -> list[Any]:
        """The expression's value for each document, as the npm server's engine computes it."""
        named = [{"name": name, "value": value} for name, value in parameters.items()]
        asked = {"query": f'SELECT VALUE {{"value": {text}}} FROM c', "parameters": named, "documents": documents}
        return [result.get("value", UNDEFINED) for result in self.engine(json.dumps(asked).encode())]

    def engine(self, query: bytes) -> Any:
        """What the npm server's engine answers to a query that has its documents with it. Raises UnknownQuery."""
        answer = self.ask(Request("POST", COMPUTE, {}, query))
        if answer.status != 200:
            raise query_plans.UnknownQuery(answer.body.decode())
        return answer.content

    def _count(self, kind: str) -> None:
        with self._counting:
            self.requests[kind] += 1


def _key(request: Request) -> list[Any]:
    try:
        key: list[Any] = json.loads(request.headers[_KEY])
    except (KeyError, ValueError):
        raise Refused(400, "There is no partition key.") from None
    return key


def _document_in(body: bytes | str) -> Any:
    """What the JSON says, with numbers as the server keeps them."""
    return json.loads(body, parse_int=as_number, parse_float=as_number)


def _done(documents: Physical, key: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """The result of an operation of which it is known that it will not fail."""
    kind, body = operation["operationType"], operation.get("resourceBody")
    name = operation["id"] if body is None else body["id"]
    before = documents.find(key, name)
    if kind == "Delete":
        documents.remove(key, name)
        return {"statusCode": 204, "requestCharge": 1}
    after = before if kind == "Read" or body is None else documents.put(key, body)
    status = 201 if before is None else 200
    return {"statusCode": status, "requestCharge": 1, "eTag": (after or {}).get("_etag"), "resourceBody": after}


def _listed(container: Container, items: Sequence[Any], token: str | None) -> Answer:
    answer = _told({"_rid": container.rid, "Documents": items, "_count": len(items)})
    return answer if token is None else replace(answer, headers={**answer.headers, _CONTINUATION: token})


def _told(content: Any, etag: str | None = None, charge: float = 1) -> Answer:
    headers = {
        "content-type": "application/json",
        "date": formatdate(usegmt=True),
        "x-ms-request-charge": str(charge),
    }
    return Answer(200, headers if etag is None else {**headers, "etag": etag}, json.dumps(content).encode())
