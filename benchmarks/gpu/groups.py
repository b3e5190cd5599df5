"""Groups of memory-intensive operators as Triton kernels, against torch and torch.compile, and against a copy."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _common import Bar, error, geometric_mean, require_close
from models.groups import HUGE, LARGE, SMALL, TINY, Group, Shape, export_group, groups

from gpu.clock import Clock, copy_bandwidth, race
from gpu.sides import EAGER, INDUCTOR, SARTOR, Side, fused_side, torch_side
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options

COLUMNS = ("group", "size", "sartor us", "torch", "torch.compile", "of a copy")
SHAPES: Sequence[Shape] = (SMALL, LARGE, HUGE)
FULL_BYTES = 64 << 20
"""Traffic from which on a kernel has to come close to the speed of a copy."""


def rows(
    device: torch.device, clock: Clock, seconds: float, quick: bool, only: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Check and time the groups, or those named; exits on a wrong result."""
    for shape in (TINY,) if quick else SHAPES:
        for group in groups(shape):
            if not only or group.name in only:
                yield _measure(group, shape, device, clock, seconds)


def _measure(group: Group, shape: Shape, device: torch.device, clock: Clock, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(group, Path(folder), device)
    wide = [tensor.to(device) for tensor in group.inputs]
    expected = [group.function(*(one.double() if one.is_floating_point() else one for one in wide)).cpu().numpy()]
    errors = {}
    for name, side in sides.items():
        side.call()
        errors[name] = error(side.outputs(), expected)
        require_close(f"{group.name} {shape} {name}", errors[name])
    times = race({name: side.call for name, side in sides.items()}, clock, seconds)
    moved = sum(one.nbytes for one in group.inputs) + expected[0].size * 4
    share = moved / times[SARTOR].minimum * 1e6 / copy_bandwidth(moved, clock, device)
    return {
        "group": group.name,
        "shape": list(shape),
        "errors": errors,
        "times_us": {name: timing.as_json() for name, timing in times.items()},
        "bytes": moved,
        "share_of_copy": round(share, 4),
    }


def _sides(group: Group, folder: Path, device: torch.device) -> dict[str, Side]:
    source, target = export_group(group, folder), folder / "fused.onnx"
    fuse(str(source), str(target), Options(device="cuda", measure=False, verify=False), None)
    ours, session = fused_side(target, group.inputs, device)
    assert len(session.kernels) == 1, f"{group.name} is {len(session.kernels)} kernels"
    sides = {SARTOR: ours, EAGER: torch_side(group.function, group.inputs, device)}
    if device.type == "cuda":
        torch.compiler.reset()
        compiled = torch.compile(group.function, dynamic=False, mode="max-autotune-no-cudagraphs")
        sides[INDUCTOR] = torch_side(compiled, group.inputs, device)
    return sides


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table: minima, and the share of a copy's speed."""
    times = row["times_us"]
    size = "x".join(map(str, row["shape"]))
    minima = (f"{times[name]['min']:.1f}" if name in times else "-" for name in (SARTOR, EAGER, INDUCTOR))
    return (row["group"], size, *minima, f"{row['share_of_copy']:.0%}")


def bars(found: Sequence[dict[str, Any]]) -> tuple[Bar, ...]:
    """Return the claims about groups."""
    raced = [row for row in found if INDUCTOR in row["times_us"]]
    if not raced:
        return ()
    ratios = [row["times_us"][INDUCTOR]["min"] / row["times_us"][SARTOR]["min"] for row in raced]
    shares = [row["share_of_copy"] for row in raced if row["bytes"] >= FULL_BYTES]
    copy = (Bar("slowest against a copy, 64 MiB and more", min(shares), 0.7, True),) if shares else ()
    return (Bar("geometric mean over torch.compile", geometric_mean(ratios), 1.0, True), *copy)
