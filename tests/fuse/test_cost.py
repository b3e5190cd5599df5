"""The cost model: what is counted, that predictions grow with sizes, that a fit finds what it should."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from tests.kits import fuse_kit as kit
from tests.kits.random_chains import random_chain
from tests.kits.rule_samples import SAMPLES

from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.coefficients import DEFAULTS, Caches, KernelRates
from sartor.tools.fuse.composition import schedules
from sartor.tools.fuse.cost import effective_threads, features, predicted_us, priced
from sartor.tools.fuse.fit import fit, nnls, quality, spearman
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.ops import DIVISION, LIBRARY, SCALARS
from sartor.tools.fuse.schedule import Schedule
from sartor.tools.fuse.score import Light
from sartor.tools.fuse.suite import SUITE, Sample, group_of
from sartor.tools.fuse.traffic import beyond, misses

CACHES = Caches(l1=48 << 10, l2=1 << 20, l3=32 << 20)


def scheduled(inputs: str, body: str) -> tuple[Schedule, ...]:
    """Schedule a graph in ONNX's text form whose output is y."""
    call = group_of(Sample("one", inputs, body)).call
    return schedules(lower(call.function, call.inputs))


def counted(inputs: str, body: str, rows: int, columns: int, threads: int = 1) -> dict[str, float]:
    """Return the features that are not 0."""
    found = features(scheduled(inputs, body), {"R": rows, "C": columns}, threads, CACHES)
    assert found is not None
    return {name: amount for name, amount in asdict(found).items() if amount}


def test_elementwise() -> None:
    # 8192 elements in blocks of 2048; 64 KiB are more than the first cache and less than half of the second.
    assert counted("float[R, C] x", "y = Exp(x)", 2, 4096) == {
        "call": 1, "argument": 2, "task": 4, "run": 4, "expensive": 8192 * 0.25, "near": 8192 * 8, "l2": 8192 * 8,
    }  # fmt: skip


def test_a_chain_counts_its_dearer_operators_apart() -> None:
    found = counted("float[R, C] x", "a = Exp(x) b = Tanh(a) y = Add(b, x)", 2, 4096)
    assert found["expensive"] == pytest.approx(8192 * 0.5)
    assert found["chained"] == pytest.approx(8192 * 0.25)
    assert found["light"] == pytest.approx(8192 * 0.03)
    assert found["near"] == 8192 * 8


def test_row_reduction_with_a_tail() -> None:
    # 20 columns are two vectors of 8 and four elements; the sum of a row is stored by its task.
    found = counted("float[R, C] x", "y = ReduceSum<keepdims = 1>(x, last)", 3, 20)
    assert found == {
        "call": 1, "argument": 2, "task": 3, "run": 3, "fold": 3, "near": 240,
        "light": pytest.approx(3 * 16 * 0.03), "scalar": pytest.approx(3 * 4 * 0.03),
    }  # fmt: skip


def test_column_reduction_keeps_its_accumulators_in_scratch() -> None:
    found = counted("float[R, C] x", "y = ReduceSum<keepdims = 1>(x, first)", 16, 256)
    # Two blocks of 128 columns: set to 0, read and written for every row, read once.
    assert found["scratch"] == 256 * 4 * (1 + 2 * 16 + 1)
    assert found["task"] == 2
    assert "fold" not in found


def test_a_broadcast_row_is_read_on_every_row_and_comes_from_afar_once() -> None:
    found = counted("float[R, C] x, float[C] b", "y = Add(x, b)", 64, 1024)
    assert found["near"] == 3 * 64 * 1024 * 4
    assert found["l2"] == (2 * 64 * 1024 + 1024) * 4


def test_transposes_are_strided() -> None:
    found = counted("float[R, C] x", "y = Transpose(x)", 64, 1024)
    assert found["strided"] == 64 * 1024
    # A stride of 4096 bytes falls into one set of the first cache and sixteen of the second.
    assert found["strided_l2"] == 64 * 1024
    assert "strided_l3" not in found


def test_gathers() -> None:
    rows = counted("float[1000, C] x, int64[R] i", "y = Gather(x, i)", 32, 64)
    assert rows["near"] == 2 * 32 * 64 * 4
    assert "gathered" not in rows
    assert counted("float[R, 100] x, int64[C] i", "y = Gather<axis = 1>(x, i)", 32, 64)["gathered"] == 32 * 64


def test_the_library_is_not_vectorised() -> None:
    assert counted("double[R, C] x", "y = Sin(x)", 4, 8)["library"] == 32 * LIBRARY
    assert counted("int32[R, C] x", "y = Mod(x, x)", 4, 8)["library"] == 32 * DIVISION
    single = counted("float[R, C] x", "y = Sin(x)", 4, 8)
    assert (single["expensive"], single.get("library")) == (32 * SCALARS["sin"].cost, None)


