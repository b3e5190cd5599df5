"""Prediction of whole chains: features without a crop, padded to a bucket of lengths, through a model at rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sartor.tools.fold.config import Config
from sartor.tools.fold.data.sample import sample
from sartor.tools.fold.features import expand
from sartor.tools.fold.feed import collate
from sartor.tools.fold.losses.lddt import lddt_ca
from sartor.tools.fold.store import Chain


@dataclass(frozen=True)
class Predicted:
    """What a model gives for a chain: all outputs and the features that it read, with a leading axis of one."""

    chain: Chain
    outputs: dict[str, Tensor]
    features: dict[str, Tensor]


def accuracy(found: Predicted) -> float:
    """Return the lDDT-Ca (0 to 1) of a prediction to what is known of the chain."""
    known = (found.features[name][..., -1] for name in ("all_atom_positions", "all_atom_mask"))
    return float(lddt_ca(found.outputs["final_atom_positions"], *known))


def padded(length: int, config: Config) -> int:
    """Return the length that a chain is padded to, so that a few sizes serve all chains."""
    bucket = config.evaluation.bucket
    return -(-length // bucket) * bucket


def run_chain(model: nn.Module, chain: Chain, config: Config, device: torch.device, recycles: int) -> Predicted:
    """Predict a chain; the draws from its alignment are those of the run's seed, the same at every step."""
    whole = replace(config.data, crop_size=padded(chain.length, config), deleted_blocks=0)
    arrays = sample(chain, whole, config.training.seed, 0, 0, recycles=recycles)
    batch = {name: array.to(device) for name, array in collate([arrays]).items()}
    features = expand(batch, config.model)
    with torch.inference_mode():
        return Predicted(chain, model(features), features)
