"""What the benchmarks of pruning share: trained networks as ONNX, and their search problems with a remembered judge."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from models.images import Images, Part, digits, inputs, mnist, textures
from models.training import train
from models.vision import make_network as build

from sartor.share.artifact import read_model
from sartor.share.data import Split
from sartor.tools.prune.evaluate import Judge, make_judge, parse_metric
from sartor.tools.prune.history import History, Run, standardised
from sartor.tools.prune.network import Network
from sartor.tools.prune.plan import Budget, Options
from sartor.tools.prune.prepare import fix_sizes, make_network, make_problem
from sartor.tools.prune.problem import Counts, Problem
from sartor.tools.prune.strategies.fit import uniform

EPOCHS = {"resnet20": 8, "resnet20_wide": 8, "resnet56": 8, "resnet18": 6, "mobilenet_v1": 12}
FOLDER = Path(__file__).parents[1] / "build" / "prune"


def images(source: str) -> Images:
    """Return textures, scikit-learn's digits, or MNIST, for which SARTOR_DATA names a folder that has it."""
    if source == "mnist":
        return mnist(Path(os.environ["SARTOR_DATA"]) / "mnist")
    return {"textures": textures, "digits": digits}[source]()


def trained(name: str, source: str, epochs: int | None = None) -> Path:
    """Train a network, export it and keep the file in `build/prune`."""
    epochs = EPOCHS[name] if epochs is None else epochs
    made_by = b"".join(sorted(path.read_bytes() for path in (Path(__file__).parent / "models").glob("*.py")))
    path = FOLDER / f"{name}-{source}-{epochs}-{hashlib.sha256(made_by).hexdigest()[:8]}.onnx"
    if not path.exists():
        network = build(name, 0)
        train(network, images(source), epochs, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        batch = torch.export.Dim("batch")
        example = torch.zeros(2, 1, 16, 16)
        program = torch.onnx.export(network, (example,), dynamic_shapes=({0: batch},), dynamo=True, verbose=False)
        assert program is not None
        program.save(str(path))
    return path


def split_of(part: Part, name: str, output: str, count: int) -> Split:
    """Return the first images of a part as samples of a model."""
    return Split({name: inputs(part.images[:count])}, {output: part.labels[:count].astype(np.int64)})


@dataclass(frozen=True)
class Case:
    """A network to prune to a share of its multiplications; `samples` are judged in the search."""

    name: str
    ratio: float
    source: str = "textures"
    samples: int = 512
    epochs: int | None = None
    known: dict[bytes, float] = field(default_factory=dict, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as a name: a forked one has the case already."""
        return case, (self.name, self.ratio, self.source, self.samples, self.epochs)

    @cached_property
    def _parts(self) -> tuple[Network, Problem, Judge, Judge]:
        model = read_model(str(trained(self.name, self.source, self.epochs)))
        names = str(model.ir.graph.inputs[0].name), str(model.ir.graph.outputs[0].name)
        data = images(self.source)
        training = split_of(data.train, *names, self.samples)
        fix_sizes(model.ir, training)
        options = Options(Budget("flops", self.ratio))
        network = make_network(model.ir, training, options)
        metric = parse_metric("accuracy", labelled=True)
        judges = (
            make_judge(model.ir, split_of(part, *names, count), metric, 1, self.name)
            for part, count in ((data.validation, self.samples), (data.test, len(data.test.labels)))
        )
        return network, make_problem(network, training, options, self.name, None), *judges

    @property
    def network(self) -> Network:
        """The network, calibrated."""
        return self._parts[0]

    @property
    def problem(self) -> Problem:
        """What is searched."""
        return self._parts[1]

    def score(self, counts: Counts) -> float:
        """Return the accuracy on the images of the search; equal counts are evaluated once."""
        key = counts.tobytes()
        if key not in self.known:
            self.known[key] = self._parts[2].score(self.network.pruned(counts))
        return self.known[key]

    def held_out(self, counts: Counts) -> float:
        """Return the accuracy on images that no search sees."""
        return self.held_out_model(self.network.pruned(counts))

    def held_out_model(self, model: ir.Model) -> float:
        """Return the accuracy of a model on images that no search sees."""
        return self._parts[3].score(model)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The accuracies of uniform counts and of the original."""
        judge = self._parts[2]
        return self.score(uniform(self.problem)), judge.score_outputs(judge.wanted)

    def reward(self, score: float) -> float:
        """Put an accuracy on the scale of rewards."""
        return float(standardised(np.array(score), *self.ends))

    def history(self, base: Counts, counts: Counts, scores: np.ndarray, learned: dict[str, np.ndarray]) -> History:
        """Return what a search left for others."""
        run = Run(self.name, self.source, "accuracy", "flops", self.ratio, "ddpg", "", 0, "1/1", *self.ends[::-1])
        return History(run, self.problem, base, counts, scores, learned)


@cache
def case(name: str, ratio: float, source: str = "textures", samples: int = 512, epochs: int | None = None) -> Case:
    """Return a case, one object for equal arguments."""
    return Case(name, ratio, source, samples, epochs)
