"""Small folding models, compact samples of ideal helices, and random rotations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sartor.tools.fold import residues
from sartor.tools.fold.geometry.frames import atom14_positions, torsion_frames
from sartor.tools.fold.geometry.rigid import Rigid, normalise, quaternion_rotation
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.model.config import HeadsConfig, ModelConfig, StackConfig


def random_rigid(*shape: int, seed: int = 0) -> Rigid:
    """Return random rotations and translations in float64."""
    generator = torch.Generator().manual_seed(seed)
    quaternion = normalise(torch.randn(*shape, 4, generator=generator, dtype=torch.float64))
    translation = 5 * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return Rigid(quaternion_rotation(quaternion), translation)


def random_atoms(aatype: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return positions [*, N, 37, 3] and masks [*, N, 37] of residues at random places with random torsions."""
    generator = torch.Generator().manual_seed(seed)
    backbone = random_rigid(*aatype.shape, seed=seed)
    angles = torch.randn(*aatype.shape, 7, 2, generator=generator, dtype=torch.float64)
    angles = angles / angles.norm(dim=-1, keepdim=True)
    atoms = atom14_positions(torsion_frames(backbone, angles, aatype), aatype, torch.float64)
    index = torch.from_numpy(residues.atom37_to_atom14())[aatype]
    mask = torch.from_numpy(residues.atom37_mask())[aatype].double()
    return torch.gather(atoms, -2, index[..., None].expand(*index.shape, 3)) * mask[..., None], mask


def compact_sample(length: int = 9, recycles: int = 2, seed: int = 0, samples: int = 1) -> dict[str, Tensor]:
    """Return a batch of random compact samples with masks that drop some of everything."""
    generator = torch.Generator().manual_seed(seed)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, (samples, *shape), generator=generator)

    def kept(*shape: int) -> Tensor:
        return (torch.rand(samples, *shape, generator=generator) < 0.9).to(torch.uint8)

    clusters, extra, templates = 4, 5, 2
    aatype, template_aatype = integers(20, length), integers(20, templates, length)
    positions, mask = random_atoms(aatype, seed)
    template_positions, template_mask = random_atoms(template_aatype, seed + 1)
    seq_mask = torch.ones(samples, length, dtype=torch.uint8)
    seq_mask[:, -1] = 0
    profile = torch.rand(samples, recycles, clusters, length, 23, generator=generator)
    return {
        "aatype": aatype.to(torch.uint8),
        "residue_index": torch.arange(length, dtype=torch.int32).expand(samples, length),
        "seq_mask": seq_mask,
        "seq_length": torch.full((samples,), length - 1, dtype=torch.int32),
        "positions": positions.float(),
        "atom_mask": mask.to(torch.uint8) * kept(length, 37) * seq_mask[..., None],
        "resolution": torch.full((samples,), 2.0),
        "is_distillation": torch.zeros(samples),
        "use_clamped_fape": torch.ones(samples),
        "template_aatype": template_aatype.to(torch.uint8),
        "template_positions": template_positions.float(),
        "template_atom_mask": template_mask.to(torch.uint8) * kept(templates, length, 37) * seq_mask[:, None, :, None],
        "template_sum_probs": torch.ones(samples, templates, 1),
        "template_mask": torch.tensor([1, 0], dtype=torch.uint8).expand(samples, templates),
        "msa": integers(23, recycles, clusters, length).to(torch.uint8),
        "true_msa": integers(22, recycles, clusters, length).to(torch.uint8),
        "bert_mask": kept(recycles, clusters, length),
        "deletions": integers(4, recycles, clusters, length).to(torch.uint16),
        "cluster_profile": profile / profile.sum(dim=-1, keepdim=True),
        "cluster_deletion_mean": torch.rand(samples, recycles, clusters, length, generator=generator),
        "msa_row_mask": torch.tensor([1, 1, 1, 0], dtype=torch.uint8).expand(samples, recycles, clusters),
        "extra_msa": integers(23, recycles, extra, length).to(torch.uint8),
        "extra_deletions": integers(4, recycles, extra, length).to(torch.uint16),
        "extra_row_mask": torch.tensor([1, 1, 1, 1, 0], dtype=torch.uint8).expand(samples, recycles, extra),
    }


def smallest_config(**changes: Any) -> ModelConfig:
    """Return the tiny preset with as few blocks as have every part, and the head of aligned errors."""
    tiny = ModelConfig.tiny()
    fewer: StackConfig = replace(tiny.evoformer, blocks=1)
    config = replace(tiny, evoformer=fewer, structure=replace(tiny.structure, blocks=2), heads=HeadsConfig(tm=True))
    return replace(config, **changes)


def double_model(config: ModelConfig, seed: int = 0, exact_frames: bool = True) -> AlphaFold:
    """Return a model in float64 whose layers that start at zero are random too, without dropout."""
    torch.manual_seed(seed)
    model = AlphaFold(config, torch.float64 if exact_frames else torch.float32).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def as_double(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch whose floats are float64."""
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}


def named_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return gradients under the names of the state dict, where joint layers are split."""
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
        gradients = {name: value.clone() for name, value in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            parameter.copy_(kept[name])
    return gradients
