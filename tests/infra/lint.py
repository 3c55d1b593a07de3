"""Prints what must not be in infra/; `make lint` runs it. Ends with 1 if there is something."""

from __future__ import annotations

import sys

from tests.infra.bicep import bicep_files
from tests.infra.rules import mistakes


def main() -> int:
    """Prints a line for each mistake; returns the exit code."""
    lines = mistakes(bicep_files())
    print("\n".join([*lines, f"{len(lines)} mistakes in infra/." if lines else "infra/: all rules hold."]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
