"""Prints what a package's argument class takes, as JSON, by reading its source: the package is not imported, so this takes
a fraction of a second and no GPU. `null` when the package, the file or the class is not there.

usage: python argument_fields.py PACKAGE FILE CLASS [FOLDER]      e.g. sglang srt/server_args.py ServerArgs srt/arg_groups/fields

Each setting: {"name": of the field, "flag": of the command line or null, "aliases": [...], "deprecated": bool, "negatable": bool}.
Three styles are read: fields annotated with Arg(...) metadata in the class; the same in classes of FOLDER that carry _NS_PATH, from
which newer versions put the class together; and parser.add_argument(...) calls within the class.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from typing import Dict, List, Optional


def find(package: str, path: str) -> Optional[str]:
    """Where a file or folder of an installed package lies."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = (os.path.join(folder, *path.split("/")) for folder in ((spec.submodule_search_locations or []) if spec is not None else []))
    return next((place for place in places if os.path.exists(place)), None)


def classes_of(path: str) -> List[ast.ClassDef]:
    with open(path, encoding="utf-8") as handle:
        return [node for node in ast.parse(handle.read()).body if isinstance(node, ast.ClassDef)]


def text(node: Optional[ast.AST]) -> Optional[str]:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def last_name(node: Optional[ast.AST]) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def keywords(call: ast.Call) -> Dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}


def underscored(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


class Settings:
    def __init__(self) -> None:
        self.found: Dict[str, Dict[str, object]] = {}

    def add(self, name: str, flag: Optional[str], aliases: List[str], deprecated: bool, negatable: bool) -> None:
        known = self.found.get(name)
        if known is None:
            self.found[name] = {"name": name, "flag": flag, "aliases": aliases, "deprecated": deprecated, "negatable": negatable}
            return
        if known["flag"] is None:
            known["flag"], known["deprecated"] = flag, deprecated
        known["aliases"] = [*known["aliases"], *aliases]  # type: ignore[misc]

    def field(self, node: ast.AnnAssign) -> None:
        if not isinstance(node.target, ast.Name):
            return
        name = node.target.id
        calls = [part for part in ast.walk(node.annotation) if isinstance(part, ast.Call)]
        if any(last_name(call.func) == "Derived" for call in calls):
            return  # computed, not given
        metadata = next((call for call in calls if last_name(call.func) == "Arg"), None)
        given = keywords(metadata) if metadata is not None else {}
        annotated = isinstance(node.annotation, ast.Subscript) and last_name(node.annotation.value) in ("A", "Annotated")
        hidden = "no_cli" in given or not annotated
        flag = None if hidden else underscored(text(given.get("cli_name")) or name)
        aliases = [underscored(item.value) for item in getattr(given.get("aliases"), "elts", []) if text(item) is not None]
        self.add(name, flag, aliases, False, last_name(given.get("action")) == "BooleanOptionalAction")

    def argument(self, call: ast.Call) -> None:
        given = keywords(call)
        flags = [underscored(name) for name in map(text, call.args) if name is not None and name.startswith("--")]
        if not flags:
            return
        action = last_name(given.get("action"))
        deprecated = action.startswith("Deprecated")
        dest = text(given.get("dest")) or flags[0]
        if deprecated:
            for flag in flags:
                self.add(flag, flag, [], True, False)
        else:
            self.add(dest, flags[0], flags[1:], False, action == "BooleanOptionalAction")


def is_namespace(node: ast.ClassDef) -> bool:
    return any(isinstance(part, ast.Assign) and last_name(part.targets[0]) == "_NS_PATH" for part in node.body)


def settings_of(file: str, name: str, folder: Optional[str]) -> Optional[List[Dict[str, object]]]:
    found = next((node for node in classes_of(file) if node.name == name), None)
    if found is None:
        return None
    parts = sorted(os.listdir(folder)) if folder is not None else []
    namespaces = [node for part in parts if part.endswith(".py") for node in classes_of(os.path.join(folder or "", part)) if is_namespace(node)]
    settings = Settings()
    for node in [*namespaces, found]:
        for field in node.body:
            if isinstance(field, ast.AnnAssign):
                settings.field(field)
    for call in ast.walk(found):
        if isinstance(call, ast.Call) and last_name(call.func) == "add_argument":
            settings.argument(call)
    return list(settings.found.values())


def main() -> None:
    package, file, name, *folders = sys.argv[1:]
    path = find(package, file)
    folder = find(package, folders[0]) if folders else None
    print(json.dumps(None if path is None else settings_of(path, name, folder)))


if __name__ == "__main__":
    main()
