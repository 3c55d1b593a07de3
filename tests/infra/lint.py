"""Prints what must not be in infra/; `make lint` runs it. Ends with 1 if there is something."""

from __future__ import annotations

import sys

from tests.infra.bicep import bicep_files
from tests.infra.rules import mistakes


def main() -> int:
    """Prints a line for each mistake; returns the exit code."""
    found = mistakes(bicep_files())
    print("\n".join([*found, f"{len(found)} mistakes in infra/." if found else "infra/: all rules hold."]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
