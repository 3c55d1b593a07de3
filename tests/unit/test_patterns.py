"""What patterns of names stand for, by an index as without one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.services.patterns import NameIndex, PatternIndex, matching

NAMES = st.lists(st.text("aAbB.\u0131iK[]é", min_size=1, max_size=5), max_size=6)
PATTERNS = st.text("aAbB.\u0131iKk*?é[]", min_size=1, max_size=4)


def plainly(pattern: str, names: list[str]) -> list[str]:
    """What the docstring of `matching` says, without any shortcut."""
    expression = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    for flags in (re.S, re.S | re.I):
        found = []
        for name in names:
            parts = [a.replace("]]", "]") if a else b for a, b in re.findall(r"\[((?:[^]]|\]\])+)\]|([^.\[\]]+)", name)]
            texts = [name, ".".join(parts)] + ([] if "." in pattern or not parts else [parts[-1]])
            found += [name] * any(re.fullmatch(expression, text, flags) for text in texts)
        if found:
            return found
    return []


@given(PATTERNS, NAMES)
def test_an_index_of_names_finds_what_a_look_at_each_name_finds(pattern: str, names: list[str]) -> None:
    assert NameIndex(names).matching(pattern) == matching(pattern, names) == plainly(pattern, names)


@given(st.lists(PATTERNS, max_size=5), st.text("aAbB.\u0131iK[]é", min_size=1, max_size=5))
def test_an_index_of_patterns_finds_the_first_that_fits(patterns: list[str], name: str) -> None:
    fitting = next((pattern for pattern in patterns if plainly(pattern, [name])), None)
    assert PatternIndex(patterns).first(name) == fitting


@pytest.mark.parametrize(
    ("pattern", "names", "found"),
    [
        ("customer", ["dbo.Customer", "dbo.customer"], ["dbo.customer"]),
        ("CUSTOMER", ["dbo.Customer", "crm.customer"], ["dbo.Customer", "crm.customer"]),
        ("dbo.my.table", ["dbo.[my.table]"], ["dbo.[my.table]"]),
        ("I*", ["dbo.Invoice", "dbo.Album"], ["dbo.Invoice"]),
    ],
)
def test_a_pattern_stands_for(pattern: str, names: list[str], found: list[str]) -> None:
    assert matching(pattern, names) == found
