"""The description of the HTTP API in OpenAPI 3.1, made from the table of operations and the models. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from backup import __version__
from backup.entry.answers import Answer
from backup.entry.operation import Operation
from backup.entry.operations import OPERATIONS
from backup.entry.requests import check_query

_SECURITY: Mapping[str, Any] = {
    "functionKey": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
    "functionKeyInAddress": {"type": "apiKey", "in": "query", "name": "code"},
}
_REST = "The name of a service. A slash in it may be written as it is, or as %2F."


def get_description(query: Mapping[str, str]) -> Answer:
    """Answers with the description of every endpoint."""
    check_query(query)
    return Answer(200, description())


@cache
def description() -> dict[str, Any]:
    """Returns the description. Cost: a tenth of a second, once in a process."""
    schemas, definitions = TypeAdapter.json_schemas(list(_types()), ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(_path_of(operation), {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Backup services",
            "version": __version__,
            "description": "Syncs databases into queryable mirrors, and takes back what was lost.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {}), "securitySchemes": dict(_SECURITY)},
        "security": [{name: []} for name in _SECURITY],
    }


def _path_of(operation: Operation) -> str:
    """Returns the operation's path in the description: `/api/backup/sync/{service}`."""
    return "/api/" + re.sub(r"\{\*?(\w+)[^}]*\}", r"{\1}", operation.route)


def _types() -> Iterator[tuple[str, JsonSchemaMode, TypeAdapter[Any]]]:
    for operation in OPERATIONS:
        if operation.body is not None:
            yield _name(operation, "body"), "validation", TypeAdapter(operation.body)
        for status, kind in operation.answers.items():  # an answer without a body has None
            yield _name(operation, status), "serialization", TypeAdapter(kind)
        yield _name(operation, "failed"), "serialization", TypeAdapter(operation.failed)


def _name(operation: Operation, part: int | str) -> str:
    return f"{operation.function} {part}"


def _described(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    def answer(status: int, kind: Any) -> dict[str, Any]:
        content = {"content": {operation.media: {"schema": kind}}} if operation.answers.get(status, kind) else {}
        return {"description": HTTPStatus(status).phrase, **content}

    responses = {
        str(status): answer(status, schemas[_name(operation, "failed"), "serialization"])
        for status in operation.statuses
    }
    for status in operation.answers:
        responses[str(status)] = answer(status, schemas[_name(operation, status), "serialization"])
    if not operation.anonymous:
        responses["401"] = {"description": "The function key is missing or wrong."}
        responses["403"] = answer(403, {"$ref": "#/components/schemas/ErrorAnswer"})
    described: dict[str, Any] = {
        "operationId": operation.function,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": dict(sorted(responses.items())),
    }
    if operation.body is not None:
        schema = schemas[_name(operation, "body"), "validation"]
        required = any(part.is_required() for part in operation.body.model_fields.values())
        described["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    if operation.anonymous:
        described["security"] = []
    return described


def _path_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{\*?(\w+)", operation.route):
        parameter = {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        yield {**parameter, "description": _REST} if name == "service" else parameter


def _query_parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, schema in operation.query.items():
        only_schema = {key: value for key, value in schema.items() if key != "required"}
        yield {"name": name, "in": "query", "required": bool(schema.get("required")), "schema": only_schema}
