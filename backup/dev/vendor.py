"""Renews the page's libraries: takes them from npm, as its lock file pins them. `make vendor` runs it.

The page has no build step, so the files are used as npm has them, but for two changes. A browser does not know the bare
name "preact", and a strict policy forbids a map of names: it becomes an address. uPlot's small file is a script, not a
module: it gets an export.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parent.parent / "entry/dashboard/vendor"
PINS = ("package.json", "package-lock.json")
LIBRARIES = {
    "preact/dist/preact.mjs": "preact.mjs",
    "preact/hooks/dist/hooks.mjs": "hooks.mjs",
    "preact/LICENSE": "preact.LICENSE.txt",
    "htm/dist/htm.mjs": "htm.mjs",
    "htm/LICENSE": "htm.LICENSE.txt",
    "uplot/dist/uPlot.iife.min.js": "uplot.mjs",
    "uplot/dist/uPlot.min.css": "uplot.css",
    "uplot/LICENSE": "uplot.LICENSE.txt",
    "@knadh/oat/oat.min.css": "oat.css",
    "@knadh/oat/LICENSE": "oat.LICENSE.txt",
}


def renew(*, upgrade: bool = False) -> None:
    """Writes the libraries that the lock file pins. `upgrade`: pins the newest that package.json allows before.

    Raises subprocess.CalledProcessError when npm fails; then no file has changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        for pin in PINS:
            shutil.copy(VENDOR / pin, folder)
        command = ["npm", "update", "--save"] if upgrade else ["npm", "ci"]
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        subprocess.run([*command, *options], cwd=folder, check=True)  # noqa: S603 - no word of it comes from outside
        texts = {name: vendored((Path(folder) / "node_modules" / path).read_text()) for path, name in LIBRARIES.items()}
        for name, text in texts.items():
            (VENDOR / name).write_text(text)
        for pin in PINS:
            shutil.copy(Path(folder) / pin, VENDOR)


def vendored(text: str) -> str:
    """The text of a library as the page uses it."""
    text = re.sub(r"^//# sourceMappingURL=.*\n?", "", text, flags=re.M)  # the map is not here
    if re.search(r"^var uPlot=", text, re.M) and "export default" not in text:
        text = f"{text.rstrip()}\nexport default uPlot;\n"
    return text.replace('from"preact"', 'from"./preact.mjs"')


if __name__ == "__main__":
    renew(upgrade="--upgrade" in sys.argv[1:])
