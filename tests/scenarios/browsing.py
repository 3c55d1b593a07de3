"""A real browser on the page, for tests: one browser a session, a tab for each test."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.emulators.servers import NODE_PROGRAMS, ServerMissing

PATIENCE_MS = 45_000
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    # One process draws all tabs: each start of one costs half a second of a processor.
    *("--renderer-process-limit=1", "--disable-site-isolation-trials", "--in-process-gpu"),
)
AXE = NODE_PROGRAMS.parent / "axe-core/axe.min.js"
ZONE = "America/St_Johns"
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of the system. Raises ServerMissing without one, or without axe-core."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for path in map(shutil.which, names) if path), None)
    if program is None or not AXE.exists():
        raise ServerMissing(
            "The page is not tested: install Chromium (apt-get install chromium) and axe-core (`make setup` with npm)."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A tab with the page, and all that went wrong in it."""

    def __init__(
        self, browser: Browser, address: str, *, width: int = 1600, scheme: Any = "light", has_own_clock: bool = False
    ) -> None:
        """Those without a clock of their own are drawn by one process, which has loaded the page before."""
        self._own = has_own_clock
        self.page: Page = (_new_context(browser) if has_own_clock else _context(browser)).new_page()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.address, self.troubles = address, list[str]()
        self.asked: list[Request] = []
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.troubles.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._requested)

    def __enter__(self) -> Tab:
        self.page.goto(self.address)
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self.page.context.close()
        else:
            self.page.close()

    def type_key(self, key: str) -> None:
        self.page.get_by_label("Function key").fill(key)
        self.page.get_by_role("button", name="Open").click()

    def row(self, table: str, text: str) -> Any:
        """The first row of a table that has the text."""
        return self.page.get_by_role("region", name=table, exact=True).get_by_role("row").filter(has_text=text).first

    def section(self, title: str) -> Any:
        """The part of the page with this heading."""
        return self.page.get_by_role("region", name=title, exact=True).first

    def faults(self) -> list[str]:
        """What axe calls serious or critical in what is shown now."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(f"{_axe()};0")
        report: Mapping[str, Any] = self.page.evaluate("async () => await axe.run({resultTypes: ['violations']})")
        return [
            f"{fault['id']}: {json.dumps([node['html'] for node in fault['nodes'][:3]])}"
            for fault in report["violations"]
            if fault["impact"] in ("serious", "critical")
        ]

    @property
    def is_wider_than_its_window(self) -> bool:
        return bool(self.page.evaluate("() => document.documentElement.scrollWidth > innerWidth"))

    @property
    def focused(self) -> str:
        """The accessible name, or else the text, of what has the focus."""
        script = "() => document.activeElement.ariaLabel || document.activeElement.innerText || ''"
        return " ".join(str(self.page.evaluate(script)).split())

    def tab_to(self, name: str, steps: int = 150) -> None:
        """Presses Tab until something of this name has the focus."""
        for _ in range(steps):
            self.page.keyboard.press("Tab")
            if re.fullmatch(name, self.focused):
                return
        raise AssertionError(f"Tab does not lead to {name}; the focus is on {self.focused!r}.")

    def _heard(self, message: ConsoleMessage) -> None:
        # The browser itself writes of each answer that is no success, and of a server that is gone.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.troubles.append(f"{message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        self.asked.append(request)
        if not request.url.startswith((self.address.rsplit("/api/", 1)[0], "data:")):
            self.troubles.append(f"request: {request.url}")


def _context(browser: Browser) -> BrowserContext:
    """The one that tabs share. An empty tab of it stays open: the process that draws ends with the last one."""
    if not browser.contexts:
        _new_context(browser).new_page()
    return browser.contexts[0]


def _new_context(browser: Browser) -> BrowserContext:
    return browser.new_context(timezone_id=ZONE)


def _axe() -> str:
    return Path(AXE).read_text()
