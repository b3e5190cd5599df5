"""The tuner: candidates compiled for a GPU that is not here, timed by a made-up clock, remembered in the cache."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import triton
from onnx import helper
from tests.kits import fuse_kit as kit

from sartor.share.cache import get, put
from sartor.share.triton_ahead import Resources, Target
from sartor.tools.fuse import gpu_tune
from sartor.tools.fuse.align import gpu_program
from sartor.tools.fuse.gpu_cost import evaluate, expected
from sartor.tools.fuse.gpu_facts import A100, H100
from sartor.tools.fuse.gpu_kernel import Config, GpuKernel, SizesRefusedError, gpu_kernels
from sartor.tools.fuse.gpu_launch import Planned, compiled, plan, resources
from sartor.tools.fuse.gpu_tune import (
    Choice,
    Trial,
    best_first,
    by_clock,
    by_resources,
    decided,
    ranked,
    remember,
    remembered,
    settled,
)  # fmt: skip
from sartor.tools.fuse.gpu_walk import INSTRUCTIONS
from sartor.tools.fuse.render.triton_ops import FORMULAS

F = np.float32
SIZES = {"n": 5000}

pytestmark = pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="nothing is compiled there")


def kernels(nodes: list[Any], shape: list[Any]) -> tuple[GpuKernel, ...]:
    """Write all kernels of a graph from x to y."""
    call = kit.whole(kit.model(nodes, {"x": (F, shape)}, ["y"]))[1]
    return gpu_kernels(gpu_program(call.function, call.inputs))


@pytest.fixture(scope="module")
def written() -> tuple[GpuKernel, ...]:
    """Write the kernels of a softmax of n rows."""
    return kernels([helper.make_node("Softmax", ["x"], ["y"])], ["n", 500])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path))


class Script:
    """A clock and a device that take as long as a function of the candidate says."""

    def __init__(self, time: Callable[[Planned], float]) -> None:
        self.wanted, self.runs = time, list[Planned]()
        self.trial = Trial(self.runs.append, SimpleNamespace(time=self._time))

    def _time(self, call: Callable[[], object]) -> float:
        call()
        return self.wanted(self.runs[-1])

    def __call__(self) -> Trial:
        return self.trial


def never() -> Trial:
    """Fail where something is to be timed."""
    raise AssertionError("nothing is to be timed")


def test_spills_are_rejected() -> None:
    """Of two candidates the one that spills comes last, however fast it is; of two that spill the faster is first."""
    written = kernels([helper.make_node("Softmax", ["x"], ["y"])], ["n", 16384])
    few, many = (plan(written[0], {"n": 100}, 108, Config(((1, 16384),), warps)) for warps in (2, 16))
    choices = by_resources([Choice(one, evaluate(one, Resources(32, 0, 0), A100)) for one in (few, many)], A100)
    assert [choice.planned.config.warps for choice in choices] == [16, 2]
    assert [choice.estimate.sound for choice in choices] == [True, False]
    assert {choice.method for choice in choices} == {"compiled"}
    spilt = [
        replace(choice.estimate, us=us, resources=Resources(255, 8, 0))
        for choice, us in zip(choices, (9, 5), strict=True)
    ]
    assert [one.estimate.us for one in best_first([Choice(few, estimate) for estimate in spilt])] == [5, 9]


def test_more_are_compiled_where_all_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    written = kernels([helper.make_node("Softmax", ["x"], ["y"])], ["n", 16384])
    planned = [plan(written[0], {"n": 100}, 108, Config(((1, 16384),), warps)) for warps in (2, 16, 8)]
    choices = [Choice(one, evaluate(one, Resources(32, 0, 0), A100)) for one in planned]
    monkeypatch.setattr(gpu_tune, "COMPILED", 1)
    assert [choice.planned for choice in by_resources(choices, A100)] == [planned[1], planned[0]]


def test_what_does_not_run_comes_last(written: tuple[GpuKernel, ...]) -> None:
    """A program that no multiprocessor holds is worse than one that spills."""
    choice = ranked(written, SIZES, H100)[0]
    large, spilt = (
        replace(choice, estimate=evaluate(choice.planned, found, H100))
        for found in (Resources(32, 0, 240 << 10), Resources(32, 8, 0))
    )
    assert best_first([large, spilt])[0] is spilt


def test_fewer_waves_come_first(written: tuple[GpuKernel, ...]) -> None:
    """Registers that the compiler reports turn the order of two candidates."""
    planned = ranked(written, SIZES, H100)[0].planned
    many, few = (Choice(planned, evaluate(planned, Resources(n, 0, 16), H100)) for n in (255, 32))
    assert many.estimate.waves > few.estimate.waves
    assert best_first([many, few]) == [few, many]


def test_resources_are_those_of_the_machine_code(written: tuple[GpuKernel, ...]) -> None:
    choices = by_resources(ranked(written, SIZES, H100), H100)
    assert len(choices) == gpu_tune.COMPILED
    for choice in choices:
        planned = choice.planned
        assert choice.estimate.resources == resources(planned.kernel, planned.launch, Target(90))
        guess = expected(planned, H100).registers
        assert guess / 2 <= choice.estimate.resources.registers <= guess * 2


def test_the_fastest_is_kept(written: tuple[GpuKernel, ...]) -> None:
    """Every candidate runs as often as every other, in turn, and the shortest of its times counts."""
    choices = by_resources(ranked(written, SIZES, H100), H100)
    wanted = choices[2].planned
    noise = iter(range(10**6))
    script = Script(lambda one: (5.0 if one is wanted else 6.0) + next(noise) % 7)
    kept = by_clock(choices, script())
    assert (kept.planned, kept.method, kept.measured_us) == (wanted, "measured", 5.0)
    assert len(script.runs) == gpu_tune.TIMED * (2 + gpu_tune.ROUNDS)
    assert script.runs[: gpu_tune.TIMED] == [choice.planned for choice in choices[: gpu_tune.TIMED]]
    assert script.runs[: gpu_tune.TIMED] == script.runs[gpu_tune.TIMED : 2 * gpu_tune.TIMED]


def test_a_measured_choice_is_read_back(written: tuple[GpuKernel, ...]) -> None:
    script = Script(lambda one: 3.0 + abs(one.launch.warps - 2))
    kept = settled(written, SIZES, H100, script)
    assert kept.method == "measured"
    for found in (settled(written, SIZES, H100, never), settled(written, SIZES, H100, None)):
        assert found == replace(kept, planned=found.planned)
        assert found.planned.config == kept.planned.config
        assert found.planned.kernel is kept.planned.kernel
    assert decided(written, SIZES, H100).planned.config == kept.planned.config


def test_other_sizes_devices_and_versions_have_entries_of_their_own(
    written: tuple[GpuKernel, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(settled(written, SIZES, H100, None), written, H100)
    assert remembered(written, SIZES, H100) is not None
    assert remembered(written, {"n": 5001}, H100) is None
    assert remembered(written, SIZES, replace(H100, name="NVIDIA H200")) is None
    assert remembered(written[:1], SIZES, H100) is None
    monkeypatch.setattr(triton, "__version__", "3.0.0")
    assert remembered(written, SIZES, H100) is None


def test_what_was_compiled_is_timed_when_that_is_possible(written: tuple[GpuKernel, ...]) -> None:
    first = settled(written, SIZES, H100, None)
    assert first.method == "compiled"
    assert settled(written, SIZES, H100, None) == replace(first, planned=remembered(written, SIZES, H100).planned)  # type: ignore[union-attr]
    script = Script(lambda one: 4.0)
    assert settled(written, SIZES, H100, script).method == "measured"
    assert script.runs
    assert settled(written, SIZES, H100, never).method == "measured"


def entry(folder: Path) -> Path:
    """Return the only entry of the tuner."""
    (path,) = folder.glob("t_*.json")
    return path


def test_a_damaged_entry_is_ignored_and_written_anew(written: tuple[GpuKernel, ...], tmp_path: Path) -> None:
    settled(written, SIZES, H100, None)
    path = entry(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert remembered(written, SIZES, H100) is None
    assert decided(written, SIZES, H100).method == "predicted"
    settled(written, SIZES, H100, None)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"kernel": "0" * 32},
        {"tiles": [[3, 512]]},
        {"tiles": 7},
        {"tiles": [[1, 2, 3]]},
        {"warps": 5},
        {"warps": None},
        {"method": "guessed"},
        {"resources": {"registers": 32}},
        {"resources": [1, 2, 3]},
        {"measured_us": "soon"},
    ],
    ids=str,
)
def test_a_foreign_entry_is_ignored_and_written_anew(
    change: dict[str, Any], written: tuple[GpuKernel, ...], tmp_path: Path
) -> None:
    """An entry of another form, or of a candidate that there is no more, does not count."""
    settled(written, SIZES, H100, None)
    name = entry(tmp_path).name
    whole = get(name)
    assert whole is not None
    put(name, json.dumps({**json.loads(whole), **change}).encode())
    assert remembered(written, SIZES, H100) is None
    settled(written, SIZES, H100, None)
    assert get(name) == whole


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff"])
def test_an_entry_that_is_no_document_is_ignored(data: bytes, written: tuple[GpuKernel, ...], tmp_path: Path) -> None:
    settled(written, SIZES, H100, None)
    put(entry(tmp_path).name, data)
    assert remembered(written, SIZES, H100) is None


def test_no_candidate_is_a_refusal() -> None:
    with pytest.raises(SizesRefusedError, match="too long"):
        ranked((), {}, H100)


def instructions(operator: str) -> float:
    """Count the instructions that an operator adds to an element's, in the machine code."""
    counts = []
    for names in (["Neg"], [operator, "Neg"]):
        chain = [helper.make_node(name, [f"v{i}"], [f"v{i + 1}"]) for i, name in enumerate(names)]
        chain[0].input[0], chain[-1].output[0] = "x", "y"
        (kernel,) = kernels(chain, [4096])
        planned = plan(kernel, {}, 132, Config(((1, 1024),), 4))
        counts.append(_listed(compiled(planned.kernel, planned.launch, Target(90)).asm["cubin"]))
    return (counts[1] - counts[0]) / 8


def _listed(cubin: bytes) -> int:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d\s+)?([A-Z0-9_.]+)", text, re.MULTILINE)
    return sum(name != "NOP" for name in found)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in ("log1p", "silu")])
def test_instructions_are_those_of_the_machine_code(name: str) -> None:
    """What the estimate counts for a formula is what the compiler makes of it."""
    assert instructions(name.capitalize()) == pytest.approx(INSTRUCTIONS[name], rel=0.15)
