"""Finds an actor's class: by a file's path or URL, or by a dotted module name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlparse

from .errors import SlimeError


def load_class(module: str, name: str) -> Any:
    """Imports the module and returns its class. Raises SlimeError `file.missing`, or what the module raised."""
    loaded = _load(module)
    found = getattr(loaded, name, None)
    if inspect.isclass(found):
        return found
    classes = ", ".join(key for key, value in vars(loaded).items() if inspect.isclass(value) and value.__module__ == loaded.__name__)
    raise SlimeError("file.missing", f"{module} has no class {name}; it has {classes or 'no class'}", {"path": module, "wanted": f"a class {name}"})


def _load(module: str) -> ModuleType:
    path = unquote(urlparse(module).path) if module.startswith("file:") else module
    if not path.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(path)
    file = Path(path).resolve()
    if not file.is_file():
        raise SlimeError("file.missing", f"{file} does not exist; the actor's module is a path ending in .py or a dotted name", {"path": str(file), "wanted": "a Python file"})
    # Its neighbours import each other by name, as when it is run as a script.
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    known = sys.modules.get(file.stem)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise SlimeError("file.missing", f"{file} cannot be loaded as Python", {"path": str(file), "wanted": "a Python file"})
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = loaded
    spec.loader.exec_module(loaded)
    return loaded
