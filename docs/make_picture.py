"""Draws docs/demo.svg: what the four syncs of the demo print. `make picture` runs it.

It is the real output without the columns of ids and times. These differ in every run, and the picture must not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/demo.svg"
_VARIES = re.compile(r"Milliseconds|Duration|SyncId|Run|Id|Started.*|Age|Time", re.IGNORECASE)
_CHARACTER, _LINE, _MARGIN, _BAR = 8.4, 20, 20, 34
"""Pixels: the width of a character, the height of a line, the space around them, the height of the window's bar."""


def draw(printed: str) -> str:
    """The picture, as SVG, of what `python -m backup demo` has printed. Equal output gives an equal picture."""
    lines = ["$ make demo", *_shown(printed)]
    width = round(max(map(len, lines)) * _CHARACTER + 2 * _MARGIN)
    height = len(lines) * _LINE + _BAR + _MARGIN
    texts = [
        f'<text x="{_MARGIN}" y="{_BAR + (number + 1) * _LINE - 5}"{_look(line)}>{escape(line)}</text>'
        for number, line in enumerate(lines)
        if line
    ]
    lights = [f'<circle cx="{_MARGIN + 18 * i}" cy="17" r="6" fill="{fill}"/>' for i, fill in enumerate(_LIGHTS)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' xml:space="preserve" role="img" aria-label="What the four syncs of the demo print">',
            "<style>text { font: 14px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #d0d7de;"
            " white-space: pre } .title { fill: #7ee787 } .dim { fill: #8b949e }</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
            *lights,
            *texts,
            "</svg>\n",
        ]
    )


_LIGHTS = ("#ff5f57", "#febc2e", "#28c840")


def _look(line: str) -> str:
    """Attributes of a line: its exact width, so that columns stand under each other in any font, and its colour."""
    kind = ' class="title"' if line[0].isdigit() else ' class="dim"' if set(line) <= {" ", "─"} else ""
    return f' textLength="{len(line) * _CHARACTER:.1f}" lengthAdjust="spacingAndGlyphs"{kind}'


def _shown(printed: str) -> list[str]:
    """The lines of the four tables: each a title, then a heading, a rule and the rows."""
    before_history = printed.split("The last rows of SyncHistory")[0]
    shown: list[str] = []
    cut: list[slice] = []
    for line in filter(str.strip, before_history.splitlines()):
        if line[0].isdigit():
            shown += ["", line.rstrip()]
            cut = []
            continue
        cut = cut or _varying_columns(line)
        for columns in cut:
            line = line[: columns.start] + line[columns.stop :]
        shown.append(line.rstrip())
    return shown


def _varying_columns(heading: str) -> list[slice]:
    """Where the columns stand whose values differ from run to run, the last one first."""
    names = list(re.finditer(r"\S+(?: \S+)*", heading))
    ends = [0, *(name.end() for name in names)]
    return [slice(ends[i], ends[i + 1]) for i in reversed(range(len(names))) if _VARIES.fullmatch(names[i][0])]


def main() -> None:
    """Runs the demo in a temporary folder and writes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        demo = [sys.executable, "-m", "backup", "demo", "--folder", folder]
        anywhere = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # lines as long as they are
        ran = subprocess.run(demo, cwd=ROOT, env=anywhere, capture_output=True, text=True, check=True)  # noqa: S603 - own
    PICTURE.write_text(draw(ran.stdout))


if __name__ == "__main__":
    main()
