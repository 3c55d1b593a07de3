"""The files of the page: which are served, how, and what they promise."""

from __future__ import annotations

import gzip
import re

import pytest

from backup.dev import vendor
from backup.entry.dashboard_files import FOLDER, HEADERS, POLICY, TYPES, served

ADDRESS = "http://localhost/api/dashboard"
FILES = [path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".json")])
def test_each_file_is_served_with_its_type_and_every_header(name: str) -> None:
    file = served(name, f"{ADDRESS}/{name}")
    assert (file.status, file.content) == (200, (FOLDER / name).read_bytes())
    assert file.headers["Content-Type"] == TYPES[f".{name.rpartition('.')[2]}"]
    assert HEADERS.items() <= file.headers.items()


def test_the_page_is_served_without_a_name() -> None:
    assert served("", ADDRESS).content == (FOLDER / "index.html").read_bytes()


def test_a_slash_at_the_end_leads_to_the_address_that_the_page_counts_from() -> None:
    moved = served("", f"{ADDRESS}/?x=y")
    assert (moved.status, moved.headers["Location"]) == (301, "../dashboard")
    assert served("", f"{ADDRESS}?x=/").status == 200


@pytest.mark.parametrize(
    "name",
    [
        *("../dashboard_files.py", "..", ".", "vendor", "vendor/", "/etc/passwd", "./app.mjs", "vendor/../app.mjs"),
        *("vendor/package.json", "vendor/package-lock.json", "app.mjs\0", "APP.MJS", "..\\http.py", "%2e%2e/http.py"),
    ],
)
def test_any_other_name_is_a_404(name: str) -> None:
    file = served(name, f"{ADDRESS}/{name}")
    assert (file.status, file.content) == (404, b"There is no such file.\n")
    assert HEADERS.items() <= file.headers.items()


def test_a_file_that_has_not_changed_is_not_sent_again() -> None:
    tag = served("app.mjs", ADDRESS).headers["ETag"]
    for known_tags in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        file = served("app.mjs", ADDRESS, known_tags)
        assert (file.status, file.content, file.headers["ETag"]) == (304, b"", tag)
    assert served("app.mjs", ADDRESS, '"other"').status == 200


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, gzip;q=0.8", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000", False),
        ("br, x-gzip", False),
        ("identity", False),
        ("", False),
        (None, False),
    ],
)
def test_a_file_is_compressed_where_the_browser_takes_that(accepted: str | None, compressed: bool) -> None:
    plain, file = served("app.mjs", ADDRESS), served("app.mjs", ADDRESS, None, accepted)
    assert (file.headers.get("Content-Encoding") == "gzip") is compressed
    assert (gzip.decompress(file.content) if compressed else file.content) == plain.content
    assert (file.headers["ETag"] != plain.headers["ETag"]) is compressed
    assert file.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert served("app.mjs", ADDRESS, file.headers["ETag"], accepted).status == 304
    assert (served("app.mjs", ADDRESS, plain.headers["ETag"], accepted).status == 200) is compressed


def test_the_policy_allows_nothing_of_other_hosts_and_no_script_in_the_page() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in POLICY
    page = served("", ADDRESS).content.decode()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=|https?://", page)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".mjs", ".css")) and "vendor" not in name])
def test_the_pages_own_files_name_no_other_host_and_write_no_html(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert len(text.splitlines()) <= 300


def test_the_libraries_are_as_the_script_makes_them_with_their_licences_and_small() -> None:
    assert set(vendor.LIBRARIES.values()) | set(vendor.PINS) == {path.name for path in vendor.VENDOR.iterdir()}
    texts = {name: (vendor.VENDOR / name).read_text() for name in vendor.LIBRARIES.values()}
    assert all(vendor.vendored(text) == text for text in texts.values())
    assert not any(re.search(r"""(from|import)\s*["'](?!\./)""", text) for text in texts.values())
    assert sum(len(text) for name, text in texts.items() if not name.endswith(".txt")) < 110_000
