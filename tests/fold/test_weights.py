"""Weights come in from every kind of file, and go out; others are refused by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from tests.kits.fold_kit import smallest_config
from torch import Tensor

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.model.config import HeadsConfig, ModelConfig
from sartor.tools.fold.weights.alphafold_names import place_of
from sartor.tools.fold.weights.load import TM_HEAD, load_weights
from sartor.tools.fold.weights.save import write_pt, write_safetensors

CONFIG = replace(smallest_config(), evoformer=replace(ModelConfig.tiny().evoformer, blocks=2))


def model(seed: int, config: ModelConfig = CONFIG) -> AlphaFold:
    torch.manual_seed(seed)
    made = AlphaFold(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


def same(one: AlphaFold, other: AlphaFold) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def to_alphafold(name: str, tensor: Tensor, config: ModelConfig) -> NDArray[Any]:
    """Return a tensor as AlphaFold's released parameters hold it: inputs first, heads in a dimension of their own."""
    array = tensor.numpy()
    owner, _, leaf = name.rpartition(".")
    projection = owner.rpartition(".")[2]
    attends = ".mha." in name or ".global_attention." in name
    if attends and not (".global_attention." in name and projection in ("linear_k", "linear_v")):
        heads = heads_of(name, config)
        if projection == "linear_o" and leaf == "weight":
            return array.T.reshape(heads, -1, array.shape[0])
        if projection != "linear_o":
            return array.T.reshape(*([array.shape[1]] if leaf == "weight" else []), heads, -1)
    if name.endswith("outer_product_mean.linear_out.weight"):
        width = round(array.shape[1] ** 0.5)
        return array.T.reshape(width, width, array.shape[0])
    return array.T


def heads_of(name: str, config: ModelConfig) -> int:
    if "template_pointwise_att" in name:
        return config.template.heads
    if name.startswith("template"):
        return config.template.pair.heads
    blocks = config.extra if name.startswith("extra") else config.evoformer
    return blocks.pair.heads if ".tri_att" in name else blocks.heads


def to_npz(source: AlphaFold, path: Path, config: ModelConfig = CONFIG) -> None:
    single: dict[str, NDArray[Any]] = {}
    stacked: dict[str, dict[int, NDArray[Any]]] = {}
    for name, tensor in source.state_dict().items():
        place, array = place_of(name), to_alphafold(name, tensor, config)
        if place.block is None:
            assert place.array not in single
            single[place.array] = array
        else:
            stacked.setdefault(place.array, {})[place.block] = array
    arrays = single | {key: np.stack([blocks[k] for k in range(len(blocks))]) for key, blocks in stacked.items()}
    np.savez(path, **arrays)


def save_checkpoint(source: AlphaFold, path: Path) -> None:
    other = model(9)
    wrapped = {f"model.{name}": value for name, value in other.state_dict().items()}
    torch.save({"state_dict": wrapped, "ema": {"params": source.state_dict(), "decay": 0.999}, "epoch": 3}, path)


def save_lightning(source: AlphaFold, path: Path) -> None:
    torch.save({"state_dict": {f"model.{k}": v for k, v in source.state_dict().items()}, "epoch": 3}, path)


def save_first_version(source: AlphaFold, path: Path) -> None:
    """Write names as OpenFold's first version had them."""
    old = {}
    for name, value in source.state_dict().items():
        name = name.replace("template_embedder.template_single_embedder", "template_angle_embedder")
        name = name.replace("template_embedder.", "")
        name = name.replace(".pair_stack.", ".core.")
        for part in ("msa_transition", "outer_product_mean"):
            name = name.replace(f".{part}.", f".core.{part}.")
        old[name] = value
    assert "evoformer.blocks.0.core.tri_mul_out.linear_g.bias" in old
    torch.save(old, path)


WRITERS: dict[str, Callable[[AlphaFold, Path], None]] = {
    "weights.safetensors": lambda source, path: write_safetensors(source, path, {"from": "a test"}),
    "weights.pt": write_pt,
    "average.ckpt": save_checkpoint,
    "lightning.ckpt": save_lightning,
    "old.pt": save_first_version,
    "params_model_1.npz": to_npz,
}


@pytest.mark.parametrize("name", WRITERS)
def test_weights_come_back(name: str, tmp_path: Path) -> None:
    source, target = model(0), model(1)
    WRITERS[name](source, tmp_path / name)
    load_weights(target, tmp_path / name)
    assert same(source, target)


def test_weights_without_their_average(tmp_path: Path) -> None:
    target = model(1)
    save_checkpoint(model(0), tmp_path / "run.ckpt")
    load_weights(target, tmp_path / "run.ckpt", average=False)
    assert same(target, model(9))


def test_safetensors_hold_openfolds_names_and_metadata(tmp_path: Path) -> None:
    write_safetensors(model(0), tmp_path / "w.safetensors", {"sartor.history": "[]"})
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert set(file.keys()) == set(model(0).state_dict())
        assert file.metadata() == {"sartor.history": "[]"}


