"""How long the reliability tests try, and the seed of all they draw.

TORTURE=1 asks for the long run. RELIABILITY_SEED repeats a run; a failure prints it.
"""

import os
from typing import TypeVar

SEED = int(os.environ.get("RELIABILITY_SEED", "20261121"))
LONG = os.environ.get("TORTURE") == "1"

T = TypeVar("T")


def rounds(quick: T, long: T) -> T:
    """The first in every `make test`, the second with TORTURE=1."""
    return long if LONG else quick
