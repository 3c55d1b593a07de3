"""What Azure knows of each resource of infra/: names of properties, values of enumerations, what may not be missing.

The types are those of the compiler (Azure/bicep-types-az), cut down to what infra/ touches. Run with the folder of a
clone, it cuts them anew: python -m tests.infra.resource_types FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.infra.bicep import INFRA, BicepFile, bicep_files, inner

TYPES = INFRA.parent / "tests/infra/schemas/resource-types.json"
_READ_ONLY, _REQUIRED = 2, 1
_EXPRESSIONS = ("operator", "function", "interpolation")  # a property may be called so too, and holds a text then
_OF_BICEP = {"parent", "scope", "dependsOn"}


def mistakes_of_types(file: BicepFile) -> Iterator[str]:
    """A line for each property that Azure does not know or misses, and for each value that it does not take."""
    names = {name for kind in ("parameters", "variables", "resources", "modules") for name in file.part(kind)}
    for name, resource in file.part("resources").items():
        kind = f"{resource['type']}@{resource['api_version']}"
        if kind not in types():
            yield f"{name}: the type {kind} is not kept; docs/decisions/deployment.md says how it gets there"
        elif not resource["existing"]:
            config = {key: value for key, value in inner(resource["config"]).items() if key not in _OF_BICEP}
            yield from _wrong(config, types()[kind], name, names)


@cache
def types() -> Mapping[str, Any]:
    """The types that are kept, by name and version."""
    return dict(json.loads(TYPES.read_text()))


def _wrong(value: Any, wanted: Any, path: str, names: set[str]) -> Iterator[str]:
    """Walks value and type together. A type is {property: type}, [type of items], {"enum": [values]}, or None for what
    is not looked at. A property's name ends in "!" where it may not be missing."""
    if isinstance(value, dict) and any(isinstance(value.get(part), dict | list) for part in _EXPRESSIONS):
        for choice in _choices(value):
            yield from _wrong(choice, wanted, path, names)
    elif isinstance(value, dict) and "loop_type" in value:
        if isinstance(wanted, list):
            yield from _wrong(value["config"], wanted[0], path, names)
    elif isinstance(wanted, list):
        for item in value if isinstance(value, list) else []:
            yield from _wrong(item, wanted[0], path, names)
    elif isinstance(wanted, dict) and "enum" in wanted:
        # The parser does not tell a text from a name.
        if isinstance(value, str) and value not in wanted["enum"] and value not in names and "." not in value:
            yield f"{path} is {value!r}, not one of {', '.join(wanted['enum'])}"
    elif isinstance(wanted, dict) and isinstance(value, dict):
        known = {name.removesuffix("!"): kind for name, kind in wanted.items()}
        for name in sorted(value.keys() - known.keys()):
            yield f"{path}: Azure knows no property {name}"
        for name in sorted({name[:-1] for name in wanted if name.endswith("!")} - value.keys()):
            yield f"{path}: the property {name} is missing"
        for name in value.keys() & known.keys():
            yield from _wrong(value[name], known[name], f"{path}.{name}", names)


class _Published:
    """The types of one file types.json."""

    def __init__(self, path: Path) -> None:
        self.types = json.loads(path.read_text())

    def at(self, reference: Mapping[str, str]) -> Mapping[str, Any]:
        return dict(self.types[int(reference["$ref"].removeprefix("#/"))])

    def cut(self, kind: Mapping[str, Any], value: Any) -> Any:
        """The type, as deep as the value goes."""
        name, value = kind["$type"], _choice(value)
        if name == "UnionType":
            literals = [self.at(element) for element in kind["elements"]]
            return {"enum": [literal["value"] for literal in literals if literal["$type"] == "StringLiteralType"]}
        if name == "ArrayType":
            items = [value["config"]] if isinstance(value, dict) and "loop_type" in value else value
            first = items[0] if isinstance(items, list) and items else None
            return [self.cut(self.at(kind["itemType"]), first)]
        if "ObjectType" not in name or kind.get("additionalProperties") or not isinstance(value, dict):
            return None
        known = kind.get("properties") or {**kind["baseProperties"], **self._chosen(kind, value)}
        properties = {}
        for key, declared in sorted(known.items()):
            if not declared["flags"] & _READ_ONLY:
                cut = self.cut(self.at(declared["type"]), value[key]) if key in value else None
                properties[key + ("!" if declared["flags"] & _REQUIRED else "")] = cut
        return properties

    def _chosen(self, kind: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
        """The further properties of a type that comes in several forms, told apart by one of its values."""
        forms = kind["elements"]
        return dict(self.at(forms.get(str(value.get(kind["discriminator"])), next(iter(forms.values()))))["properties"])

    def resource(self, kind: str, value: Any) -> Any:
        for resource in self.types:
            if resource["$type"] == "ResourceType" and resource["name"].partition("@")[0].lower() == kind.lower():
                return self.cut(self.at(resource["body"]), value)
        return None


def _choice(value: Any) -> Any:
    """Of a value that depends on a condition, the one that says more."""
    return max(_choices(value), key=lambda choice: len(str(choice)), default=value)


def _choices(value: Any) -> list[Any]:
    """The two values of which a condition chooses one; none if there is no condition."""
    operator = value.get("operator") if isinstance(value, dict) else None
    operands = operator["operands"] if isinstance(operator, dict) and operator["type"] == "conditional" else None
    return [operands["true_value"], operands["false_value"]] if operands else []


def main(folder: Path) -> None:
    """Writes the types that are kept."""
    kept: dict[str, Any] = {}
    for file in bicep_files():
        for resource in file.part("resources").values():
            kind, version = resource["type"], resource["api_version"]
            provider = kind.partition("/")[0].lower()
            for path in sorted(folder.glob(f"generated/*/{provider}/{version}/types.json")):
                config = inner(resource["config"]) if not resource["existing"] else {}
                if (cut := _Published(path).resource(kind, config)) is not None:
                    previous = kept.get(f"{kind}@{version}")
                    if previous is None or len(str(cut)) > len(str(previous)):
                        kept[f"{kind}@{version}"] = cut
    TYPES.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
