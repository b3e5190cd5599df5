"""How samples are made from chains (AlphaFold 2, supplementary information, sections 1.2.3 to 1.2.8, and table 4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """Sizes of a sample, and the chances of everything that is drawn.

    `clusters` are the rows of the MSA that the model sees as such, `extra` those that it sees coarsely. Of all rows,
    `deleted_blocks` runs of `deleted_share` each are left out first. A residue of a cluster is masked with chance
    `masked` and then, with the next three chances, is any residue, one from the column's profile, or itself; else it is
    the mask. `unknown` is the chance of any residue to become unknown.
    """

    crop_size: int = 256
    clusters: int = 128
    extra: int = 1024
    templates: int = 4
    template_pool: int = 20
    recycles: int = 3
    deleted_blocks: int = 5
    deleted_share: float = 0.3
    masked: float = 0.15
    masked_uniform: float = 0.1
    masked_profile: float = 0.1
    masked_same: float = 0.1
    unknown: float = 0.0
    clamped: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError where the numbers can't go together."""
        if min(self.crop_size, self.clusters, self.extra) < 1 or min(self.templates, self.recycles) < 0:
            raise ValueError("sizes of 'data' are at least 1, templates and recycles at least 0")
        if self.masked_uniform + self.masked_profile + self.masked_same > 1:
            raise ValueError("data.masked_uniform, masked_profile and masked_same are more than 1 in all")

    @classmethod
    def initial_training(cls) -> DataConfig:
        """Return the sizes of initial training; four of 128 clusters give way to templates."""
        return cls(clusters=124)

    @classmethod
    def finetuning(cls) -> DataConfig:
        """Return the sizes of fine-tuning."""
        return cls(crop_size=384, clusters=508, extra=5120)

    @classmethod
    def tiny(cls) -> DataConfig:
        """Return sizes that a CPU can train on."""
        return cls(crop_size=64, clusters=16, extra=32, templates=1, recycles=1)
