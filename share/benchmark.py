"""Time a model in our session against a reference in stock onnxruntime, after checking that both agree."""

from __future__ import annotations

from sartor.share.compare import Tolerance
from sartor.share.equivalence import Side, verify
from sartor.share.inputs import Arrays
from sartor.share.timing import Race, race


def measure(a: Side, b: Side, feed: Arrays, seconds: float) -> Race:
    """Return the timings; raises GoalNotMetError, without timing, when the results differ."""
    verify(a, b, [feed], Tolerance()).require(a.model, b.model)
    return race(lambda: a.session.run(None, feed), lambda: b.session.run(None, feed), seconds)


def table(result: Race, name_a: str, name_b: str) -> str:
    """Return the timings as text for people."""
    names = [f"{name_a} (sartor)", f"{name_b} (onnxruntime)"]
    width = max(map(len, names))
    rows = [
        f"{name:{width}}  {timing.minimum:12,.1f}  {timing.median:12,.1f}"
        for name, timing in zip(names, (result.a, result.b), strict=True)
    ]
    head = f"{'microseconds a call':{width}}  {'minimum':>12}  {'median':>12}"
    ratio = f"{'ratio':{width}}  {result.ratio_min:11.2f}x  {result.ratio_median:11.2f}x"
    return "\n".join([head, *rows, ratio])
