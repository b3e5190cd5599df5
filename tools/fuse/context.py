"""The last word: groups are judged by the whole model, because a kernel may keep onnxruntime from an optimisation
around it.

A group that wins alone can lose here: a convolution that would have absorbed its activation, or a blocked layout that
must be undone before the kernel and redone behind it. Functions are left out one at a time; whichever the model is
faster without is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

import numpy as np
import onnx_ir as ir

from sartor.share.artifact import write_model
from sartor.share.cache import get, put
from sartor.share.execute import run_session
from sartor.share.inputs import random_inputs
from sartor.share.timing import Race, race
from sartor.tools.fuse.measure import Setting
from sartor.tools.fuse.places import Place

SECONDS = 0.5
"""Time of one comparison."""

PATIENCE = 4.0
"""Seconds after which no further function is tried; the most doubtful ones come first."""

_EXTERNAL = 1 << 22

MARGIN = 1.02
"""How many times faster the model must be without a function for the function to be dropped."""

LARGEST = 1 << 30
"""Bytes of weights above which a model is not run as a whole: it may not fit into memory twice."""


def burdens(
    fused: ir.Model, original: ir.Model, functions: Sequence[str], setting: Setting, identity: str
) -> dict[str, str]:
    """Return the functions that the model is better off without, with the reason; `identity` names its content.

    Raises UsageError where the original model does not run on random inputs of these sizes.
    """
    weights = sum(v.const_value.nbytes for v in fused.graph.initializers.values() if v.const_value is not None)
    if not functions or weights > LARGEST:
        return {}
    name = _entry(functions, setting, identity)
    found = get(name)
    if found is None:
        found = json.dumps(_search(fused, original, functions, setting)).encode()
        put(name, found)
    reasons: dict[str, str] = json.loads(found)
    return reasons


def _entry(functions: Sequence[str], setting: Setting, identity: str) -> str:
    facts = [sorted(functions), sorted(setting.axes.items()), *setting.place.facts, SECONDS, identity]
    return f"c_{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"


def _feed(model: ir.Model, setting: Setting) -> dict[str, np.ndarray]:
    used = {name: (size,) for name, size in setting.axes.items() if _is_axis(model, name)}
    return random_inputs(model, used, [setting.seed])


def _is_axis(model: ir.Model, name: str) -> bool:
    return any(
        not isinstance(dim, int) and dim.value == name for value in model.graph.inputs for dim in value.shape or ()
    )


def _search(fused: ir.Model, original: ir.Model, functions: Sequence[str], setting: Setting) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="sartor-", dir=_memory_folder()) as folder:
        path = Path(folder) / "fused.onnx"
        # With external data every session maps the weights instead of copying them.
        write_model(fused, path, external_above=_EXTERNAL)
        return _tried(path, original, functions, _feed(fused, setting), setting.place)


def _tried(
    path: Path, original: ir.Model, functions: Sequence[str], feed: dict[str, np.ndarray], place: Place
) -> dict[str, str]:
    """Leave out one function after the other; stay without those that the model is faster without."""
    plain = place.open(original)
    run_session(plain, feed, "the model")

    def session(skip: frozenset[str]) -> Callable[[], object]:
        return place.runner(place.open(path, skip), feed).call

    current = session(frozenset())
    try:
        current()
    # The exceptions of onnxruntime have no base class of their own.
    except Exception as error:
        return dict.fromkeys(functions, f"the model fails with it: {error}")
    dropped = _leave_out(functions, session, current)
    if dropped:
        current = session(frozenset(dropped))
    held_back = _faster(place.runner(plain, feed).call, current)
    return dict.fromkeys(functions if held_back else dropped, "the model as a whole is faster without it")


def _leave_out(
    functions: Sequence[str], session: Callable[[frozenset[str]], Callable[[], object]], current: Callable[[], object]
) -> list[str]:
    dropped: list[str] = []
    started = monotonic()
    for name in functions:
        if monotonic() - started > PATIENCE:
            break
        without = session(frozenset([*dropped, name]))
        if _faster(without, current):
            current = without
            dropped.append(name)
    return dropped


def _memory_folder() -> str | None:
    """Return a folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def _faster(a: Callable[[], object], b: Callable[[], object]) -> bool:
    """Tell whether `a` is faster beyond doubt: by minimum and median, twice."""
    return all(_wins(race(a, b, SECONDS)) for _ in range(2))


def _wins(result: Race) -> bool:
    return result.ratio_min > MARGIN and result.ratio_median > MARGIN
