"""Lets modules that import triton be imported where there is no triton: names resolve, decorators return what they decorate.

SGLang and torch define GPU kernels at import time, decorated by triton. On a CPU none of them is launched; one that is fails as
any call of a Python function with a kernel's arguments does.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence


class AnyClass:
    """What a capitalised name is: it can be made of anything, inherited from, and asked isinstance of."""

    def __init_subclass__(cls, **_options: object) -> None:
        super().__init_subclass__()

    def __init__(self, *args: object, **options: object) -> None:
        self.args = args
        for name, value in options.items():
            setattr(self, name, value)


class Constexpr(AnyClass):
    """triton.language.constexpr: an annotation, and a holder of a value."""

    def __init__(self, value: object = None) -> None:
        super().__init__()
        self.value = value


class StandIn(types.ModuleType):
    """A module whose every other name is a module again, which can be called as a decorator."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (AnyClass,), {"__module__": self.__name__}) if name[0].isupper() else importlib.import_module(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value

    def __call__(self, *args: object, **_options: object) -> object:
        bare = len(args) == 1 and not _options and (isinstance(args[0], type) or callable(args[0]))
        return args[0] if bare else lambda decorated: decorated

    def __getitem__(self, _key: object) -> "StandIn":
        return self

    def __or__(self, _other: object) -> "StandIn":
        return self

    __ror__ = __or__


# What is computed with at import time.
VALUES: dict[str, dict[str, object]] = {
    "triton": {
        "__version__": "3.0.0",
        "cdiv": lambda a, b: -(a // -b),
        "next_power_of_2": lambda n: 1 << (n - 1).bit_length() if n > 0 else 1,
    },
    "triton.language": {"constexpr": Constexpr},
    "triton.runtime.cache": {"triton_key": lambda: "no triton"},
    "triton.compiler.compiler": {"triton_key": lambda: "no triton"},
}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != "triton":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=__file__, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(VALUES.get(module.__name__, {}))


def install() -> None:
    """From now on `import triton` gives the stand-in. A triton that is installed is left alone."""
    if importlib.machinery.PathFinder.find_spec("triton") is None:
        sys.meta_path.insert(0, Finder())