def test_pieces_of_a_concatenation_run_apart() -> None:
    found = counted("float[R, 64] x, float[R, 64] z", "a = Exp(x) y = Concat<axis = 1>(a, z)", 10, 1)
    assert (found["task"], found["run"]) == (10, 20)
    assert found["expensive"] == pytest.approx(10 * 64 * 0.25)
    assert found["near"] == 4 * 10 * 64 * 4


def test_parts_of_a_kernel_add_up() -> None:
    nodes = [helper.make_node("Exp", ["x"], ["y"]), helper.make_node("Mod", ["i", "i"], ["z"])]
    call = kit.whole(kit.model(nodes, {"x": (np.float32, ["R", 8]), "i": (np.int32, ["R", 8])}, ["y", "z"]))[1]
    found = features(schedules(lower(call.function, call.inputs)), {"R": 4}, 1, CACHES)
    assert found is not None
    assert (found.call, found.argument, found.task) == (1, 4, 2)
    assert (found.library, found.near) == (32 * DIVISION, 4 * 32 * 4)
    assert found.expensive == pytest.approx(32 * 0.25)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample.label))
def test_every_rule_has_a_price(sample: Any) -> None:
    outputs = [out for out in sample.node.output if out]
    assert_priced(kit.model([sample.node], sample.inputs, outputs, sample.weights, sample.opset))


@pytest.mark.parametrize("seed", range(200))
def test_random_chains_have_a_price(seed: int) -> None:
    chain, outputs = random_chain(seed)
    inputs = {name: (np.float32, shape) for name, shape in chain.inputs.items()}
    with suppress(NotEmittableError):
        assert_priced(kit.model(chain.nodes, inputs, outputs, chain.weights))


def assert_priced(model: Any) -> None:
    """Require a finite price at any size, none included."""
    call = kit.whole(model)[1]
    planned = schedules(lower(call.function, call.inputs))
    for n in (0, 1, 64):
        time = predicted_us(planned, {"n": n, "m": 63}, 2)
        assert time is not None
        assert 1 <= time < 1e6


def test_phases_fork_where_there_is_work() -> None:
    # 256 blocks leave a part each; one task adds them up, which is no work to share; then come 1024 tasks.
    mean = "float[R, C] x", "a = ReduceMean<keepdims = 0>(x) y = Sub(x, a)"
    one, two = (counted(*mean, 2048, 1024, threads) for threads in (1, 2))
    assert (one["task"], one["run"], one["fold"]) == (256 + 1 + 1024, 256 + 1 + 1024, 256 + 1)
    assert one["near"] == 2048 * 1024 * 4 * 3 + 256 * 4
    assert "fork" not in one
    assert (two["fork"], two["task"]) == (2, 128 + 1 + 512)
    assert "fork" not in counted(*mean, 16, 1024, 2)


def test_slices_are_shared_where_they_are_enough() -> None:
    # Later phases of a slice find in cache what an earlier one read; phases of the whole do not.
    norm = "float[R, 2, 64, C] x, float[2] g, float[2] b", "y = InstanceNormalization(x, g, b)"
    one = counted(*norm, 4, 1024)
    assert one["task"] == 8 * (8 + 1 + 8 + 1 + 32)
    assert one["l2"] < 2 * 8 * 64 * 1024 * 4 * 4
    assert counted(*norm, 4, 1024, 8)["fork"] == 1
    assert counted(*norm, 4, 1024, 8)["task"] == 8 + 1 + 8 + 1 + 32
    assert counted(*norm, 4, 1024, 16)["fork"] == 3


def test_unknown_sizes_have_no_features() -> None:
    assert features(scheduled("float[R, C] x", "y = Exp(x)"), {"R": 2}, 1, CACHES) is None
    assert predicted_us(scheduled("float[R, C] x", "y = Exp(x)"), {"C": 2}, 1) is None


def test_threads_share_tasks() -> None:
    one, two = (counted("float[R, C] x", "y = Exp(x)", 256, 4096, threads) for threads in (1, 2))
    assert two.pop("fork") == 1
    assert {name: amount / one[name] for name, amount in two.items() if name not in ("call", "argument")} == {
        name: 0.5 for name in two if name not in ("call", "argument")
    }


@pytest.mark.parametrize(
    ("tasks", "moved", "threads", "workers"),
    [(100, 1 << 17, 4, 1), (1, 1 << 30, 4, 1), (100, 1 << 30, 1, 1), (1600, 1 << 30, 4, 4), (3, 1 << 20, 2, 1.5)],
)
def test_effective_threads(tasks: int, moved: int, threads: int, workers: float) -> None:
    assert effective_threads(tasks, moved, threads) == pytest.approx(workers)


