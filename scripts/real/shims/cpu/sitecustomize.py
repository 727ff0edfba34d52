"""Runs at the start of every Python process that has this folder on PYTHONPATH, spawned schedulers included.

SGLang carries its own stand-in for triton, and installs it on macOS only. There is no triton without CUDA on Linux either,
so it is installed here, from its file: importing the package `sglang` would import triton first. Nothing of SGLang is changed.
"""

import gc
import importlib.machinery  # noqa: F401  (the stand-in uses it without importing it)
import importlib.util
import os
import pathlib
import sys


def install_triton_stand_in() -> None:
    for folder in sys.path:
        file = pathlib.Path(folder) / "sglang" / "_triton_stub.py"
        if not file.is_file():
            continue
        spec = importlib.util.spec_from_file_location("slime_real_triton", file)
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.install()
        return


if os.environ.get("SGLANG_USE_CPU_ENGINE") == "1":
    install_triton_stand_in()
    # A start imports a million objects that stay; looking through them again and again takes a fifth of its time.
    gc.set_threshold(200_000, 50, 100)
