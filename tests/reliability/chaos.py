"""A Cosmos DB account that misbehaves: a proxy before the real one that throttles, loses and delays by a seeded chance.

What becomes of a request depends on the seed, on the request and on how often the same one came before, and not on
the order in which threads happen to send theirs: the same seed does the same again.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from tests.emulators.front import Answer, Front, Request

DELAY_SECONDS = 0.02
_OF_ONE_RUN = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")


class Fate(StrEnum):
    """What becomes of a request."""

    PASSED = "passed"
    THROTTLED = "throttled"
    """429, and not passed on."""
    REQUEST_LOST = "request lost"
    """The connection breaks, and it was not passed on."""
    ANSWER_LOST = "answer lost"
    """The connection breaks after the server has carried it out."""
    DELAYED = "delayed"


Odds = dict[Fate, float]
"""How likely each fate is; what is left to 1 passes."""

CALM: Odds = {}
HALF_THROTTLED: Odds = {Fate.THROTTLED: 0.5, Fate.REQUEST_LOST: 0.05, Fate.ANSWER_LOST: 0.07, Fate.DELAYED: 0.05}


@dataclass
class Chaos(Front):
    """A proxy before the account of a connection string; `fates` counts what became of (method, fate)."""

    odds: Odds
    seed: int
    fates: Counter[tuple[str, Fate]] = field(default_factory=Counter)
    _seen: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, fate: Fate, *methods: str) -> int:
        """How many requests met the fate, of these methods or of all."""
        return sum(n for (method, its), n in self.fates.items() if its is fate and (not methods or method in methods))

    def respond(self, request: Request) -> Answer | None:
        fate = self.fate_of(request.method, request.path, request.body)
        if fate is Fate.DELAYED:
            self.ended.wait(DELAY_SECONDS)
        if fate is Fate.THROTTLED:
            return Answer(429, {"x-ms-retry-after-ms": "1"}, b'{"code": "TooManyRequests", "message": "Slow down."}')
        if fate is Fate.REQUEST_LOST:
            return None
        answer = self.ask(request)
        return None if fate is Fate.ANSWER_LOST else answer

    def fate_of(self, method: str, path: str, body: bytes) -> Fate:
        signature = _OF_ONE_RUN.sub("", f"{method} {path} {_gist(body)}")
        with self._lock:
            self._seen[signature] += 1
            drawn = random.Random(f"{self.seed} {signature} {self._seen[signature]}").random()
            fate = Fate.PASSED
            for candidate, share in self.odds.items():
                if drawn < share:
                    fate = candidate
                    break
                drawn -= share
            self.fates[method, fate] += 1
            return fate


def _gist(body: bytes) -> str:
    """What tells a query or a document from others in every run alike: times and etags differ."""
    try:
        content = json.loads(body)
        return str(content.get("query") or content.get("id"))
    except (ValueError, AttributeError):
        return ""
