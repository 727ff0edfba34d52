"""Hosts a user's reward function: JSON lines on file descriptors 3 (in) and 4 (out), so that its prints do no harm.

The function gets what upstream slime gives it: `args` with attributes, `sample` with attributes (or a list of samples).
A class `CustomRewardModel(model_path)` with `compute_reward(prompts, responses) -> list` works too.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import math
import os
import sys
import traceback
from types import SimpleNamespace
from typing import Any

NAMES = ("reward", "custom_rm", "reward_func")


def snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def sample_of(fields: dict[str, Any]) -> SimpleNamespace:
    sample = SimpleNamespace(**{snake(key): value for key, value in fields.items()})
    sample.tokens = list(fields["promptTokens"]) + list(fields["responseTokens"])
    sample.response_length = len(fields["responseTokens"])
    sample.to_dict = lambda: {key: value for key, value in vars(sample).items() if key != "to_dict"}
    return sample


def load(spec: dict[str, Any], args: SimpleNamespace) -> Any:
    path = spec["file"]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    module_spec = importlib.util.spec_from_file_location("slime_user_reward", path)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules["slime_user_reward"] = module
    module_spec.loader.exec_module(module)
    names = [spec["name"]] if spec["name"] else [*NAMES, "CustomRewardModel"]
    for name in names:
        found = getattr(module, name, None)
        if inspect.isclass(found):
            model = found(getattr(args, "hf_checkpoint", None))
            return lambda _args, samples: model.compute_reward([s.prompt for s in samples], [s.response for s in samples])
        if callable(found):
            return found if spec["group"] else each(found)
    raise AttributeError(f"{path} has no {', '.join(names)}; it has {', '.join(n for n in vars(module) if not n.startswith('_'))}")


def each(function: Any) -> Any:
    async def score(args: SimpleNamespace, samples: list[SimpleNamespace]) -> list[Any]:
        return [await settled(function, args, sample) for sample in samples]

    return score


async def settled(function: Any, *arguments: Any) -> Any:
    try:
        value = function(*arguments)
        return await value if inspect.isawaitable(value) else value
    except Exception as error:  # one sample's failure is its own
        return error


def scored(value: Any) -> dict[str, Any]:
    if isinstance(value, Exception):
        return {"kind": "failed", "reason": "".join(traceback.format_exception(value)).strip()[-2000:]}
    if isinstance(value, dict) and all(number(v) for v in value.values()):
        return {"kind": "scored", "reward": {str(k): float(v) for k, v in value.items()}}
    if number(value):
        return {"kind": "scored", "reward": float(value)}
    return {"kind": "failed", "reason": f"it returned {value!r}, not a finite number"[:2000]}


def number(value: Any) -> bool:
    try:
        return not isinstance(value, (str, bytes)) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


async def score_group(function: Any, args: SimpleNamespace, samples: list[SimpleNamespace]) -> list[dict[str, Any]]:
    values = await settled(function, args, samples)
    if isinstance(values, Exception):
        return [scored(values) for _ in samples]
    values = list(values)
    if len(values) != len(samples):
        return [scored(ValueError(f"it returned {len(values)} rewards for {len(samples)} samples")) for _ in samples]
    return [scored(value) for value in values]


def main() -> None:
    requests = os.fdopen(3, "r", encoding="utf-8")
    answers = os.fdopen(4, "w", encoding="utf-8", buffering=1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    start = json.loads(requests.readline())
    args = SimpleNamespace(**start["args"])
    try:
        function = load(start["spec"], args)
    except Exception as error:
        say({"kind": "broken", "reason": "".join(traceback.format_exception(error)).strip()[-2000:]})
        return
    say({"kind": "ready"})
    for line in requests:
        request = json.loads(line)
        samples = [sample_of(fields) for fields in request["samples"]]
        say({"kind": "done", "id": request["id"], "results": asyncio.run(score_group(function, args, samples))})


main()
