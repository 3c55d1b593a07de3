"""The files of the page, as HTTP serves them. They are the same for everybody and hold no data of any backup."""

from __future__ import annotations

import hashlib
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
    "Cache-Control": "no-cache",  # may be kept, and is asked for anew: the files of two releases do not mix
}


@dataclass(frozen=True)
class Served:
    """What HTTP sends: a status, the content and its headers."""

    status: int
    content: bytes
    headers: Mapping[str, str]


def served(name: str, address: str, seen: str | None = None) -> Served:
    """Returns the file of this name below the page's address; the page itself for no name. 404 for all other names.

    `address` is that of the request. `seen` is its If-None-Match: 304 for a file that has not changed. Reads the folder
    once; no name of a request gets to the file system.
    """
    if not name and _ends_with_slash(address):
        return Served(301, b"", {**HEADERS, "Location": "../dashboard"})
    file = _files().get(name or _PAGE)
    if file is None:
        return Served(404, b"There is no such file.\n", {**HEADERS, "Content-Type": TYPES[".txt"]})
    if seen is not None and file.headers["ETag"] in [tag.strip().removeprefix("W/") for tag in seen.split(",")]:
        return Served(304, b"", file.headers)
    return file


def _ends_with_slash(address: str) -> bool:
    """Whether it does where the page would count its own addresses from the wrong folder."""
    return address.partition("?")[0].lower().endswith("/dashboard/")


@cache
def _files() -> Mapping[str, Served]:
    paths = [path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES]
    return {path.relative_to(FOLDER).as_posix(): _file(path.read_bytes(), TYPES[path.suffix]) for path in paths}


def _file(content: bytes, kind: str) -> Served:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return Served(200, content, {**HEADERS, "Content-Type": kind, "ETag": tag})
