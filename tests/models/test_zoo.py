"""The zoo of small networks: each export is valid, computes what torch computes, and depends on its inputs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.kits.zoo import NETWORKS, ZOO, exported, feed, make, sample

from sartor.share.double import run_double

CLOSE = 1e-4
OLD, NEW = (9, 11, 13, 17), (18, 21, 24)
"""Opsets of the exporter on TorchScript, and of that on torch.export."""
FEW = ("resnet_basic", "siamese")
Arrays = list[np.ndarray]


def run_onnx(model: bytes, inputs: dict[str, np.ndarray]) -> Arrays:
    """Run an export in onnxruntime as it is written, because fused quantised operators round at other places."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs: Arrays = session.run(None, inputs)
    return outputs


@cache
def module(name: str) -> torch.nn.Module:
    """Build a network once."""
    return make(NETWORKS[name])


def expected(name: str, batch: int, seed: int) -> Arrays:
    """Run the torch module, or in float64 the graph that has none, in an opset that onnx's reference knows."""
    if name not in NETWORKS:
        return run_double(onnx.load_from_string(exported(name, 21, dynamic_batch=True)), feed(name, batch, seed))
    outputs = module(name)(*sample(NETWORKS[name].inputs, batch, seed))
    return [output.numpy() for output in ((outputs,) if isinstance(outputs, torch.Tensor) else outputs)]


def check(name: str, model: bytes, opset: int, batch: int) -> None:
    """Check that an export is valid, has the opset and names asked for, and computes what the network does."""
    proto = onnx.load_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", opset)]
    assert [value.name for value in proto.graph.input] == list(ZOO[name].inputs)
    assert tuple(value.name for value in proto.graph.output) == ZOO[name].outputs
    outputs = run_onnx(model, feed(name, batch, seed=1))
    for actual, exact in zip(outputs, expected(name, batch, seed=1), strict=True):
        np.testing.assert_allclose(actual, exact, rtol=CLOSE, atol=CLOSE)


def operators(model: bytes) -> Counter[str]:
    """Count the operators of a model."""
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def norms(name: str) -> int:
    """Count the batch normalisations of a network."""
    return sum(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in module(name).modules())


@pytest.mark.parametrize("name", ZOO)
def test_an_export_computes_what_the_network_does_and_heeds_its_inputs(name: str) -> None:
    entry, model = ZOO[name], exported(name)
    check(name, model, entry.opset, batch=1)
    assert entry.operators <= operators(model).keys()
    runs = [run_onnx(model, feed(name, 1, seed)) for seed in range(8)]
    for outputs in map(np.concatenate, zip(*runs, strict=True)):
        assert 0.2 < outputs.std() < 5
        assert outputs.std(axis=0).mean() > 0.4 * outputs.std()


def test_the_zoo_covers_old_and_new_opsets() -> None:
    assert {entry.opset for entry in ZOO.values()} >= {9, 11, 13, 17, 18, 20, 21}


@pytest.mark.parametrize("opset", [OLD[-1], NEW[0]])
@pytest.mark.parametrize("name", FEW)
def test_batch_normalisation_is_kept_and_the_batch_has_a_name(name: str, opset: int) -> None:
    model = exported(name, opset, fold_batchnorm=False, dynamic_batch=True)
    check(name, model, opset, batch=3)
    uses = 2 if name == "siamese" else 1
    assert operators(model)["BatchNormalization"] == uses * norms(name) > 0


@pytest.mark.parametrize("opset", [OLD[0], NEW[0]])
def test_batch_normalisation_is_folded(opset: int) -> None:
    assert operators(exported("resnet_basic", opset))["BatchNormalization"] == 0
    # That behind a concatenation can't be.
    assert operators(exported("crelu", opset))["BatchNormalization"] == 1


def test_batch_normalisation_is_not_the_identity() -> None:
    for part in module("resnet_basic").modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            scale = part.weight / torch.sqrt(part.running_var + part.eps)
            assert scale.std() > 0.1
            assert (part.bias - part.running_mean * scale).std() > 0.1


def test_a_shared_weight_stays_one_initialiser() -> None:
    for name, counts in {"recurrent": [1, 1, 1, 1, 2, 3], "autoencoder": [1, 1, 2]}.items():
        graph = onnx.load_from_string(exported(name)).graph
        uses = Counter(node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm"))
        assert sorted(uses.values()) == counts


def test_an_export_is_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = exported("vgg")
    monkeypatch.setenv("SARTOR_CACHE_DIR", str(tmp_path))
    assert exported("vgg") == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("plain", [True, False], ids=["folded", "kept"])
@pytest.mark.parametrize("opset", [*OLD, *NEW])
@pytest.mark.parametrize("name", ZOO)
def test_every_export(name: str, opset: int, plain: bool) -> None:
    if opset < ZOO[name].oldest:
        pytest.skip("the exporter lacks an operator")
    model = exported(name, opset, fold_batchnorm=plain, dynamic_batch=not plain)
    check(name, model, opset, batch=1 if plain else 3)
    assert plain or name not in NETWORKS or operators(model)["BatchNormalization"] >= norms(name)
