"""Requests over HTTP: parses bodies and query parameters strictly. Never acts on them."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from backup.core.errors import BadRequest
from backup.core.suggestions import did_you_mean, quoted

_OF_THE_HOST = ("code", "clientId")  # parameters of the Functions host: its key, and that key's name
_AGO = re.compile(r"(\d+) ?(min|h|d|w)", re.I | re.A)
_UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SINCE = "Write how long ago (90min, 12h, 7d, 2w), or a time: 2026-11-20T00:00:00Z, for UTC."


def moment_of(text: str) -> datetime:
    """The time that the text says, in UTC. Raises BadRequest for a text that is not a time, or has no offset."""
    hint = "Write a time with its offset: 2026-11-20T00:00:00Z, for UTC."
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise BadRequest(f"The time {quoted(text)} has no offset.", hint=hint)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(f"{quoted(text)} is not a time.", hint=hint) from None


def since_of(text: str, now: datetime) -> datetime:
    """The time that lies so long before `now` (`90min`, `12h`, `7d`, `2w`); for other texts what `moment_of` returns.

    Raises BadRequest for a text that says neither.
    """
    if ago := _AGO.fullmatch(text.strip()):
        try:
            return now - int(ago[1]) * _UNITS[ago[2].lower()]
        except OverflowError:
            raise BadRequest(f"{quoted(text)} is too long ago: there is no such time.", hint=_SINCE) from None
    try:
        return moment_of(text)
    except BadRequest as error:
        raise BadRequest(str(error), hint=_SINCE) from None


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such time in UTC") from None


def _key_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | list):
        raise ValueError("a key is a text, a whole number, or a list of its values")
    return json.dumps(value, allow_nan=False)


KeyText = Annotated[
    Any,
    AfterValidator(_key_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "array", "items": {}}]}),
]
"""A key; parsed to the text that the command line takes."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON also writes a whole number with a fraction of zero: 100.0. The bounds come first, so that a schema has them.
SampleSize = Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(_whole)]
"""How many records, chosen at random, a verify compares whole."""

Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with an offset; parsed to UTC."""


LIMIT_AT_MOST = 1_000_000_000

ChangeLimit = Annotated[int, Field(ge=1, le=LIMIT_AT_MOST), BeforeValidator(_whole)] | None
"""How many changes a sync may make at most; null: no limit."""


class ApiRequest(BaseModel):
    """A body: JSON with these fields and types, and no other field."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, defer_build=True)


class SyncRequest(ApiRequest):
    """The body of TriggerSync."""

    service: Annotated[str, Field(max_length=1_000)] = "all"
    force_full_sync: bool = False
    dry_run: bool = False
    allow_mass_delete: bool = False
    limit: ChangeLimit = None


class UndoRequest(ApiRequest):
    """The body of UndoRun. Without `confirm` the answer only says what would change."""

    through: bool = False
    confirm: bool = False


class RestoreRequest(ApiRequest):
    """The body of RestoreSource. Without `confirm` the answer only says what would change."""

    at: Moment | None = None
    run: str | None = None
    only: Literal["inserted", "updated", "deleted"] | None = None
    keys: list[KeyText] = []
    overwrite_newer: bool = False
    without_masked: bool = False
    delete_extra: bool = False
    allow_mass_delete: bool = False
    confirm: bool = False


class VerifyRequest(ApiRequest):
    """The body of VerifyBackup."""

    full: bool = False
    sample: SampleSize = 0
    drill: bool = False


AnyRequest = TypeVar("AnyRequest", bound=ApiRequest)


