"""The files of the page, as HTTP serves them. They are the same for everybody and hold no data of any backup."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "dashboard"
_PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served, by the end of its name; nothing else is."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Content-Security-Policy: files of this host alone, no script or style in the page, in no frame, no text as HTML."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # may be kept, and is asked for again: the files of two releases do not mix
}


@dataclass(frozen=True)
class Served:
    """What HTTP sends: a status, the content and its headers."""

    status: int
    content: bytes
    headers: Mapping[str, str]


def served(name: str, address: str, seen: str | None = None, accepted: str | None = None) -> Served:
    """Returns the file of this name below the page's address; the page itself for no name. 404 for all other names.

    `address` is that of the request. `seen` is its If-None-Match: 304 for a file that has not changed. `accepted` is
    its Accept-Encoding: a file is compressed where that names gzip. Reads the folder once, and compresses each file
    once; no name of a request gets to the file system.
    """
    if not name and _ends_with_slash(address):
        return Served(301, b"", {**HEADERS, "Location": "../dashboard"})
    name = name or _PAGE
    if name not in _files():
        return Served(404, b"There is no such file.\n", {**HEADERS, "Content-Type": TYPES[".txt"]})
    file = _compressed(name) if _takes_gzip(accepted or "") else _files()[name]
    if seen is not None and {"*", file.headers["ETag"]} & {tag.strip().removeprefix("W/") for tag in seen.split(",")}:
        return Served(304, b"", file.headers)
    return file


def _takes_gzip(accepted: str) -> bool:
    """Whether the header names gzip, and not as what is refused (`q=0`)."""
    codings = {coding.strip(): weight for coding, _, weight in (part.partition(";") for part in accepted.split(","))}
    return "gzip" in codings and not re.fullmatch(r"\s*q=0(\.0*)?\s*", codings["gzip"])


def _ends_with_slash(address: str) -> bool:
    """Whether it does where the page would count its own addresses from the wrong folder."""
    return address.partition("?")[0].lower().endswith("/dashboard/")


@cache
def _files() -> Mapping[str, Served]:
    paths = [path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES]
    return {path.relative_to(FOLDER).as_posix(): _file(path.read_bytes(), TYPES[path.suffix]) for path in paths}


def _file(content: bytes, kind: str) -> Served:
    return Served(200, content, {**HEADERS, "Content-Type": kind, "Vary": "Accept-Encoding", "ETag": _tag(content)})


@cache
def _compressed(name: str) -> Served:
    file = _files()[name]
    content = gzip.compress(file.content, mtime=0)
    # A tag of its own: the same file has other bytes now.
    return Served(200, content, {**file.headers, "Content-Encoding": "gzip", "ETag": _tag(content)})


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
