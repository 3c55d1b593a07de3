"""The product's modules as syntax trees, parsed when the first test asks: no process that runs no such test parses."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def trees() -> Mapping[Path, ast.Module]:
    """Every module of the product by its path below the root. Nobody may change them."""
    paths = [ROOT / "function_app.py", *sorted((ROOT / "backup").rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text("utf-8")) for path in paths}


@cache
def nodes() -> Mapping[Path, Sequence[ast.AST]]:
    """The nodes of each of these modules: many tests look at all of them."""
    return {path: tuple(ast.walk(tree)) for path, tree in trees().items()}
