"""What patterns of names stand for, by an index as without one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.patterns import NameIndex, PatternIndex, bracketed, matching

NAMES = st.lists(st.text("aAbB.\u0131iK[]é", min_size=1, max_size=5), max_size=6)
PATTERNS = st.text("aAbB.\u0131iKk*?é[]", min_size=1, max_size=4)


def plainly(pattern: str, names: list[str]) -> list[str]:
    """What the docstring of `matching` says, without any shortcut."""
    expression, rest = "", pattern
    while rest:
        literal = re.match(r"\[((?:[^]]|\]\])+)\]([.]|$)", rest) if expression[-2:] in ("", r"\.") else None
        if literal is not None:
            text = literal[1].replace("]]", "]")
            spelled = text if re.fullmatch(r"[^].[*?]+", text) else f"[{literal[1]}]"
            expression, rest = expression + re.escape(spelled + literal[2]), rest[literal.end() :]
        else:
            expression, rest = expression + {"*": ".*", "?": "."}.get(rest[0], re.escape(rest[0])), rest[1:]
    has_dot = "." in re.sub(r"(?:^|(?<=\.))\[(?:[^]]|\]\])+\](?=\.|$)", "", pattern)
    for flags in (re.S, re.S | re.I):
        matches = []
        for name in names:
            parts = [a.replace("]]", "]") if a else b for a, b in re.findall(r"\[((?:[^]]|\]\])+)\]|([^.\[\]]+)", name)]
            texts = [name, ".".join(parts)] + ([] if has_dot or not parts else [parts[-1], bracketed(parts[-1])])
            matches += [name] * any(re.fullmatch(expression, text, flags) for text in texts)
        if matches:
            return matches
    return []


@given(PATTERNS, NAMES)
def test_an_index_of_names_finds_what_a_look_at_each_name_finds(pattern: str, names: list[str]) -> None:
    assert NameIndex(names).matching(pattern) == matching(pattern, names) == plainly(pattern, names)


@given(st.lists(PATTERNS, max_size=5), st.text("aAbB.\u0131iK[]é", min_size=1, max_size=5))
def test_an_index_of_patterns_finds_the_first_that_fits(patterns: list[str], name: str) -> None:
    fitting = next((pattern for pattern in patterns if plainly(pattern, [name])), None)
    assert PatternIndex(patterns).first(name) == fitting


@pytest.mark.parametrize(
    ("pattern", "names", "matches"),
    [
        ("customer", ["dbo.Customer", "dbo.customer"], ["dbo.customer"]),
        ("CUSTOMER", ["dbo.Customer", "crm.customer"], ["dbo.Customer", "crm.customer"]),
        ("dbo.my.table", ["dbo.[my.table]"], ["dbo.[my.table]"]),
        ("I*", ["dbo.Invoice", "dbo.Album"], ["dbo.Invoice"]),
        ("dbo.[a*b]", ["dbo.[a*b]", "dbo.acb"], ["dbo.[a*b]"]),
        ("dbo.a*b", ["dbo.[a*b]", "dbo.acb"], ["dbo.[a*b]", "dbo.acb"]),
        ("[a?b]", ["dbo.[a?b]", "dbo.acb"], ["dbo.[a?b]"]),
        ("[A?B]", ["[a?b]", "acb"], ["[a?b]"]),
        ("[my.table]", ["dbo.[my.table]", "my.table"], ["dbo.[my.table]"]),
        ("[a.b].*", ["[a.b].c", "a.[b.c]"], ["[a.b].c"]),
        ("[dbo].[Customer]", ["dbo.Customer"], ["dbo.Customer"]),
        ("[[a]]*]", ["[[a]]*]", "[[a]]b]"], ["[[a]]*]"]),
        ("a[*]b", ["[a[x]]b]"], ["[a[x]]b]"]),
        ("*" * 40 + "!", ["dbo.CustomerInvoiceLine"], []),  # in its time: there are billions of ways to try
    ],
)
def test_a_pattern_stands_for_these_names_alone(pattern: str, names: list[str], matches: list[str]) -> None:
    assert matching(pattern, names) == matches
