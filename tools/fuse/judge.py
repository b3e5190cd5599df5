"""Judgement: a group is kept if it beats onnxruntime, alone and within its model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from sartor.tools.fuse.group import costed
from sartor.tools.fuse.measure import GAIN, Setting, measure
from sartor.tools.fuse.packing import bundles, pack
from sartor.tools.fuse.places import Place
from sartor.tools.fuse.plan import Group, Measurement, Verdict

Step = Callable[[int], None]


def keep_all(groups: Iterable[Group]) -> tuple[Verdict, ...]:
    """Keep every group unmeasured."""
    return tuple(Verdict(group, Measurement(), True, "not measured") for group in groups)


def judge(groups: Sequence[Group], setting: Setting, step: Step) -> tuple[Verdict, ...]:
    """Measure every distinct call once and keep those that win."""
    known: dict[tuple[object, ...], Measurement] = {}
    verdicts = []
    for group in groups:
        key = (group.call.function.name, group.call.inputs)
        if key not in known:
            known[key] = measure(group, setting)
        verdicts.append(_verdict(group, known[key], setting.place))
        step(1)
    return tuple(verdicts)


def _verdict(group: Group, times: Measurement, place: Place) -> Verdict:
    if times.measured_us is None or times.baseline_us is None:
        return Verdict(group, times, False, f"it could not be measured: {times.obstacle}")
    verdict = Verdict(group, times, True, "")
    rival = "onnxruntime" if place.device == "cpu" else "torch"
    if verdict.ratio >= GAIN:
        return replace(verdict, reason=f"{verdict.ratio:.2f} times as fast as {rival}")
    return replace(verdict, kept=False, reason=f"only {verdict.ratio:.2f} times as fast as {rival}")


def packed(verdicts: Sequence[Verdict], setting: Setting, measured: bool, opset: int) -> tuple[Verdict, ...]:
    """Pack kept groups into fewer kernels, where that is not slower than the kernels one by one."""
    known = {verdict.group: verdict for verdict in verdicts}
    out = dict(known)
    for bundle in bundles([verdict.group for verdict in verdicts if verdict.kept]):
        made = pack(bundle, opset, setting.place)
        if made is None:
            continue
        (whole,) = costed([made], setting.axes, setting.place)
        (verdict,) = judge([whole], setting, lambda _: None) if measured else keep_all([whole])
        if measured and not _pays(verdict, [known[group] for group in bundle]):
            continue
        names = ", ".join(group.id for group in bundle[1:])
        out[bundle[0]] = replace(verdict, reason=f"{verdict.reason}, packed with {names}")
        for group in bundle[1:]:
            del out[group]
    return tuple(out.values())


def _pays(verdict: Verdict, apart: Sequence[Verdict]) -> bool:
    times = [one.measurement.measured_us for one in apart]
    whole = verdict.measurement.measured_us
    return verdict.kept and whole is not None and whole <= sum(time for time in times if time is not None)


def drop(verdicts: Sequence[Verdict], reasons: Mapping[str, str]) -> tuple[Verdict, ...]:
    """Leave out the groups of the functions that a reason speaks against."""
    return tuple(
        replace(verdict, kept=False, reason=reasons[verdict.group.call.function.name])
        if verdict.kept and verdict.group.call.function.name in reasons
        else verdict
        for verdict in verdicts
    )
