"""What decides the shape and the arithmetic of the model, and how its losses are weighed.

Source: AlphaFold 2, supplementary information: sections 1.4 to 1.9 (widths), table 4 (training protocol). Widths carry
the paper's names: c_m (MSA), c_e (extra MSA), c_z (pair), c_t (template pair), c_s (single).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Precision = Literal["fp32", "bf16"]
"""Arithmetic of the trunk; geometry, structure module, heads and losses are never below float32."""


@dataclass(frozen=True)
class PairConfig:
    """The triangle updates and the transition of a pair representation; `attention` is a head's width."""

    multiplication: int = 128
    attention: int = 32
    heads: int = 4
    transition: int = 4
    dropout: float = 0.25


@dataclass(frozen=True)
class StackConfig:
    """A stack of Evoformer blocks; `attention` is the width of a head over the MSA."""

    blocks: int = 48
    attention: int = 32
    heads: int = 8
    outer_product: int = 32
    transition: int = 4
    dropout: float = 0.15
    pair: PairConfig = field(default_factory=PairConfig)


@dataclass(frozen=True)
class TemplateConfig:
    """The embedding of templates; `attention` is the width of a head of the pointwise attention."""

    blocks: int = 2
    attention: int = 16
    heads: int = 4
    pair: PairConfig = PairConfig(multiplication=64, attention=16, heads=4, transition=2)


@dataclass(frozen=True)
class StructureConfig:
    """The structure module; `attention` is the width of a head of invariant point attention."""

    blocks: int = 8
    attention: int = 16
    heads: int = 12
    query_points: int = 4
    value_points: int = 8
    angle_channels: int = 128
    angle_blocks: int = 2
    dropout: float = 0.1


@dataclass(frozen=True)
class HeadsConfig:
    """The auxiliary heads; `tm` adds the head of predicted aligned errors."""

    plddt_channels: int = 128
    plddt_bins: int = 50
    distogram_bins: int = 64
    tm: bool = False
    tm_bins: int = 64
    tm_max_bin: float = 31.0


@dataclass(frozen=True)
class ModelConfig:
    """The whole model; the defaults are AlphaFold's."""

    c_m: int = 256
    c_e: int = 64
    c_z: int = 128
    c_t: int = 64
    c_s: int = 384
    relative_positions: int = 32
    templates: bool = True
    template: TemplateConfig = field(default_factory=TemplateConfig)
    extra: StackConfig = StackConfig(blocks=4, attention=8)
    evoformer: StackConfig = field(default_factory=StackConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    opm_first: bool = False
    precision: Precision = "fp32"
    checkpointing: bool = False

    @classmethod
    def initial_training(cls) -> ModelConfig:
        """Return the model of initial training, 93,229,082 parameters."""
        return cls()

    @classmethod
    def finetuning(cls) -> ModelConfig:
        """Return the model of fine-tuning, with the head that predicts aligned errors."""
        return cls(heads=HeadsConfig(tm=True))

    @classmethod
    def tiny(cls) -> ModelConfig:
        """Return a model of the same parts that a CPU can train."""
        pair = PairConfig(multiplication=32, attention=8, heads=4, transition=2)
        msa = StackConfig(blocks=4, attention=8, heads=4, outer_product=8, transition=2, pair=pair)
        return cls(
            c_m=32,
            c_e=16,
            c_z=32,
            c_t=16,
            c_s=64,
            template=TemplateConfig(blocks=1, attention=8, heads=2, pair=replace(pair, multiplication=16, heads=2)),
            extra=replace(msa, blocks=1, heads=2),
            evoformer=msa,
            structure=StructureConfig(blocks=4, attention=8, heads=4, angle_channels=32),
            heads=HeadsConfig(plddt_channels=32),
        )


@dataclass(frozen=True)
class LossConfig:
    """The weight of every loss, and the crop whose square root scales their sum (section 1.9).

    A weight of zero leaves a loss out of the sum; it is still computed, unless it is that of violations. Losses that
    judge confidence look only at structures of `min_resolution` to `max_resolution` angstroms.
    """

    crop_size: int = 256
    fape: float = 1.0
    fape_backbone: float = 0.5
    fape_sidechain: float = 0.5
    supervised_chi: float = 1.0
    chi: float = 0.5
    angle_norm: float = 0.01
    distogram: float = 0.3
    masked_msa: float = 2.0
    plddt: float = 0.01
    experimentally_resolved: float = 0.0
    violation: float = 0.0
    tm: float = 0.0
    violation_tolerance: float = 12.0
    clash_tolerance: float = 1.5
    min_resolution: float = 0.1
    max_resolution: float = 3.0

    @classmethod
    def initial_training(cls) -> LossConfig:
        """Return the weights of initial training."""
        return cls()

    @classmethod
    def finetuning(cls) -> LossConfig:
        """Return the weights of fine-tuning."""
        return cls(crop_size=384, experimentally_resolved=0.01, violation=1.0, tm=0.1)

    @classmethod
    def tiny(cls) -> LossConfig:
        """Return the weights of initial training for crops of 64 residues."""
        return cls(crop_size=64)
