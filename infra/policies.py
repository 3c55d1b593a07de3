"""Prints where infra/ breaks a policy of checkov; `make lint` runs it where infra/ has changed. Ends with 1 if it does.

It calls the part of checkov that reads Bicep. The program `checkov` loads those for all other languages too: that takes
four times the processor's time, and it wants a network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import checkov.arm.checks.resource  # noqa: F401 - policies of ARM hold for Bicep too, once they are imported
import ply.yacc
from checkov.bicep.runner import Runner
from checkov.runner_filter import RunnerFilter

# The network rules admit the app's subnet alone, or nobody beside private endpoints. checkov reads neither condition.
_CONDITIONS = ("CKV_AZURE_36", "CKV_AZURE_101", "CKV_AZURE_113")
# What Flex Consumption does not have, or does by itself.
_OF_OTHER_PLANS = (
    *("CKV_AZURE_63", "CKV_AZURE_65", "CKV_AZURE_66", "CKV_AZURE_78", "CKV_AZURE_80", "CKV_AZURE_88"),
    *("CKV_AZURE_212", "CKV_AZURE_213"),
)
# The page and the API are asked from outside, with a function key or behind sign-in.
_FROM_OUTSIDE = ("CKV_AZURE_13", "CKV_AZURE_17", "CKV_AZURE_222")
# What costs more than a backup needs: it can be made again from its source, and a night may start late.
_SECOND_REGION = ("CKV_AZURE_206", "CKV_AZURE_225", "CKV_AZURE_229")
# Defender and auditing are settings of a subscription, not of one server in it.
_OF_SUBSCRIPTION = ("CKV_AZURE_23", "CKV_AZURE_24", "CKV_AZURE_25", "CKV_AZURE_26", "CKV_AZURE_27")
LEFT_OUT = {*_CONDITIONS, *_OF_OTHER_PLANS, *_FROM_OUTSIDE, *_SECOND_REGION, *_OF_SUBSCRIPTION}


def main() -> int:
    """Prints a line for each mistake, or that there is none; returns the exit code."""
    _make_tables_once()
    report: Any = Runner().run(str(Path(__file__).parent), runner_filter=RunnerFilter(framework=["bicep"]))
    broken = {record.check_id for record in report.failed_checks}
    lines = [f"{path}: checkov cannot read it" for path in report.parsing_errors]
    lines += [
        f"infra{record.file_path}:{record.file_line_range[0]}: {record.resource}: {record.check_id} {record.check_name}"
        for record in report.failed_checks
        if record.check_id not in LEFT_OUT
    ]
    lines += [f"{policy} is left out, and nothing breaks it" for policy in sorted(LEFT_OUT - broken)]
    fine = f"infra/: {len(report.passed_checks)} policies of checkov hold; {len(LEFT_OUT)} are left out."
    print("\n".join(lines or [fine]))
    return 1 if lines else 0


def _make_tables_once() -> None:
    """checkov reads a hundred short paths, and has the tables of their grammar computed for each: six seconds."""
    make, made = ply.yacc.yacc, dict[tuple[str, str], Any]()

    def yacc(module: object, start: str, **_: object) -> Any:
        key = type(module).__qualname__, start
        if key not in made:
            made[key] = make(module=module, start=start, write_tables=0, errorlog=ply.yacc.NullLogger())
        return made[key]

    ply.yacc.yacc = yacc


if __name__ == "__main__":
    sys.exit(main())
