"""A Cosmos DB account whose containers have several physical partitions and that knows transactional batches.

Stands before the npm server, which has neither, and keeps each container there as several, one for each partition. What
Azure's gateway does by the REST protocol is done here: it routes by the hash of the partition key, answers simple
queries partition after partition, refuses the others with a plan for the SDK, and carries out batches as a whole.

It has been taught what this project asks. All else is a 400 that says so: TOP, OFFSET, DISTINCT, GROUP BY, AVG, several
aggregates, part of a physical partition, patches, the change feed. Partitions never split. A document without the
property of an ORDER BY is left out, as the npm server has it.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.emulators import batches, query_plans
from tests.emulators.front import Answer, Request
from tests.emulators.partition_keys import HIDDEN, Container, text_of
from tests.emulators.partitioned_containers import Containers, Refused, is_true, with_content

_KEY, _RANGE, _CONTINUATION = "x-ms-documentdb-partitionkey", "x-ms-documentdb-partitionkeyrangeid", "x-ms-continuation"
_PAGE = "x-ms-max-item-count"
_IS_QUERY, _ACROSS = "x-ms-documentdb-isquery", "x-ms-documentdb-query-enablecrosspartition"
_IS_UPSERT, _IS_BATCH = "x-ms-documentdb-is-upsert", "x-ms-cosmos-is-batch-request"
_IS_PLAN = "x-ms-cosmos-is-query-plan-request"


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
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def respond(self, request: Request) -> Answer | None:
        where = [part for part in urlsplit(request.path).path.split("/") if part]
        path = "/" + "/".join(where)
        try:
            match where:
                case []:
                    return self.about_the_account(request)
                case ["dbs", _] if request.method == "DELETE":
                    self.forget()
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
        # Read as a change feed, until that has no more: partitions never change.
        etag = f'"{container.rid}"'
        if request.headers.get("if-none-match") == etag:
            return Answer(304, {"etag": etag}, b"")
        found = container.ranges
        return _told({"_rid": container.rid, "PartitionKeyRanges": found, "_count": len(found)}, etag=etag)

    def _one_document(self, container: Container, name: Sequence[str], request: Request) -> Answer:
        kinds = {"PUT": "replace", "GET": "read", "DELETE": "delete"}
        self._count(kinds.get(request.method, "upsert" if is_true(request, _IS_UPSERT) else "create"))
        key, body = _key(request), request.body
        if len(body) > batches.MOST_BYTES:
            raise Refused(413, "Request size is too large")
        if body:
            if text_of(container.key_of(request.content)) != text_of(key):
                raise Refused(400, "PartitionKey extracted from document doesn't match the one in the header.", 1001)
            body = json.dumps({**request.content, HIDDEN: text_of(key)}).encode()
        path = "/".join([container.backend(container.partition_of(key)), "docs", *name])
        with self._alone(container, key):
            answer = self.ask(_backend_request(request, path, body, key=json.dumps([text_of(key)])))
        return with_content(answer, _without_key(answer.content)) if answer.body else answer

    def _batch(self, container: Container, request: Request) -> Answer | None:
        self._count("batch")
        with self._counting:
            fate = self.next_batches.popleft() if self.next_batches else None
        if isinstance(fate, int):
            raise Refused(fate, "As told.")
        if not self.batches:
            raise Refused(500, "Failed to parse x-ms-documentdb-partitionkey headers: undefined")
        operations, key = request.content, _key(request)
        if refused := batches.refusal(operations, len(request.body)):
            raise Refused(*refused)
        path = container.backend(container.partition_of(key)) + "/docs"
        hidden = {"partitionKey": json.dumps([text_of(key)])}  # by it the npm server finds a document
        with self._alone(container, key):
            etags = self._etags(path, key)
            failed = batches.failure(operations, etags, lambda body: text_of(container.key_of(body)) == text_of(key))
            if failed is None:
                sent = [{**one, **hidden, **_body_with(one, key)} for one in operations]
                answer = self.ask(_backend_request(request, path, json.dumps(sent).encode()))
                results = answer.content
                if answer.status != 200 or any(one["statusCode"] >= 400 for one in results):
                    raise Refused(500, f"The npm server did not do a batch as foreseen: {results}")
                with self._counting:
                    self.operations.update(one["operationType"].lower() for one in operations)
        if fate == "lost":
            return None
        if failed is not None:
            return replace(_told(failed), status=207)
        return _told([{**one, **_shown_body(one)} for one in results], charge=len(results))

    def _etags(self, path: str, key: Sequence[Any]) -> dict[str, str]:
        """Those of the documents of one key, by id."""
        parameters = [{"name": "@key", "value": text_of(key)}]
        body = {"query": f'SELECT c.id, c._etag FROM c WHERE c["{HIDDEN}"] = @key', "parameters": parameters}
        asked = Request("POST", path, {_IS_QUERY: "true", _ACROSS: "true"}, json.dumps(body).encode())
        return {one["id"]: one["_etag"] for one in self.ask(asked).content["Documents"]}

    @contextlib.contextmanager
    def _alone(self, container: Container, key: Sequence[Any]) -> Iterator[None]:
        """No other write under the same partition key goes on meanwhile."""
        with self._locks.setdefault(f"{container.path} {text_of(key)}", threading.Lock()):
            yield

    # --- queries ------------------------------------------------------------------------------------------------------

    def _query(self, container: Container, query: Mapping[str, Any], request: Request) -> Answer:
        part = {name: request.headers.get(name) for name in ("x-ms-start-epk", "x-ms-end-epk")}
        if _RANGE in request.headers:
            asked = next((one for one in container.ranges if one["id"] == request.headers[_RANGE]), None)
            if asked is None:
                raise Refused(410, "There is no such range.", 1002)
            if list(part.values()) not in ([None, None], [asked["minInclusive"], asked["maxExclusive"]]):
                raise Refused(400, f"This server has not been taught parts of partitions: {part} of {asked}.")
            self._count(f"query {asked['id']}")
            text, wrap = query_plans.for_one_partition(query["query"])
            answer = self._page(container, int(asked["id"]), {**query, "query": text}, request)
            return _with_items(answer, query_plans.wrapped(answer.content["Documents"])) if wrap else answer
        if any(part.values()):
            raise Refused(400, "This server wants the partition that a range is of.")
        form = query_plans.parsed(query["query"])
        if _KEY in request.headers:
            self._count("query of a key")
            key = _key(request)
            parameters = [*query.get("parameters", ()), {"name": "@hidden_key", "value": text_of(key)}]
            of_key = {"query": form.text(f'c["{HIDDEN}"] = @hidden_key'), "parameters": parameters}
            return self._page(container, container.partition_of(key), of_key, request)
        self._count("query")
        if request.method == "POST" and not is_true(request, _ACROSS):
            raise Refused(400, "Cross partition query is required but disabled.")
        if not form.is_served:
            raise Refused(400, "The provided cross partition query can not be directly served by the gateway.", 1004)
        reached = json.loads(request.headers.get(_CONTINUATION) or '{"partition": 0}')
        headers = {name: value for name, value in request.headers.items() if name != _CONTINUATION}
        if "token" in reached:
            headers[_CONTINUATION] = reached["token"]
        here: int = reached["partition"]
        answer = self._page(container, here, {**query, "query": form.text()}, replace(request, headers=headers))
        token, rest = answer.headers.get(_CONTINUATION), dict(answer.headers)
        if token is not None:
            rest[_CONTINUATION] = json.dumps({"partition": here, "token": token})
        elif here + 1 < self.partitions:
            rest[_CONTINUATION] = json.dumps({"partition": here + 1})
        return replace(answer, headers=rest)

    def _page(self, container: Container, partition: int, query: Mapping[str, Any], request: Request) -> Answer:
        wanted = int(request.headers.get(_PAGE) or -1)
        headers = {**request.headers, _IS_QUERY: "true", _PAGE: str(wanted if wanted > 0 else self.page_size)}
        asked = replace(request, method="POST", headers=headers)
        text, parameters = query_plans.shortened(query["query"], query.get("parameters", ()))
        body = json.dumps({"query": text, "parameters": parameters}).encode()
        answer = self.ask(_backend_request(asked, container.backend(partition) + "/docs", body))
        if answer.status != 200:
            raise Refused(answer.status, f"The npm server: {answer.body.decode()} {query}")
        return _with_items(answer, [_without_key(item) for item in answer.content["Documents"]])

    def _count(self, kind: str) -> None:
        with self._counting:
            self.requests[kind] += 1


def _key(request: Request) -> list[Any]:
    try:
        key: list[Any] = json.loads(request.headers[_KEY])
    except (KeyError, ValueError):
        raise Refused(400, "There is no partition key.") from None
    return key


def _backend_request(request: Request, path: str, body: bytes, key: str | None = None) -> Request:
    headers = {name: value for name, value in request.headers.items() if name not in (_KEY, _RANGE)}
    headers |= {_ACROSS: "true"} | ({} if key is None else {_KEY: key})
    return replace(request, path=path, headers=headers, body=body)


def _body_with(operation: Mapping[str, Any], key: Sequence[Any]) -> dict[str, Any]:
    body = operation.get("resourceBody")
    return {} if body is None else {"resourceBody": {**body, HIDDEN: text_of(key)}}


def _shown_body(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"resourceBody": _without_key(result["resourceBody"])} if "resourceBody" in result else {}


def _without_key(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    shown = {name: value for name, value in item.items() if name != HIDDEN}
    return {**shown, "payload": _without_key(shown["payload"])} if "orderByItems" in shown else shown


def _with_items(answer: Answer, items: Sequence[Any]) -> Answer:
    return with_content(answer, {**answer.content, "Documents": items, "_count": len(items)})


def _told(content: Any, etag: str | None = None, charge: float = 1) -> Answer:
    headers = {"content-type": "application/json", "x-ms-request-charge": str(charge)}
    return Answer(200, headers if etag is None else {**headers, "etag": etag}, json.dumps(content).encode())
