"""What is asked of a run besides its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Resume = Literal["auto", "never"]


@dataclass(frozen=True)
class Options:
    """Where chains come from (shards; made up where there are none), what is judged, and what is written where."""

    source: str | None
    judged: str | None
    run: Path
    weights: str | None
    trunk: str | None
    resume: Resume
    mlperf: bool
    device: str
    threads: int
