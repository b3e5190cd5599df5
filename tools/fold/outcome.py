"""How a training ended, for people and for programs."""

from __future__ import annotations

from typing import Any

from sartor.tools.fold.train import Outcome


def as_data(outcome: Outcome) -> dict[str, Any]:
    """Return the document of `sartor fold-train --json`."""
    return {
        "steps": outcome.steps,
        "loss": outcome.loss,
        "lddt_ca": outcome.judgement.lddt_ca,
        "chains": outcome.judgement.chains,
        "left_out": outcome.judgement.left_out,
        "seconds": round(outcome.seconds, 3),
    }


def as_text(outcome: Outcome) -> str:
    """Return the lDDT-Ca of every chain, a line each."""
    return "\n".join(f"{name}  lDDT-Ca {value:.3f}" for name, value in sorted(outcome.judgement.chains.items()))


def headline(outcome: Outcome) -> str:
    """Return the line that says how it went."""
    mean, chains = outcome.judgement.lddt_ca, len(outcome.judgement.chains)
    judged = "no chain judged" if mean is None else f"lDDT-Ca {mean:.3f} over {chains} chains"
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.3f}"
    return f"{outcome.steps} steps in {outcome.seconds:.0f} s{loss}, {judged}"