def test_alphafolds_names() -> None:
    """Some names of the released parameters, as published."""
    block = "alphafold/alphafold_iteration/evoformer/evoformer_iteration/"
    expected = {
        "evoformer.blocks.7.msa_att_row.mha.linear_q.weight": "msa_row_attention_with_pair_bias/attention//query_w",
        "evoformer.blocks.7.msa_att_col._msa_att.mha.linear_g.bias": "msa_column_attention/attention//gating_b",
        "evoformer.blocks.7.pair_stack.tri_mul_in.linear_a_p.weight": (
            "triangle_multiplication_incoming/right_projection//weights"
        ),
        "evoformer.blocks.7.pair_stack.tri_att_end.linear.weight": "triangle_attention_ending_node//feat_2d_weights",
    }
    for name, array in expected.items():
        assert (place_of(name).array, place_of(name).block) == (block + array, 7)


def test_every_tensor_has_a_place() -> None:
    with torch.device("meta"):
        names = list(AlphaFold(ModelConfig.finetuning()).state_dict())
    places = {(place_of(name).array, place_of(name).block) for name in names}
    assert len(places) == len(names)


def refusal(source: Any, target: AlphaFold, path: Path) -> str:
    source(path)
    with pytest.raises(InputRefusedError) as caught:
        load_weights(target, path)
    assert caught.value.exit_code == 65
    return str(caught.value).removeprefix(f"{path}: ")


def test_another_size_is_refused(tmp_path: Path) -> None:
    other = model(1, replace(CONFIG, c_s=32))
    found = refusal(lambda path: write_pt(model(0), path), other, tmp_path / "w.pt")
    assert found.startswith("'aux_heads.experimentally_resolved.linear.weight' has the shape [37, 64], not [37, 32]. ")
    assert found.endswith("Use the configuration that the weights were trained with")
    found = refusal(lambda path: to_npz(model(0), path), other, tmp_path / "p.npz")
    assert "does not give" in found


def test_more_blocks_are_refused(tmp_path: Path) -> None:
    other = model(1, replace(CONFIG, evoformer=replace(CONFIG.evoformer, blocks=3)))
    found = refusal(lambda path: write_pt(model(0), path), other, tmp_path / "w.pt")
    assert found.startswith("it lacks 'evoformer.blocks.2.")
    assert "it has 2 blocks, not 3" in refusal(lambda path: to_npz(model(0), path), other, tmp_path / "p.npz")


def test_missing_head_can_start_anew(tmp_path: Path) -> None:
    without = model(0, replace(CONFIG, heads=HeadsConfig()))
    for name, write in (("w.pt", write_pt), ("p.npz", to_npz)):
        target = model(1)
        found = refusal(lambda path, write=write: write(without, path), target, tmp_path / name)
        assert found.endswith("Set heads.tm = false, or let this head start anew")
        before = target.aux_heads.tm.linear.weight.detach().clone()
        load_weights(target, tmp_path / name, new=(TM_HEAD,))
        assert torch.equal(target.aux_heads.tm.linear.weight, before)
        assert torch.equal(target.evoformer.linear.weight, without.evoformer.linear.weight)


def test_templates_and_heads_too_many_are_refused(tmp_path: Path) -> None:
    whole = model(0)
    found = refusal(lambda path: write_pt(whole, path), model(1, replace(CONFIG, templates=False)), tmp_path / "w.pt")
    assert found.endswith("which the model has not. Set templates = true")
    target = model(1, replace(CONFIG, heads=HeadsConfig()))
    assert refusal(lambda path: to_npz(whole, path), target, tmp_path / "p.npz").endswith("Set heads.tm = true")
    bare = model(0, replace(CONFIG, templates=False))
    found = refusal(lambda path: write_pt(bare, path), model(1), tmp_path / "b.pt")
    assert found.endswith("Set templates = false, as these weights use none")


class Code:
    """Something that would run when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = model(1)
    found = refusal(lambda path: path.write_text("<!DOCTYPE html><html></html>"), target, tmp_path / "a.pt")
    assert found.startswith("this is an HTML page, not a file of weights. ")
    found = refusal(lambda path: path.write_bytes(pickle.dumps({"a": 1})), target, tmp_path / "b.pt")
    assert found.startswith("this is a Python pickle, not a file of weights")
    found = refusal(lambda path: torch.save({"w": Code()}, path), target, tmp_path / "c.pt")
    assert found.startswith("the archive is damaged or holds more than tensors (UnpicklingError)")
    found = refusal(lambda path: torch.save([1, 2], path), target, tmp_path / "d.pt")
    assert found.startswith("the archive holds no state dict")
    assert capsys.readouterr().out == ""


def test_whole_numbers_are_refused(tmp_path: Path) -> None:
    state = dict(model(0).state_dict())
    state["evoformer.linear.bias"] = state["evoformer.linear.bias"].int()
    found = refusal(lambda path: torch.save(state, path), model(1), tmp_path / "w.pt")
    assert found.startswith("'evoformer.linear.bias' is torch.int32, not a tensor of floats")
