"""Which layers are left to onnxruntime: sure ones are not timed, others once on a machine."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from tests.sparse_rnn.test_kernels import CASES, call_of, made

from sartor.share.runtime import load
from sartor.share.runtime.session import kernels_of
from sartor.tools.sparse_rnn import judge
from sartor.tools.sparse_rnn.executor import Built, X, bind, build
from sartor.tools.sparse_rnn.kernels.form import MACHINES, Machine, this_machine


def asked(density: float, machine: Machine) -> bool:
    """Ask about a small layer of a density, built for this machine, as if on another."""
    model, _, _ = made(64, 16, CASES["lstm"], density=density, batch=1)
    call = call_of(model)
    bound = bind(call)
    assert bound is not None
    built: Built = build(call, bound, this_machine())
    return judge.is_faster(call, built.kernel, built.packed, machine, bound.places[X], built.key)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Answer the ratios that are in a list instead of timing, with nothing kept yet."""
    ratios: list[float] = []
    kept: dict[str, bytes] = {}
    monkeypatch.setattr(judge, "_ratio", lambda *_: ratios.pop())
    monkeypatch.setattr(judge, "get", kept.get)
    monkeypatch.setattr(judge, "put", kept.__setitem__)
    return ratios


def test_the_sparse_are_sure_with_avx512_alone(timed: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    avx512, avx2, _ = MACHINES
    monkeypatch.setattr(judge, "share_of", lambda _: judge.ALWAYS_FASTER)
    assert asked(0.3, avx512)
    timed[:] = [0.9]
    assert not asked(0.3, avx2)
    assert not timed
    monkeypatch.setattr(judge, "share_of", lambda _: judge.ALWAYS_FASTER + 0.01)
    assert not asked(0.3, avx512)


def test_the_answer_is_kept(timed: list[float]) -> None:
    timed[:] = [1.5]
    assert asked(0.9, this_machine())
    assert asked(0.9, this_machine())


@pytest.mark.parametrize(("ratio", "faster"), [(0.5, False), (1.01, False), (1.03, True)])
def test_a_kernel_has_to_gain(timed: list[float], ratio: float, faster: bool) -> None:
    timed[:] = [ratio]
    assert asked(0.9, this_machine()) == faster


def test_dense_layers_are_left_to_onnxruntime() -> None:
    """What would be slower has no kernel: all weights, looked up one by one at a large batch."""
    model, _, _ = made(256, 16, {**CASES["lstm"], "pattern": "unstructured"}, density=1.0, batch=64)
    assert kernels_of(load(ir.serde.serialize_model(model).SerializeToString(), threads=1)) == ()
