"""How samples are made from chains (AlphaFold 2, supplementary information, sections 1.2.3 to 1.2.9, and table 4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """The sizes of a sample, and the chances of everything that is drawn.

    `clusters` are the rows of the alignment that the model sees as such, `extra` those that it sees less closely.
    Before they are drawn, `deleted_blocks` blocks with a share `deleted_share` of all rows each are left out (1.2.6).
    A residue of a cluster is masked with chance `masked`; then it becomes any residue with chance `masked_uniform`,
    one of its column's profile with `masked_profile`, stays with `masked_same`, and is hidden otherwise (1.2.7). At
    most `templates` of the `template_pool` surest templates are seen (1.2.3), up to `recycles` iterations come after
    the first, and a share `clamped` of the samples has its backbone loss clamped. `unknown` is the chance of any
    residue to be replaced by an unknown one.
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
        if min(self.crop_size, self.clusters) < 1:
            raise ValueError("data.crop_size and data.clusters are at least 1")
        counts = ("extra", "templates", "template_pool", "recycles", "deleted_blocks")
        for name in counts:
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} is at least 0")
        shares = ("deleted_share", "masked", "masked_uniform", "masked_profile", "masked_same", "unknown", "clamped")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} is from 0 to 1")
        if self.masked_uniform + self.masked_profile + self.masked_same > 1:
            raise ValueError("data.masked_uniform, masked_profile and masked_same are at most 1 together")

    @classmethod
    def initial_training(cls) -> DataConfig:
        """Return the sizes of initial training: four of 128 clusters give way to templates."""
        return cls(clusters=124)

    @classmethod
    def finetuning(cls) -> DataConfig:
        """Return the sizes of fine-tuning: four of 512 clusters give way to templates."""
        return cls(crop_size=384, clusters=508, extra=5120)

    @classmethod
    def tiny(cls) -> DataConfig:
        """Return sizes that a CPU can train on."""
        return cls(crop_size=64, clusters=16, extra=32, templates=1, recycles=1)
