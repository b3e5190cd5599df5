"""What two refits in closed form leave of accuracy, where no evaluation has chosen anything; what an episode takes.

Networks are trained on textures. The prior is refitted once, to what layers of the original read, and again, to what
those of the pruned network read; accuracy is that on 2,000 images that nothing else sees. An episode is one step of the
hill climb: change, refit, compaction, a session, a run over 512 images, one thread.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from time import perf_counter

from _common import Bar, Outcome, finish, parser
from _pruning import Case, case, images, split_of

from sartor.tools.prune.again import refit_again
from sartor.tools.prune.strategies.base import HillClimb
from sartor.tools.prune.strategies.prior import prior

CASES = (("resnet20", 0.5), ("resnet20", 0.3), ("resnet56", 0.5), ("resnet56", 0.3), ("resnet18", 0.3),
         ("mobilenet_v1", 0.5), ("mobilenet_v1", 0.3))  # fmt: skip
EPISODES = 20
COLUMNS = ("network", "left", "original", "refitted", "again", "episode s")


@dataclass(frozen=True)
class Result:
    """One network at one budget: accuracies, and the mean seconds of an episode."""

    network: str
    ratio: float
    original: float
    once: float
    twice: float
    episode: float

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        accuracies = (f"{one:.4f}" for one in (self.original, self.once, self.twice))
        return self.network, f"{self.ratio:.0%}", *accuracies, f"{self.episode:.3f}"


def measure(found: Case, episodes: int) -> Result:
    """Refit a network twice, and time episodes."""
    counts, network = prior(found.problem), found.network
    names = str(network.model.graph.inputs[0].name), str(network.model.graph.outputs[0].name)
    small = network.pruned(counts)
    once = found.held_out(counts)
    refit_again(network, counts, small, split_of(images(found.source).train, *names, found.samples), network.place)
    strategy = HillClimb(found.problem, counts, 0)
    started = perf_counter()
    for _ in range(episodes):
        tried = strategy.propose()
        strategy.observe(tried, found.score(tried))
    seconds = (perf_counter() - started) / episodes
    original = found.held_out(found.problem.sizes)
    return Result(found.name, found.ratio, original, once, found.held_out_model(small), seconds)


def main() -> None:
    """Measure all networks and budgets, or the networks named."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=sorted({name for name, _ in CASES}), help="networks")
    options = made.parse_args()
    quick = {"samples": 128, "epochs": 1} if options.quick else {}
    results = []
    for name, ratio in CASES:
        if not options.only or name in options.only:
            results.append(measure(case(name, ratio, **quick), 2 if options.quick else EPISODES))
            print(*results[-1].cells(), file=sys.stderr, flush=True)
    bars = [Bar(f"{one.network} {one.ratio:.0%}: lost", one.original - one.twice, 0.015, False) for one in results]
    episodes = [one.episode for one in results if one.network == "resnet20"]
    bars += [Bar("resnet20: seconds of an episode", max(episodes), 0.15, False)] if episodes else []
    cells, rows = tuple(one.cells() for one in results), tuple(asdict(one) for one in results)
    settings = {"images": "textures", "episodes": EPISODES}
    finish(Outcome("prune_refit", settings, COLUMNS, cells, rows, () if options.quick else tuple(bars)), options)


if __name__ == "__main__":
    main()
