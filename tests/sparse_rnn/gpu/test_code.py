"""The kernel compiled for GPUs that are not here: registers, spills, shared memory, and how wide it loads."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from tests.kits import sparse_rnn_gpu_kit as kit

from sartor.share import cache
from sartor.share.errors import UnavailableError
from sartor.share.triton_ahead import disassembled, resources_of
from sartor.tools.sparse_rnn.gpu import cubin
from sartor.tools.sparse_rnn.gpu.limits import KNOWN, Gpu, Settings, fitting, programs_for, shapes
from sartor.tools.sparse_rnn.gpu.shape import Shape, lanes_for
from sartor.tools.sparse_rnn.kernels.form import form_of

H200, A100 = KNOWN["H200"], KNOWN["A100"]


def shape_of(kind: str, hidden: int, density: float, settings: Settings, gpu: Gpu = H200, **options: Any) -> Shape:
    """Return the shape of a layer whose rows have equally many weights."""
    directions = options.pop("directions", 1)
    cell = kit.cell_of(kind, **options)
    programs = programs_for(hidden, lanes_for(settings.batch), gpu.processors // directions)
    rows = -(-hidden // programs)
    counts = [np.full((1, rows * len(part)), round(density * hidden)) for part in form_of(cell).parts]
    found = fitting(
        shapes(cell, hidden, counts, (False, True)[:directions], cell.of(0), kind == "LSTM", programs, settings, False),
        gpu,
    )
    assert found is not None
    return found


def loads(sass: str) -> Counter[int]:
    """Count loads from shared memory by their bits; those that hide behind a predicate that never holds don't count."""
    lines = [line for line in sass.splitlines() if "@!PT" not in line]
    found = re.findall(r"\bLDS(?:\.(64|128))?\b (?!RZ)", "\n".join(lines))
    return Counter(int(bits or 32) for bits in found)


CASES = {
    "headline": (90, shape_of("LSTM", 2304, 0.3, Settings(4, "fp16"))),
    "bf16": (90, shape_of("LSTM", 2304, 0.3, Settings(4, "bf16", "counter"))),
    "flags": (90, shape_of("LSTM", 2304, 0.3, Settings(1, "fp16", "flags"))),
    "eight": (90, shape_of("LSTM", 2176, 0.3, Settings(8, "fp16"))),
    "sixteen": (90, shape_of("LSTM", 2048, 0.3, Settings(16, "bf16"))),
    "largest": (90, shape_of("LSTM", 5488, 0.05, Settings(4, "fp16"))),
    "both directions": (90, shape_of("LSTM", 1152, 0.3, Settings(4, "fp16"), directions=2)),
    "gru": (90, shape_of("GRU", 2304, 0.3, Settings(4, "fp16"))),
    "gru sixteen": (90, shape_of("GRU", 2048, 0.2, Settings(16, "fp16"))),
    "gru eight": (90, shape_of("GRU", 2304, 0.2, Settings(8, "bf16", "flags"))),
    "gru inside": (90, shape_of("GRU", 2304, 0.3, Settings(8, "fp16"), linear_before_reset=True, clip=3.0)),
    "rnn": (90, shape_of("RNN", 2304, 0.3, Settings(4, "bf16"))),
    "narrow": (90, shape_of("LSTM", 2304, 0.3, Settings(4, "fp16", wide=False))),
    "ampere": (80, shape_of("LSTM", 1536, 0.3, Settings(4, "fp16"), A100)),
    "ampere gru": (80, shape_of("GRU", 1536, 0.3, Settings(8, "fp16", "counter"), A100)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_resources(name: str) -> None:
    capability, shape = CASES[name]
    compiled = cubin.compile_shape(shape, capability)
    found = resources_of(compiled)
    assert found.spills == 0
    assert found.registers <= cubin.REGISTERS // shape.threads
    assert found.shared == shape.shared_bytes <= (H200 if capability == 90 else A100).shared
    sass = disassembled(compiled)
    if not shape.wide:
        assert set(loads(sass)) == {32}
        return
    # Four weights a load; a look-up brings all lanes, 128 bits of them at most.
    wanted = {2: 32, 4: 64, 8: 128, 16: 128}[shape.lanes]
    assert {wanted, 64 if shape.lanes == 16 else 128} <= set(loads(sass))
    inner = inner_loop(sass)
    weights = shape.vector * shape.unrolled
    assert loads(inner)[wanted] >= weights * shape.planes
    assert "BAR" not in inner
    # A look-up is that of all lanes, so that there are no more than weights and their own loads.
    assert loads(inner).total() <= weights * shape.planes + shape.unrolled


def inner_loop(sass: str) -> str:
    """Return the loop with most multiply-adds an instruction that has no loop inside: that over weights."""
    blocks, lines = [], sass.splitlines()
    starts = {match[1]: i for i, line in enumerate(lines) if (match := re.match(r"\s*\.(L_x_\d+):", line))}
    for i, line in enumerate(lines):
        target = re.search(r"BRA.*`\(\.(L_x_\d+)\)", line)
        if target and starts.get(target[1], i) < i:
            blocks.append("\n".join(lines[starts[target[1]] : i]))
    return max((block for block in blocks if block.count(".L_x_") <= 1), key=lambda block: block.count("FFMA"))


def test_arguments_are_those_that_a_launch_passes() -> None:
    _, shape = CASES["headline"]
    compiled = cubin.compile_shape(shape, 90)
    (entry,) = re.findall(r"\.entry recurrence\((.*?)\)", compiled.asm["ptx"], re.DOTALL)
    kinds = re.findall(r"\.param \.(\w+) (?:\.ptr \S+ \.align \d+ )?recurrence_param_\d+", entry)
    sizes = {"i32": "u32", "i64": "u64"}
    declared = [sizes.get(kind, "u64") for kind in cubin.SIGNATURE.values()] + ["u64"] * cubin.SCRATCH_POINTERS
    assert kinds == declared
    assert compiled.metadata.launch_cooperative_grid


def test_code_travels_as_an_array_and_is_kept() -> None:
    _, shape = CASES["rnn"]
    made = cubin.cubin_for(shape, 90)
    assert (made.capability, made.threads, made.shared) == (90, shape.threads, shape.shared_bytes)
    assert cubin.from_array(made.as_array()) == made
    assert cache.get(f"g_{cubin.key_of(shape, 90)}.cubin") == made.as_array().tobytes()
    assert cubin.cubin_for(shape, 90) == made


def test_an_older_triton_is_named_and_code_compiled_elsewhere_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.experimental.gluon import language

    _, shape = CASES["rnn"]
    kept = cubin.cubin_for(shape, 90)
    monkeypatch.delattr(language, "inline_asm")
    assert cubin.cubin_for(shape, 90) == kept
    with pytest.raises(UnavailableError) as caught:
        cubin.cubin_for(shape, 100)
    assert str(caught.value) == "persistent kernels: Triton's Gluon lacks inline_asm. Install triton 3.9"
