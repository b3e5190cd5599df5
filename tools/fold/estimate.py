"""What a step needs before it is taken: bytes and operations counted without arithmetic, and time from one block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sartor.tools.fold.config import Config

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
