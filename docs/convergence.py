"""Draw `convergence.svg` from the results of `benchmarks/prune_convergence.py`: the best accuracy so far, by arm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "benchmarks" / "results"
COLORS = {
    "random": "#9aa0a6", "hill-climb": "#1a73e8", "ddpg": "#d93025", "assistant": "#f29900", "all": "#188038",
}  # fmt: skip
NAMES = {"assistant": "ddpg, assistant", "all": "ddpg, assistant, history"}
STARTS = {"uniform": "", "prior": "6 4"}
"""How lines of searches that start there are dashed."""

WIDTH, HEIGHT, MARGIN, GAP = 360, 240, 52, 24


def panel(found: dict[str, Any], left: int, top: int) -> list[str]:
    """Draw one network."""
    rows = [row for row in found["rows"] if row["arm"] in COLORS]
    settings = found["settings"]
    curves = [row["curve"] for row in rows]
    low = min(min(curve) for curve in curves)
    high = max(max(curve) for curve in curves)
    count = max(map(len, curves))

    def x(episode: float) -> float:
        return left + MARGIN + (WIDTH - MARGIN) * episode / max(count - 1, 1)

    def y(score: float) -> float:
        return top + HEIGHT - HEIGHT * (score - low) / (high - low)

    lines = [
        f'<rect x="{left + MARGIN}" y="{top}" width="{WIDTH - MARGIN}" height="{HEIGHT}" fill="none" stroke="#ddd"/>',
        _text(left + MARGIN, top - 8, f"{settings['network']}, {settings['ratio']:.0%} of multiplications", "start"),
        *(_text(left + MARGIN - 6, y(score) + 4, f"{score:.3f}", "end") for score in (low, (low + high) / 2, high)),
        *(_text(x(at), top + HEIGHT + 16, str(at + 1), "middle") for at in (0, count // 2 - 1, count - 1)),
    ]
    for row in rows:
        points = " ".join(f"{x(i):.1f},{y(score):.1f}" for i, score in enumerate(row["curve"]))
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{COLORS[row["arm"]]}" stroke-width="1.6" '
            f'stroke-dasharray="{STARTS[row["start"]]}"/>'
        )
    return lines


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def picture(results: Sequence[dict[str, Any]]) -> str:
    """Draw all networks, two a row, and a legend."""
    across, down = WIDTH + GAP, HEIGHT + 60
    lines = []
    for i, found in enumerate(results):
        lines += panel(found, GAP + i % 2 * across, 40 + i // 2 * down)
    top = 40 + (len(results) + 1) // 2 * down
    for i, (arm, color) in enumerate(COLORS.items()):
        left = GAP + MARGIN + i * 130
        lines.append(f'<line x1="{left}" y1="{top}" x2="{left + 20}" y2="{top}" stroke="{color}" stroke-width="3"/>')
        lines.append(_text(left + 26, top + 4, NAMES.get(arm, arm), "start"))
    note = "mean of the best accuracy so far over episodes; from uniform counts, dashed from the prior"
    lines.append(_text(GAP + MARGIN, top + 26, note, "start"))
    size = f'viewBox="0 0 {2 * across + GAP + 60} {top + 40}"'
    style = 'font-family="sans-serif" font-size="12" fill="#202124"'
    body = "\n".join(lines)
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{background}\n<g {style}>\n{body}\n</g>\n</svg>\n'


def latest() -> list[dict[str, Any]]:
    """Read the newest result file of each network."""
    found: dict[str, Path] = {}
    for path in sorted(RESULTS.glob("prune_convergence_*.json")):
        found[path.name.rsplit("-", 3)[0]] = path
    return [json.loads(path.read_text()) for path in found.values()]


if __name__ == "__main__":
    (FOLDER / "convergence.svg").write_text(picture(latest()))
