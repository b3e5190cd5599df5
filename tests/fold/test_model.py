"""The model: its parameters, its options, and gradients against differences."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from tests.kits.fold_kit import as_double, compact_sample, double_model, named_gradients, smallest_config
from torch import Tensor

from sartor.tools.fold.features import expand
from sartor.tools.fold.losses.total import loss
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.model.config import LossConfig, ModelConfig

NAMES_SHA256 = "617c6a3c68376c300dfec2b9bfd0ac6f57d9921eb6e03bf99928ded38b066bf6"
"""Of the sorted lines `name<tab>sizes` of OpenFold's state dict."""


def described(model: AlphaFold) -> list[str]:
    return sorted(f"{name}\t{','.join(map(str, value.shape))}" for name, value in model.state_dict().items())


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    return expand(compact_sample(), ModelConfig.tiny())


def test_parameters_are_openfolds() -> None:
    with torch.device("meta"):
        model = AlphaFold(ModelConfig.initial_training())
    lines = described(model)
    assert len(lines) == 5044
    assert sum(parameter.numel() for parameter in model.parameters()) == 93_229_082
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == NAMES_SHA256


def test_fine_tuning_adds_one_head() -> None:
    with torch.device("meta"):
        first, second = (set(described(AlphaFold(make()))) for make in (ModelConfig, ModelConfig.finetuning))
    assert second - first == {"aux_heads.tm.linear.bias\t64", "aux_heads.tm.linear.weight\t64,128"}
    assert first <= second


def test_tiny_can_be_trained_on_a_cpu() -> None:
    assert 200_000 < sum(parameter.numel() for parameter in AlphaFold(ModelConfig.tiny()).parameters()) < 1_000_000


def test_new_model_starts_from_ideal_residues(batch: dict[str, Tensor]) -> None:
    """Layers before residuals start at zero, so no frame has moved and every residual is the identity."""
    torch.manual_seed(0)
    outputs = AlphaFold(smallest_config()).eval()(batch)
    assert torch.equal(outputs["sm_frames"][..., :4], torch.tensor([1.0, 0, 0, 0]).expand(1, 2, 9, 4))
    assert torch.equal(outputs["sm_frames"][..., 4:], torch.zeros(1, 2, 9, 3))
    assert torch.equal(outputs["distogram_logits"], torch.zeros(1, 9, 9, 64))


def test_state_dict_goes_both_ways(batch: dict[str, Tensor]) -> None:
    model, other = double_model(smallest_config(), seed=0), double_model(smallest_config(), seed=1)
    state = model.state_dict()
    assert "evoformer.blocks.0.msa_att_row.mha.linear_q.weight" in state
    other.load_state_dict(state)
    with torch.no_grad():
        ours, theirs = model(as_double(batch)), other(as_double(batch))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_state_dict_without_a_part_is_refused() -> None:
    model = AlphaFold(smallest_config())
    state = model.state_dict()
    del state["evoformer.blocks.0.msa_att_row.mha.linear_k.weight"]
    with pytest.raises(RuntimeError, match="msa_att_row"):
        model.load_state_dict(state)


def test_checkpointing_changes_nothing(batch: dict[str, Tensor]) -> None:
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = double_model(smallest_config(checkpointing=checkpointing)).train()
        torch.manual_seed(1)
        total = loss(model(as_double(batch)), as_double(batch), LossConfig.tiny())[0]
        total.backward()
        results.append((total.detach(), named_gradients(model)))
    (plain, gradients), (again, recomputed) = results
    assert torch.equal(plain, again)
    assert all(torch.allclose(gradients[name], recomputed[name], rtol=1e-10, atol=1e-14) for name in gradients)


def test_recycles_choose_the_iteration(batch: dict[str, Tensor]) -> None:
    model = double_model(smallest_config())
    first = {name: value[..., :1] for name, value in as_double(batch).items()}
    with torch.no_grad():
        one, chosen, two = model(first), model(as_double(batch), recycles=0), model(as_double(batch))
    assert torch.equal(one["single"], chosen["single"])
    assert not torch.allclose(one["single"], two["single"])


def test_gradients_come_from_the_last_iteration_alone(batch: dict[str, Tensor]) -> None:
    """The numbers handed over by the first iteration are constants for the second."""
    model = double_model(smallest_config())
    inputs = as_double(batch)
    model(inputs)["pair"].sum().backward()
    whole = named_gradients_of(model, "extra_msa_stack")
    model.zero_grad()
    with torch.no_grad():
        previous = model.iteration({name: value[..., 0] for name, value in inputs.items()}, None)[1]
    model.iteration({name: value[..., 1] for name, value in inputs.items()}, previous)[0]["pair"].sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(whole, named_gradients_of(model, "extra_msa_stack"), strict=True))


def named_gradients_of(model: AlphaFold, part: str) -> list[Tensor]:
    return [p.grad.clone() for p in model.get_submodule(part).parameters() if p.grad is not None]


