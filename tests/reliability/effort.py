"""How much the reliability tests do, and the seed of their random choices.

TORTURE=1 makes the long run. RELIABILITY_SEED sets the seed, to repeat a run; a failure prints it.
"""

import os
from typing import TypeVar

SEED = int(os.environ.get("RELIABILITY_SEED", "20261121"))
LONG = os.environ.get("TORTURE") == "1"

T = TypeVar("T")


def rounds(quick: T, long: T) -> T:
    """`quick` in every `make test`, `long` with TORTURE=1."""
    return long if LONG else quick