@pytest.mark.parametrize("sample", SUITE, ids=lambda sample: sample.name)
def test_predictions_grow_with_sizes(sample: Sample) -> None:
    call = group_of(sample).call
    planned = schedules(lower(call.function, call.inputs))
    for grown in ("R", "C"):
        sizes = [{"R": 64, "C": 64, grown: size} for size in (16, 64, 256, 1024, 4096)]
        times = [predicted_us(planned, axes, 1) or 0.0 for axes in sizes]
        assert times == sorted(times)
        assert times[0] > 1.0


def test_every_rate_is_told_by_several_groups() -> None:
    users: dict[str, set[str]] = {}
    for sample in SUITE:
        call = group_of(sample).call
        planned = schedules(lower(call.function, call.inputs))
        for rows, columns in sample.sizes:
            found = features(planned, {"R": rows, "C": columns}, 1, Caches())
            assert found is not None
            for name, amount in asdict(found).items():
                users.setdefault(name, set()).update({sample.name} if amount else ())
    few = {name: groups for name, groups in users.items() if len(groups) < 2}
    # Only strides of large powers of two on large tensors miss the second cache, and only threads fork.
    assert few.keys() <= {"fork", "strided_l3"}


def test_caches() -> None:
    assert [beyond(used, 100) for used in (0, 50, 75, 100, 1000)] == [0, 0, 0.5, 1, 1]
    assert misses(768, 512, 48 << 10, 12) == 1
    assert misses(24, 400, 48 << 10, 12) == 0


def test_fit_finds_the_rates() -> None:
    draw = np.random.default_rng(3)
    rates = np.array([1000.0, 0.0, 0.3, 5.0, 0.002])
    amounts = draw.lognormal(size=(80, 5), sigma=2) * np.array([0, 3, 1000, 10, 1e5])
    amounts[:, 0] = 1
    exact = amounts @ rates
    np.testing.assert_allclose(fit(amounts, exact), rates, rtol=1e-3, atol=1e-6)
    noisy = exact * draw.lognormal(size=80, sigma=0.05)
    noisy[::10] *= 4
    np.testing.assert_allclose(fit(amounts, noisy)[[0, 2, 3, 4]], rates[[0, 2, 3, 4]], rtol=0.15)


def test_rates_are_never_negative() -> None:
    draw = np.random.default_rng(5)
    for _ in range(20):
        matrix, target = draw.normal(size=(30, 8)), draw.normal(size=30)
        found = nnls(matrix, target)
        slope = matrix.T @ (target - matrix @ found)
        # The conditions of Karush, Kuhn and Tucker.
        assert (found >= 0).all()
        assert (slope <= 1e-6).all()
        np.testing.assert_allclose(slope[found > 0], 0, atol=1e-6)


def test_spearman() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 3], [5, 5, 6, 6]) == pytest.approx(0.9428, abs=1e-3)
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert quality([1, 2, 3], [1, 1, 3]).median_error == 0


def test_price_is_linear() -> None:
    one = KernelRates(**{entry.name: 1.0 for entry in fields(KernelRates)})
    assert priced(one, one) == pytest.approx(len(fields(KernelRates)) / 1e3)


def nodes_of(inputs: str, body: str) -> tuple[ir.Node, ...]:
    """Return the nodes of a graph in ONNX's text form."""
    return group_of(Sample("one", inputs, body)).nodes


def test_score_adds_up_over_edges_and_vertices() -> None:
    light = Light({"R": 128, "C": 768})
    nodes = nodes_of("float[R, C] x", "a = Exp(x) b = Mul(a, a) y = Add(b, x)")
    exp, mul, add = nodes
    (a,), (b,) = exp.outputs, mul.outputs
    whole = light.saved_us(nodes, add.outputs)
    assert whole == pytest.approx(3 * light.edge(exp, a) + 2 * light.edge(mul, b) + 2 * light.call())
    # A value that others need is written all the same.
    assert light.saved_us(nodes, (a, *add.outputs)) == pytest.approx(whole - light.edge(exp, a))
    assert light.saved_us((exp,), exp.outputs) == 0
    assert light.again(exp) > 0


def test_unknown_sizes_count_as_one_first_and_128_after() -> None:
    (node,) = nodes_of("float[N, S, 4] x", "y = Exp(x)")
    default, known = Light({}), Light({"N": 1, "S": 128})
    assert default.edge(node, node.outputs[0]) == known.edge(node, node.outputs[0]) > 0
    (node,) = nodes_of("float[S] x", "y = Exp(x)")
    assert default.edge(node, node.outputs[0]) == known.edge(node, node.outputs[0])


def test_onnxruntime_is_estimated_from_its_nodes() -> None:
    light = Light({"R": 128, "C": 768})
    nodes = nodes_of("float[R, C] x", "a = Exp(x) y = Add(a, x)")
    amounts = light.amounts(nodes)
    assert (amounts.call, amounts.node, amounts.near) == (1, 2, 5 * 128 * 768 * 4)
    assert light.stock(nodes) == pytest.approx(priced(DEFAULTS.stock, amounts) - DEFAULTS.stock.call / 1e3)