def test_masked_rows_and_residues_change_nothing(batch: dict[str, Tensor]) -> None:
    """What a mask drops (an MSA row, an extra row, a template, the last residue) may hold anything."""
    model = double_model(smallest_config())
    clean = as_double(batch)
    noisy = {name: value.clone() for name, value in clean.items()}
    noisy["msa_feat"][:, 3] = 7.0
    noisy["extra_msa"][:, 4] = 3
    noisy["template_pseudo_beta"][:, 1] *= -3.0
    noisy["target_feat"][:, -1] = 5.0
    with torch.no_grad():
        ours, theirs = model(clean), model(noisy)
    assert torch.allclose(ours["single"][:, :-1], theirs["single"][:, :-1], rtol=1e-9, atol=1e-12)
    assert torch.allclose(ours["pair"][:, :-1, :-1], theirs["pair"][:, :-1, :-1], rtol=1e-9, atol=1e-12)
    assert torch.allclose(ours["sm_positions"][:, :, :-1], theirs["sm_positions"][:, :, :-1], rtol=1e-9, atol=1e-9)


def test_padding_changes_nothing() -> None:
    config = smallest_config(templates=False)
    model = double_model(config)
    whole = as_double(expand(compact_sample(length=9), config))
    compact = compact_sample(length=9)
    short = {
        name: value[:, :8] if name in ("aatype", "residue_index", "seq_mask", "positions", "atom_mask") else value
        for name, value in compact.items()
    }
    for name in ("msa", "true_msa", "bert_mask", "deletions", "cluster_profile", "cluster_deletion_mean"):
        short[name] = compact[name][:, :, :, :8]
    for name in ("extra_msa", "extra_deletions"):
        short[name] = compact[name][:, :, :, :8]
    with torch.no_grad():
        ours, theirs = model(whole), model(as_double(expand(short, config)))
    assert torch.allclose(ours["pair"][:, :8, :8], theirs["pair"], rtol=1e-9, atol=1e-12)
    assert torch.allclose(ours["final_atom_positions"][:, :8], theirs["final_atom_positions"], rtol=1e-9, atol=1e-9)


def test_opm_first_is_another_order(batch: dict[str, Tensor]) -> None:
    state = double_model(smallest_config()).state_dict()
    outputs = []
    for opm_first in (False, True):
        model = double_model(smallest_config(opm_first=opm_first))
        model.load_state_dict(state)
        with torch.no_grad():
            outputs.append(model(as_double(batch))["pair"])
    assert not torch.allclose(*outputs)


def test_bf16_trunk_keeps_geometry_in_float32(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    wide = AlphaFold(smallest_config()).eval()
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    narrow = AlphaFold(smallest_config(precision="bf16")).eval()
    narrow.load_state_dict(wide.state_dict())
    with torch.no_grad():
        exact, rounded = wide(batch), narrow(batch)
    assert all(value.dtype == torch.float32 for name, value in rounded.items() if value.is_floating_point())
    error = (exact["pair"] - rounded["pair"]).norm() / exact["pair"].norm()
    assert 1e-6 < error < 0.05


def test_dropout_is_drawn_in_training_only(batch: dict[str, Tensor]) -> None:
    model = double_model(smallest_config())
    inputs = as_double(batch)
    with torch.no_grad():
        assert torch.equal(model(inputs)["pair"], model(inputs)["pair"])
        model.train()
        assert not torch.equal(model(inputs)["pair"], model(inputs)["pair"])


def test_gradients_against_differences() -> None:
    """Along random directions in the space of all parameters; every loss takes part.

    One block of the structure module: orientations carry no gradient from block to block.
    """
    config = smallest_config()
    config = replace(config, structure=replace(config.structure, blocks=1))
    model = double_model(config)
    batch = as_double(expand(compact_sample(recycles=1), config))
    weights = replace(LossConfig.finetuning(), violation=0.01)
    total = loss(model(batch), batch, weights)[0]
    total.backward()
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()]
    slope = sum((p.grad * d).sum() for p, d in zip(model.parameters(), directions, strict=True) if p.grad is not None)
    values = []
    step = 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter.add_(sign * step * direction)
            values.append(loss(model(batch), batch, weights)[0])
    assert torch.allclose((values[0] - values[1]) / (2 * step), torch.as_tensor(slope), rtol=1e-4)


@pytest.mark.slow
def test_gradient_of_every_parameter() -> None:
    config = smallest_config()
    config = replace(config, structure=replace(config.structure, blocks=1))
    model = double_model(config)
    batch = as_double(expand(compact_sample(recycles=1), config))
    names = [name for name, _ in model.named_parameters()]

    def total(*parameters: Tensor) -> Tensor:
        outputs = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (batch,))
        return loss(outputs, batch, replace(LossConfig.finetuning(), violation=0.01))[0]

    # Where all keys are masked, logits lose all digits below 1e-7.
    assert torch.autograd.gradcheck(total, tuple(model.parameters()), eps=1e-6, atol=1e-3, rtol=1e-3, fast_mode=True)
