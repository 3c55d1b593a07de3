"""Reads the Bicep files of infra/ as values, by pycep. Compiles nothing: only the real compiler, in CI, does that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pycep import BicepParser

ROOT = Path(__file__).parent.parent.parent
INFRA = ROOT / "infra"


@dataclass(frozen=True)
class BicepFile:
    """One file: its name below infra/, its text, and what pycep reads of it."""

    name: str
    text: str
    parsed: Mapping[str, Any]

    def part(self, kind: str) -> Mapping[str, Any]:
        """Its `parameters`, `variables`, `resources`, `modules` or `outputs`, by name."""
        return dict(self.parsed.get(kind) or {})

    def resources(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """The name, type and properties of each resource that it makes, also of those in loops."""
        for name, resource in self.part("resources").items():
            if not resource["existing"]:
                yield name, resource["type"], inner(resource["config"])


def inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a resource or a module says of itself, without its condition or its loop."""
    while "config" in config and ("condition" in config or "loop_type" in config):
        config = config["config"]
    return config


def bicep_file(name: str, text: str) -> BicepFile:
    """The file of this text. Raises what pycep raises for a text that is not Bicep."""
    return BicepFile(name, text, _parser().parse(text=text))


def bicep_files() -> list[BicepFile]:
    """All files of infra/."""
    return list(_files())


@cache
def _files() -> tuple[BicepFile, ...]:
    paths = sorted(INFRA.rglob("*.bicep"))
    return tuple(bicep_file(str(path.relative_to(INFRA)), path.read_text()) for path in paths)


@cache
def _parser() -> BicepParser:
    return BicepParser()  # its grammar is kept in the temporary folder, or each start would cost two seconds
