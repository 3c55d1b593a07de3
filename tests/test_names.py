"""No word stands for two things, and no name shadows another."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from backup.core.suggestions import quantity
from tests.sources import nodes, trees

BACKUP = Path("backup")
ENGINES = BACKUP / "stores" / "sql" / "engines"

TYPE_VARIABLES = {"Item", "Other", "Result", "T"}
"""They stand for any type, in each module anew."""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Those of the package `backup`."""
    return ((path, tree) for path, tree in trees().items() if path.is_relative_to(BACKUP))


def assigned(node: ast.AST) -> set[str]:
    """The names that a statement or an expression gives a value."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def defined(module: ast.Module) -> set[str]:
    """The names that a module defines itself."""
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names |= assigned(target)
    return names


def test_no_two_modules_define_the_same_name() -> None:
    """But engines: each has the same job to do on another server, so the same word is the same thing there."""
    places: dict[str, set[str]] = defaultdict(set)
    for path, module in modules():
        engine = path.is_relative_to(ENGINES) and path.parent != ENGINES
        place = path.relative_to(ENGINES).name if engine else str(path.relative_to(BACKUP))
        for name in defined(module):
            if not name.startswith("_") and name not in TYPE_VARIABLES:
                places[name].add(place)
    assert {name: sorted(in_modules) for name, in_modules in places.items() if len(in_modules) > 1} == {}


def test_no_parameter_and_no_local_has_the_name_of_what_its_module_defines_or_imports() -> None:
    shadowed = []
    for path, module in modules():
        imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
        known = defined(module) | {(a.asname or a.name).split(".")[0] for node in imports for a in node.names}
        for function in nodes()[path]:
            if not isinstance(function, ast.FunctionDef | ast.Lambda):
                continue
            names = function.args
            local = {arg.arg for arg in (*names.posonlyargs, *names.args, *names.kwonlyargs)}
            body = function.body if isinstance(function.body, list) else [function.body]
            shared: set[str] = set()
            for node in body:
                local |= assigned(node) | {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef)}
                shared.update(name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names)
            where = getattr(function, "name", "a lambda")
            shadowed += [f"{path.relative_to(BACKUP)}: {where}: {name}" for name in (local & known) - shared]
    assert shadowed == []


COUNTED = re.compile(
    r" ((more|other|older|later) )?(records|rows|services|tables|runs|entries|columns|documents|containers|sinks|syncs|"
    r"changes|images|statements|differences|hours|minutes|keys|jobs|parts|indexes|sides)\b"
)


def test_what_a_message_counts_is_right_for_one_as_well() -> None:
    """`1 records`: `quantity` spells number and noun. A constant never is 1."""
    wrong = []
    for path, _ in modules():
        texts = [node for node in nodes()[path] if isinstance(node, ast.JoinedStr)]
        wrong += [
            f"{path.relative_to(BACKUP)}:{text.lineno}"
            for text in texts
            for value, after in pairwise(text.values)
            if isinstance(value, ast.FormattedValue)
            and not (isinstance(value.value, ast.Name) and value.value.id.isupper())
            and isinstance(after, ast.Constant)
            and COUNTED.match(str(after.value))
        ]
    assert wrong == []


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 rows are"), (1, "1 row is"), (1.0, "1 row is"), (1.5, "1.5 rows are"), (10**7, "10000000 rows are")],
)
def test_a_quantity_has_the_noun_and_the_verb_of_its_number(number: float, text: str) -> None:
    assert quantity(number, "row is", "rows are") == text
