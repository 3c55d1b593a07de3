"""What callers may ask over HTTP: bodies and query parameters, parsed strictly. Does nothing with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from backup.errors import BadRequest


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, defer_build=True)


class SyncRequest(_Request):
    """The body of TriggerSync."""

    service: str = "all"
    force_full_sync: bool = False
    dry_run: bool = False
    allow_mass_delete: bool = False


class UndoRequest(_Request):
    """The body of UndoRun. Without `confirm` it only says what would change."""

    through: bool = False
    confirm: bool = False


class RestoreRequest(_Request):
    """The body of RestoreSource. Without `confirm` it only says what would change."""

    at: AwareDatetime | None = None
    keys: list[str | int | list[Any]] = []
    overwrite_newer: bool = False
    delete_extra: bool = False
    allow_mass_delete: bool = False
    confirm: bool = False


class VerifyRequest(_Request):
    """The body of VerifyBackup."""

    full: bool = False
    sample: int = Field(0, ge=0, le=1_000_000)
    drill: bool = False


Request = TypeVar("Request", bound=_Request)


def parse_body(kind: type[Request], body: bytes) -> Request:
    """The request; no body means all its defaults. Raises BadRequest that names the field."""
    try:
        return kind.model_validate_json(body if body.strip() else b"{}")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        known = ", ".join(str(known.alias) for known in kind.model_fields.values())
        raise BadRequest(
            f"The request body is malformed: {field}: {first['msg']}.", hint=f"Send a JSON object with any of {known}."
        ) from None


def parse_flag(query: Mapping[str, str], name: str) -> bool:
    """The value of `?name=true|false`, false without it. Raises BadRequest for another value."""
    value = query.get(name, "false")
    if value.lower() not in ("true", "false"):
        raise BadRequest(f"{name} is {value!r}.", hint=f"Use ?{name}=true or ?{name}=false.")
    return value.lower() == "true"


def check_query(query: Mapping[str, str], *known: str) -> None:
    """Raises BadRequest for a query parameter that is neither `known` nor one of the host's own."""
    unknown = sorted(query.keys() - {*known, "code", "clientId"})
    if unknown:
        hint = f"This route knows {', '.join(known)}." if known else "This route takes no query parameters."
        raise BadRequest(f"There is no query parameter {unknown[0]!r}.", hint=hint)


def check_no_body(body: bytes) -> None:
    """Raises BadRequest for a body that says something; `{}` does not."""
    if body.strip() not in (b"", b"{}"):
        raise BadRequest("This route takes no body.", hint="Say it in the address; README lists its parameters.")
