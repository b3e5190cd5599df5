"""What a call costs on a GPU, and how its kernels run: as the estimate predicts, or as planning settles it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sartor.tools.fuse.gpu_call import GpuCall
from sartor.tools.fuse.gpu_cost import together
from sartor.tools.fuse.gpu_facts import DeviceFacts
from sartor.tools.fuse.gpu_launch import Planned
from sartor.tools.fuse.gpu_tune import Choice, MakeTrial
from sartor.tools.fuse.plan import LaunchPlan

Priced = tuple[str, float | None, tuple[LaunchPlan, ...]]
"""The composition of a call, its microseconds, and how each of its parts is launched."""

UNKNOWN = 128
"""The size of axes that nothing tells, where only the composition is asked for."""


def predicted(call: GpuCall, axes: Mapping[str, int], unknown: int | None, facts: DeviceFacts) -> Priced:
    """Price a call before anything is compiled; `unknown` is the size of axes that are not given.

    Without a size the time is None and the composition that of a call of unknown sizes.
    """
    names = _sizes(call, axes, unknown)
    if names is None:
        return _composition(call.predicted(_filled(call, axes), facts)), None, ()
    return _priced(call.predicted(names, facts))


def settled(call: GpuCall, axes: Mapping[str, int], facts: DeviceFacts, trial: MakeTrial | None) -> Priced:
    """Settle how a call runs at given sizes of named axes, with a trial by timing it, and price that."""
    names = _sizes(call, axes, None)
    if names is None:
        return predicted(call, axes, None, facts)
    return _priced(call.settled(names, facts, trial))


def _sizes(call: GpuCall, axes: Mapping[str, int], unknown: int | None) -> dict[str, int] | None:
    names = {name: axes.get(name, unknown) for name in call.names}
    known = {name: size for name, size in names.items() if size is not None}
    return known if len(known) == len(names) else None


def _filled(call: GpuCall, axes: Mapping[str, int]) -> dict[str, int]:
    return {name: axes.get(name, UNKNOWN) for name in call.names}


def _priced(choices: Sequence[Choice]) -> Priced:
    planned = [choice.planned for choice in choices]
    time = together([choice.estimate for choice in choices], GpuCall.packs(planned))
    return _composition(choices), time, tuple(map(_launch, choices))


def _launch(choice: Choice) -> LaunchPlan:
    planned, estimate = choice.planned, choice.estimate
    return LaunchPlan(
        composition=_kind(planned),
        programs=planned.launch.grid,
        warps=planned.launch.warps,
        tiles=planned.config.tiles,
        registers=estimate.resources.registers,
        spills=estimate.resources.spills,
        shared=estimate.resources.shared,
        occupancy=estimate.occupancy,
        waves=estimate.waves,
        chosen=choice.method,
        measured_us=choice.measured_us,
    )


def _composition(choices: Sequence[Choice]) -> str:
    return _kind(choices[0].planned) if len(choices) == 1 else "packing"


def _kind(planned: Planned) -> str:
    """Name how values are handed on (FusionStitching, table 1; AStitch for `global`)."""
    if len(planned.kernel.schedule.phases) > 1:
        return "global"
    if not any(root.folds for root in planned.kernel.schedule.roots):
        return "thread"
    return "warp" if planned.launch.warps == 1 else "block"
