"""Which composition, tile sizes and warps a kernel runs with: predicted, compiled, or measured, and remembered.

Candidates are all compositions of a program in all configurations that its sizes admit. The estimate without resources
ranks them. `by_resources` compiles the best and ranks these anew by what the machine code takes; a kernel that spills
registers is only taken where all do. `by_clock` runs the best of those on the device and takes the fastest.

What was compiled or measured is kept in the cache, by the kernels' sources, the sizes, the device, and the versions of
Triton and sartor; what is predicted is worked out anew, in milliseconds. An entry that is damaged, or of kernels that
there are no more, counts for nothing and is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from sartor import __version__
from sartor.share.cache import get, put
from sartor.share.triton_ahead import Resources, Target
from sartor.tools.fuse.gpu_clock import Clock
from sartor.tools.fuse.gpu_compile import compiles
from sartor.tools.fuse.gpu_cost import Estimate, evaluate
from sartor.tools.fuse.gpu_facts import DeviceFacts
from sartor.tools.fuse.gpu_kernel import Config, GpuKernel, SizesRefusedError, configurations, fits
from sartor.tools.fuse.gpu_launch import Planned, plan, resources

COMPILED, TIMED = 6, 4
"""Candidates that are compiled, and of these those that are timed."""

ROUNDS = 20
"""How often each candidate is timed, in turn; the shortest time counts."""

STEP = 1.02
"""Times are compared in such steps, because an estimate can tell no less."""

SCHEMA = 1

Method = Literal["predicted", "compiled", "measured"]


@dataclass(frozen=True)
class Choice:
    """A candidate with its estimate, and by what it was chosen; `measured_us` is the time that a device took."""

    planned: Planned
    estimate: Estimate
    method: Method = "predicted"
    measured_us: float | None = None


@dataclass(frozen=True)
class Trial:
    """What times candidates: `run` enqueues one on a device, `clock` times a call."""

    run: Callable[[Planned], object]
    clock: Clock


MakeTrial = Callable[[], Trial]
"""Makes what times candidates, once it is known that something is to be timed."""


def ranked(kernels: Sequence[GpuKernel], names: Mapping[str, int], facts: DeviceFacts) -> list[Choice]:
    """List all candidates for the values of named sizes, the best by the estimate before compilation first.

    Raises SizesRefusedError where no kernel fits.
    """
    able = [kernel for kernel in kernels if fits(kernel, names)]
    if not able:
        raise SizesRefusedError("an axis that a program must hold whole is too long")
    planned = [
        plan(kernel, names, facts.multiprocessors, config)
        for kernel in able
        for config in configurations(kernel, names)
    ]
    return best_first([Choice(one, evaluate(one, None, facts)) for one in planned])


def best_first(choices: Sequence[Choice]) -> list[Choice]:
    """Sort by time, sound ones first; where the time is within the same step the earlier stays first."""
    return sorted(choices, key=_rank)


def _rank(choice: Choice) -> tuple[bool, bool, int]:
    found = choice.estimate
    return found.occupancy == 0, not found.sound, math.floor(math.log(found.us) / math.log(STEP))


def decided(kernels: Sequence[GpuKernel], names: Mapping[str, int], facts: DeviceFacts) -> Choice:
    """Return what is remembered, or else what the estimate prefers; compiles nothing."""
    return remembered(kernels, names, facts) or ranked(kernels, names, facts)[0]


def by_resources(choices: Sequence[Choice], facts: DeviceFacts) -> list[Choice]:
    """Compile the first candidates for a device, more if all of them spill, and rank them by what they take."""
    target = Target(facts.capability)
    compiled: list[Choice] = []
    for choice in choices:
        if len(compiled) >= COMPILED and any(one.estimate.sound for one in compiled):
            break
        taken = resources(choice.planned.kernel, choice.planned.launch, target)
        compiled.append(Choice(choice.planned, evaluate(choice.planned, taken, facts), "compiled"))
    return best_first(compiled)


def by_clock(choices: Sequence[Choice], trial: Trial) -> Choice:
    """Time the first candidates in turn, after two runs that do not count, and return the fastest."""
    tried = [choice for choice in choices if choice.estimate.sound][:TIMED] or choices[:1]
    calls = [partial(trial.run, choice.planned) for choice in tried]
    for call in calls * 2:
        trial.clock.time(call)
    rounds = [[trial.clock.time(call) for call in calls] for _ in range(ROUNDS)]
    times = [min(column) for column in zip(*rounds, strict=True)]
    fastest = min(range(len(tried)), key=times.__getitem__)
    return replace(tried[fastest], method="measured", measured_us=times[fastest])


def settled(
    kernels: Sequence[GpuKernel], names: Mapping[str, int], facts: DeviceFacts, trial: MakeTrial | None
) -> Choice:
    """Return what is remembered, or else compile the best candidates, time them where there is a trial, and remember.

    What was only compiled is timed after all. Where Triton does not compile, as in its interpreter, the estimate
    decides.
    """
    found = remembered(kernels, names, facts) if compiles() else None
    if found is not None and (trial is None or found.method == "measured"):
        return found
    choices = ranked(kernels, names, facts)
    if not compiles():
        return choices[0]
    choices = by_resources(choices, facts)
    choice = choices[0] if trial is None else by_clock(choices, trial())
    remember(choice, kernels, facts)
    return choice


def remembered(kernels: Sequence[GpuKernel], names: Mapping[str, int], facts: DeviceFacts) -> Choice | None:
    """Return the choice of an earlier run; None where there is none, or none that these kernels can follow."""
    found = get(_entry(kernels, names, facts))
    if found is None:
        return None
    try:
        return _restored(json.loads(found), kernels, names, facts)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(choice: Choice, kernels: Sequence[GpuKernel], facts: DeviceFacts) -> None:
    """Keep a choice for later runs."""
    planned = choice.planned
    document = {
        "schema": SCHEMA,
        "kernel": _digest(planned.kernel.source),
        "tiles": planned.config.tiles,
        "warps": planned.config.warps,
        "resources": asdict(choice.estimate.resources),
        "method": choice.method,
        "measured_us": choice.measured_us,
    }
    put(_entry(kernels, planned.names, facts), json.dumps(document).encode())


def _restored(
    document: dict[str, Any], kernels: Sequence[GpuKernel], names: Mapping[str, int], facts: DeviceFacts
) -> Choice | None:
    """Make the choice that an entry describes; raises what parsing raises for one of another form."""
    config = Config(tuple((int(rows), int(columns)) for rows, columns in document["tiles"]), int(document["warps"]))
    taken = Resources(**{name: int(amount) for name, amount in document["resources"].items()})
    method: Method = document["method"]
    time = document["measured_us"]
    if document["schema"] != SCHEMA or method not in ("compiled", "measured"):
        return None
    for kernel in kernels:
        if _digest(kernel.source) == document["kernel"] and config in configurations(kernel, names):
            planned = plan(kernel, names, facts.multiprocessors, config)
            return Choice(planned, evaluate(planned, taken, facts), method, None if time is None else float(time))
    return None


def _entry(kernels: Sequence[GpuKernel], names: Mapping[str, int], facts: DeviceFacts) -> str:
    import triton

    sources = [_digest(kernel.source) for kernel in kernels]
    made_by = [triton.__version__, __version__]
    key = [SCHEMA, sources, sorted(names.items()), facts.name, facts.multiprocessors, *made_by]
    return f"t_{_digest(json.dumps(key))}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
