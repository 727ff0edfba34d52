"""The names of SGLang's compiled kernels and nothing behind them.

SGLang 0.5.23 imports one kernel by name when it runs on a CPU. With the torch_native attention backend none is called;
a call fails and says which.
"""

from typing import NoReturn


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)

    def absent(*_args: object, **_options: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name}: no compiled kernels are installed")

    absent.__name__ = name
    return absent
