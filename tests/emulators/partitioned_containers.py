"""The containers of an account with physical partitions. The npm server knows their names; documents are kept here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

from tests.emulators.front import Answer, Front, Request
from tests.emulators.partition_keys import Container, partitioned
from tests.emulators.physical import Document, Kept

_RID = "x-ms-cosmos-intended-collection-rid"


class Refused(Exception):
    """Raised to answer with an error."""

    def __init__(self, status: int, message: str, substatus: int = 0) -> None:
        super().__init__(message)
        body = json.dumps({"code": str(status), "message": message}).encode()
        self.answer = Answer(status, {"x-ms-substatus": str(substatus), "x-ms-retry-after-ms": "1"}, body)


def is_true(request: Request, header: str) -> bool:
    """Whether the header says so."""
    return request.headers.get(header, "").lower() == "true"


def with_content(answer: Answer, content: Any) -> Answer:
    """The answer with another content."""
    return replace(answer, body=json.dumps(content).encode())


@dataclass
class Containers(Front):
    """Creates, reads and drops containers of so many partitions."""

    partitions: int = 3
    _containers: dict[str, Container] = field(default_factory=dict)
    _about: dict[str, Answer] = field(default_factory=dict)

    def about_the_account(self, request: Request) -> Answer:
        """The account, at the address of this server."""
        answer = self._asked_once(request)
        mine = [{"name": "Here", "databaseAccountEndpoint": self.account.partition("=")[2].partition(";")[0]}]
        return with_content(answer, {**answer.content, "writableLocations": mine, "readableLocations": mine})

    def about_containers(self, request: Request) -> Answer:
        """Creates one, or lists them."""
        if request.method == "POST" and not is_true(request, "x-ms-documentdb-isquery"):
            wanted = request.content
            if "partitionKey" not in wanted or wanted["partitionKey"].get("version") != 2:
                raise Refused(400, "This server wants a partition key of version 2.")
        return self.ask(request)

    def about_container(self, request: Request) -> Answer:
        """Reads or drops one."""
        if request.method not in ("GET", "DELETE"):
            raise Refused(400, "This server has not been taught to change containers.")
        if request.method == "DELETE":
            self.forget(request.path)
            return self.ask(request)
        return self._asked_once(request)

    def _asked_once(self, request: Request) -> Answer:
        """What the npm server says, which it says slowly. Nobody changes an account or a container here but by dropping
        it."""
        answer = self._about.get(request.path)
        if answer is None:
            answer = self.ask(request)
            if answer.status == 200:
                self._about[request.path] = answer
        kept = {name: value for name, value in answer.headers.items() if name.lower() != "date"}
        return replace(answer, headers={**kept, "date": formatdate(usegmt=True)})

    def container(self, path: str, request: Request) -> Container:
        """The container with that path. Raises what Azure answers if the client takes it for another."""
        container = self._containers.get(path)
        if container is None:
            answer = self.ask(Request("GET", path, {}, b""))
            if answer.status != 200:
                raise Refused(answer.status, "Owner resource does not exist", 1003)
            about = answer.content
            if about["id"] != unquote(path.rpartition("/")[2]):
                raise Refused(400, "This server has not been taught links by resource id.")
            rid = about["_rid"]
            container = Container(path, rid, about["partitionKey"], partitioned(rid, self.partitions))
            container = self._containers.setdefault(path, container)  # another thread may have been faster
        if request.headers.get(_RID, container.rid) != container.rid:
            raise Refused(400, "The container was recreated.", 1024)
        return container

    def documents(self, path: str) -> Iterator[Document]:
        """Those of the container with that path, while nobody writes; no error where there is none."""
        for name in self._in(path):
            for part in self._containers[name].parts:
                yield from part.candidates(None, ())

    def kept(self, path: str) -> Mapping[str, Sequence[Kept]]:
        """What the containers of the database with that path hold, while nobody writes."""
        return {name: [part.kept() for part in self._containers[name].parts] for name in self._in(path)}

    def put_back(self, kept: Mapping[str, Sequence[Kept]]) -> None:
        """Has these containers hold again what they held then. A container that was made since stays as it is."""
        for path, parts in kept.items():
            for part, then in zip(self._containers[path].parts, parts, strict=True):
                part.put_back(then)

    def _in(self, path: str) -> list[str]:
        return [name for name in list(self._containers) if f"{name}/".startswith(f"{path}/")]

    def forget(self, path: str) -> None:
        """Forgets the container with that path, or those of the database, and their documents."""
        for name in self._in(path):
            del self._containers[name]
        for name in [name for name in list(self._about) if f"{name}/".startswith(f"{path}/")]:
            del self._about[name]
