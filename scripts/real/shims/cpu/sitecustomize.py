"""Runs at the start of every Python process that has this folder on PYTHONPATH, spawned schedulers included. Nothing of SGLang is changed."""

import gc
import os

if os.environ.get("SGLANG_USE_CPU_ENGINE") == "1":
    import triton_stand_in

    triton_stand_in.install()
    # A start imports a million objects that stay; looking through them again and again takes a fifth of its time.
    gc.set_threshold(200_000, 50, 100)
