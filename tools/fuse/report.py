"""The plan as data (the JSON contract of `fuse --dry-run --json`) and as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from sartor.tools.fuse.fit import spearman
from sartor.tools.fuse.plan import Group, LaunchPlan, Measurement, Plan, Verdict, Verification


def as_data(plan: Plan) -> dict[str, Any]:
    """Return the document that docs/json.md describes."""
    correlation = rank_correlation(plan)
    return {
        "schema": 1,
        "dispatches_before": plan.dispatches_before,
        "dispatches_after": plan.dispatches_after,
        "coefficients": plan.coefficients,
        "rank_correlation": None if correlation is None else round(correlation, 4),
        "groups": [_group(verdict) for verdict in plan.verdicts],
        "refused": dict(plan.refused),
        "verification": _verification(plan),
        "unmet": list(plan.unmet),
    }


def _verification(plan: Plan) -> dict[str, Any]:
    """Count the functions whose kernels were compared; name those that fail and those that were not compared."""
    found = {v.group.call.function.name: v.verified for v in plan.verdicts if v.kept or not v.verified.ok}
    return {
        "checked": sum(each.checked for each in found.values()),
        "failed": sorted(name for name, each in found.items() if not each.ok),
        "skipped": {name: each.reason for name, each in sorted(found.items()) if not each.checked},
    }


def _group(verdict: Verdict) -> dict[str, Any]:
    group, times = verdict.group, verdict.measurement
    return {
        "id": group.id,
        "function": group.call.function.name,
        "nodes": list(group.names),
        "composition": group.composition,
        "bytes_saved": group.bytes_saved,
        "predicted_us": _rounded(group.predicted_us),
        "launches": [_launch(one) for one in group.launches],
        "measured_us": _rounded(times.measured_us),
        "baseline_us": _rounded(times.baseline_us),
        "kept": verdict.kept,
        "reason": verdict.reason,
        "verified": _verified(verdict),
    }


def _launch(found: LaunchPlan) -> dict[str, Any]:
    tiles = [list(tile) for tile in found.tiles]
    return {**asdict(found), "tiles": tiles, "waves": round(found.waves, 4), "measured_us": _rounded(found.measured_us)}


def _verified(verdict: Verdict) -> dict[str, Any]:
    found = verdict.verified
    return {
        "checked": found.checked,
        "max_error": found.max_error,
        "bound": found.bound,
        "reference": found.reference,
        "runs": found.runs,
        "reason": found.reason if verdict.kept or not found.ok else "the group is left out",
    }


def rank_correlation(plan: Plan) -> float | None:
    """Return Spearman's correlation of predicted and measured times over distinct calls; None for fewer than three."""
    pairs: dict[object, tuple[float, float]] = {}
    for verdict in plan.verdicts:
        group, measured = verdict.group, verdict.measurement.measured_us
        if group.predicted_us is not None and measured is not None:
            pairs[group.call.function.name, group.call.inputs] = (group.predicted_us, measured)
    return spearman([predicted for predicted, _ in pairs.values()], [measured for _, measured in pairs.values()])


def _rounded(time: float | None) -> float | None:
    return None if time is None else round(time, 3)


def as_text(plan: Plan) -> str:
    """Return the plan for people: every group with its members and times, then what was left out and why."""
    lines = [headline(plan)]
    for verdict in plan.verdicts:
        lines += ["", *_paragraph(verdict)]
    if plan.refused:
        lines += ["", "not fusable:"]
        lines += [f"  {count} x {reason}" for reason, count in Counter(plan.refused.values()).most_common()]
    correlation = rank_correlation(plan)
    if correlation is not None:
        lines += ["", f"rank correlation of predicted and measured times {correlation:.2f} ({plan.coefficients})"]
    return "\n".join(lines)


def headline(plan: Plan) -> str:
    """Return the result in one line."""
    kept = sum(verdict.kept for verdict in plan.verdicts)
    counts = ""
    if plan.dispatches_before is not None and plan.dispatches_after is not None:
        counts = f"; non-compute operators {plan.dispatches_before} -> {plan.dispatches_after}"
    return f"{kept} of {len(plan.verdicts)} groups fused{counts}"


def _paragraph(verdict: Verdict) -> list[str]:
    group = verdict.group
    operators = Counter(node.op_type for node in group.nodes)
    listed = ", ".join(f"{op} x{count}" if count > 1 else op for op, count in operators.items())
    saved = "" if group.bytes_saved is None else f", {group.bytes_saved} bytes of traffic saved"
    lines = [f"{group.id} {group.call.function.name} {'fused' if verdict.kept else 'left out'}: {verdict.reason}"]
    size = f"{len(group.nodes)} node{'s' * (len(group.nodes) > 1)}"
    lines.append(f"  {size}, {group.composition} composition{saved}")
    lines += _times(group, verdict.measurement)
    lines += [f"  {_launched(one)}" for one in group.launches]
    if verdict.verified.checked:
        lines.append(f"  {_comparison(verdict.verified)}")
    lines.append(f"  operators: {listed}")
    lines.append(f"  nodes: {' '.join(group.names)}")
    return lines


def _times(group: Group, times: Measurement) -> list[str]:
    """Say what the kernel takes; on a GPU also where nothing was measured."""
    if times.measured_us is not None and times.baseline_us is not None:
        predicted = "" if group.predicted_us is None else f" (predicted {group.predicted_us:.1f})"
        rival = "torch" if group.launches else "onnxruntime"
        return [f"  kernel {times.measured_us:.1f} us{predicted}, {rival} {times.baseline_us:.1f} us"]
    if group.launches and group.predicted_us is not None:
        return [f"  kernel predicted {group.predicted_us:.1f} us"]
    return []


def _launched(found: LaunchPlan) -> str:
    tiles = ", ".join(f"{rows}x{columns}" for rows, columns in found.tiles)
    spilt = f", {found.spills} bytes of them spilt" if found.spills else ""
    taken = f"{found.registers} registers{spilt}, {found.shared} bytes shared"
    held = f"{found.occupancy} a multiprocessor, {found.waves:.2f} waves"
    warps = f"{found.warps} warp{'s' * (found.warps > 1)}"
    count = f"{found.programs} program{'s' * (found.programs > 1)}"
    return f"{count} of {warps}, tiles {tiles}: {taken}; {held} ({found.chosen})"


def _comparison(found: Verification) -> str:
    error = "infinite" if found.max_error is None else f"{found.max_error:.2g}"
    return f"{found.runs} runs against {found.reference}: error {error}, allowed {found.bound:.2g}"