def whole_body(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The body itself. Raises BadRequest if the request had one that has not arrived.

    The Functions host drops a body that is sent in chunks. Without it a dry run of one service would be a sync of all.
    """
    told = (headers.get("transfer-encoding"), headers.get("content-length", "0").strip(" 0"))
    if not body and any(told):
        raise BadRequest(
            "The body of the request has not arrived. Nothing was changed.",
            hint="Send it with its Content-Length, and not in chunks (Transfer-Encoding: chunked).",
        )
    return body


def whole_query(query: Mapping[str, str], address: str) -> Mapping[str, str]:
    """The parameters of the address. Raises BadRequest for one without a value.

    The Functions host passes none on, so that `?dryRun` would be a sync that writes.
    """
    valueless = [name for name, value in parse_qsl(address.partition("?")[2], keep_blank_values=True) if not value]
    if missing := [name for name in valueless if name not in _OF_THE_HOST]:
        raise BadRequest(
            f"The query parameter {quoted(missing[0])} has no value. Nothing was changed.",
            hint="Write its value, as in ?dryRun=true, or leave it out.",
        )
    return query


def parse_body(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """The request; without a body every field has its default. Raises BadRequest, which names the wrong field."""
    names = [str(field.alias) for field in kind.model_fields.values()]
    text = _stripped(body) or b"{}"
    try:
        request = kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            problem = f"there is no field {quoted(name)}.{did_you_mean(name, names)}"
        else:
            problem = f"{quoted(name)[1:-1] or 'body'}: {first['msg'].removeprefix('Value error, ')}."
        hint = f"Send a JSON object with any of {', '.join(names)}."
        raise BadRequest(f"The request body is malformed: {problem}", hint=hint) from None
    if repeated := _repeated_name(text):
        raise BadRequest(
            f"The request body is malformed: it has {quoted(repeated)} twice.", hint="Send each field once."
        )
    return request


def _stripped(body: bytes) -> bytes:
    """The body without white space around it, and without the byte order mark that Windows' editors add."""
    return body.removeprefix(codecs.BOM_UTF8).strip()


def _repeated_name(text: bytes) -> str | None:
    """A name that an object of the body has twice, if any. JSON does not say which of the two values counts."""
    repeated: list[str] = []

    def note_repeated(pairs: list[tuple[str, Any]]) -> None:
        counts = Counter(name for name, _ in pairs)
        repeated.extend(name for name, count in counts.items() if count > 1)

    json.loads(text.decode(), object_pairs_hook=note_repeated)
    return repeated[0] if repeated else None


def parse_service(rest: str) -> str:
    """The name of the service at the end of an address. A slash in it may be written as %2F, because some servers in
    front of the app do not decode it."""
    return re.sub("%2f", "/", rest, flags=re.I).rstrip("/")


def parse_flag(query: Mapping[str, str], name: str) -> bool:
    """The value of `?name=true|false`; false without the parameter. Raises BadRequest for other values."""
    value = query.get(name, "false")
    if value.lower() not in ("true", "false"):
        raise BadRequest(f"{name} is {quoted(value)}.", hint=f"Use ?{name}=true or ?{name}=false.")
    return value.lower() == "true"


def parse_limit(query: Mapping[str, str]) -> int | None:
    """The value of `?limit=`; None without the parameter. Raises BadRequest for 0, too large a number, or none."""
    text = query.get("limit")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= LIMIT_AT_MOST:
        raise BadRequest(f"limit is {quoted(text)}.", hint=f"Use a whole number from 1 to {LIMIT_AT_MOST}.")
    return int(text)


def check_query(query: Mapping[str, str], *allowed: str) -> None:
    """Raises BadRequest for a query parameter that is neither `allowed` nor the Functions host's own."""
    unknown = sorted(query.keys() - {*allowed, *_OF_THE_HOST})
    if unknown:
        hint = f"This route takes {', '.join(allowed)}." if allowed else "This route takes no query parameters."
        meant = did_you_mean(unknown[0], allowed)
        raise BadRequest(f"There is no query parameter {quoted(unknown[0])}.{meant}", hint=hint)


def check_no_body(body: bytes) -> None:
    """Raises BadRequest for a body. White space and `{}` count as none."""
    if b"".join(_stripped(body).split()) not in (b"", b"{}"):
        raise BadRequest(
            "This route takes no body.", hint="Send no body. docs/http.md lists the parameters of the address."
        )
