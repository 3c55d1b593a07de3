"""What a plan, and the first file, say of things that a set leaves out."""

from __future__ import annotations

from collections.abc import Iterable

from backup.stores import Listed, PassedOver

_NAMED_AT_MOST = 20


def as_left_out(view: Listed) -> PassedOver:
    """Returns why a view, or a table of another server, is left out."""
    return PassedOver(view.name, view.kind, f"A {view.kind} takes part once a section names its key.")


def left_out_texts(things: Iterable[PassedOver]) -> list[str]:
    """Returns two sentences for each kind and reason: which things are left out, and why."""
    names: dict[tuple[str, str], list[str]] = {}
    for thing in things:
        names.setdefault((thing.kind, thing.reason), []).append(thing.name)
    return [
        f"the {kind if len(own) == 1 else f'{kind}s'} {', '.join(own[:_NAMED_AT_MOST])}"
        f"{' …' if len(own) > _NAMED_AT_MOST else ''} {'is' if len(own) == 1 else 'are'} left out. {reason}"
        for (kind, reason), own in names.items()
    ]
