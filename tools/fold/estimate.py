"""What a step needs, told before one is taken: bytes and operations counted on tensors without contents, and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sartor.tools.fold.alphabet import CLASSES
from sartor.tools.fold.config import Config
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.features import expand
from sartor.tools.fold.losses.total import loss
from sartor.tools.fold.model.alphafold import AlphaFold

RUNS = 5
"""Of the block that is timed; the first are slower."""

STATES = 6
"""Copies of the parameters that a run holds: weights, gradients, their sum, both moments, the average."""


@dataclass(frozen=True)
class Estimate:
    """The plan of a step: parameters, bytes of states and of what the backward pass needs, operations, seconds."""

    parameters: int
    state_bytes: int
    activation_bytes: int
    operations: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the document of `--estimate`."""
        return {
            "parameters": self.parameters,
            "state_bytes": self.state_bytes,
            "activation_bytes": self.activation_bytes,
            "operations": self.operations,
            "seconds_a_step": self.seconds,
        }


def make_estimate(config: Config, device: str) -> Estimate:
    """Count what a step keeps and does, with the mean number of recycles, and time one block for the rest."""
    with torch.device("meta"):
        model = AlphaFold(config.model)
        features = expand(empty_sample(config.data, config.training.pass_batch), config.model)
    parameters = sum(one.numel() for one in model.parameters())
    kept, operations = _count(lambda: loss(model(features), features, config.loss)[0])
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        model(features)
    passes = config.training.batch // config.training.pass_batch
    total = passes * (operations + once.get_total_flops() * config.data.recycles // 2)
    return Estimate(parameters, STATES * 4 * parameters, kept, total, total / _speed(config, torch.device(device)))


def _count(make: Callable[[], Tensor]) -> tuple[int, int]:
    """Return the bytes that a backward pass needs of its forward pass, and the operations of both."""
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = make()
        torch.autograd.backward(total)
    return sum(held.values()), int(counter.get_total_flops())


def _speed(config: Config, device: torch.device) -> float:
    """Return the operations a second of an Evoformer block, forward and backward, at the sizes of a sample."""
    block = AlphaFold(config.model).evoformer.blocks[0].to(device)
    data, model = config.data, config.model
    msa = torch.randn(1, data.clusters, data.crop_size, model.c_m, device=device, requires_grad=True)
    pair = torch.randn(1, data.crop_size, data.crop_size, model.c_z, device=device, requires_grad=True)
    masks = torch.ones(msa.shape[:-1], device=device), torch.ones(pair.shape[:-1], device=device)

    def run() -> Tensor:
        made = block(msa, pair, *masks)
        return torch.stack([one.float().mean() for one in made]).sum()

    _, operations = _count(run)
    return operations / min(_seconds(run, device) for _ in range(RUNS))


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """Time a forward and a backward pass."""
    begun = time.perf_counter()
    torch.autograd.backward(run())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def empty_sample(config: DataConfig, batch: int) -> dict[str, Tensor]:
    """Return a batch of compact samples of the right shapes, for one pass through the model."""
    size, wide, thin, known = config.crop_size, config.clusters, config.extra, config.templates
    bytes_of = {
        "aatype": (size,), "seq_mask": (size,), "atom_mask": (size, 37), "template_aatype": (known, size),
        "template_atom_mask": (known, size, 37), "template_mask": (known,), "msa": (1, wide, size),
        "true_msa": (1, wide, size), "bert_mask": (1, wide, size), "msa_row_mask": (1, wide),
        "extra_msa": (1, thin, size), "extra_row_mask": (1, thin),
    }  # fmt: skip
    floats = {
        "positions": (size, 37, 3), "resolution": (), "is_distillation": (), "use_clamped_fape": (),
        "template_positions": (known, size, 37, 3), "template_sum_probs": (known, 1),
        "cluster_profile": (1, wide, size, CLASSES), "cluster_deletion_mean": (1, wide, size),
    }  # fmt: skip
    counts = {
        "residue_index": (size,),
        "seq_length": (),
        "deletions": (1, wide, size),
        "extra_deletions": (1, thin, size),
    }
    kinds = ((bytes_of, torch.uint8), (floats, torch.float32), (counts, torch.int32))
    return {name: torch.zeros(batch, *shape, dtype=kind) for some, kind in kinds for name, shape in some.items()}


def as_text(estimate: Estimate) -> str:
    """Return the plan for people."""
    states, kept = (number / 2**20 for number in (estimate.state_bytes, estimate.activation_bytes))
    return (
        f"{estimate.parameters:,} parameters, {states:,.0f} MiB with their states\n"
        f"{kept:,.0f} MiB kept for the backward pass\n"
        f"{estimate.operations / 1e12:.3f} TFLOP and about {estimate.seconds:.2f} s a step"
    )


def available(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo", encoding="ascii") as file:
        facts = dict(line.split(":") for line in file)
    return int(facts["MemAvailable"].split()[0]) * 1024


def inference_bytes(length: int, config: Config) -> int:
    """Return about how many bytes the largest layer needs for a chain, besides the weights.

    Triangle attention holds logits for all triples of residues, and again after the softmax; the pair representation
    and what is made of it count sixteen times, the MSA eight times.
    """
    model = config.model
    triples = 3 * model.evoformer.pair.heads * length**3
    pairs = 16 * model.c_z * length**2
    rows = 8 * model.c_m * config.data.clusters * length + 8 * model.c_e * config.data.extra * length
    return 4 * (triples + pairs + rows)
