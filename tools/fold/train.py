"""The story of `sartor fold-train`: open the data and the run, take steps, judge, checkpoint, keep the weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sartor.share.console import note, progress
from sartor.share.errors import CheckpointedError, GoalNotMetError
from sartor.share.signals import noting_stop
from sartor.tools.fold.checkpoint import State, restore, save
from sartor.tools.fold.config import Config
from sartor.tools.fold.evaluate import Judgement, judge
from sartor.tools.fold.export import export_trunk
from sartor.tools.fold.feed import Pass, open_feed
from sartor.tools.fold.metrics import Sink, open_log
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.optimise.average import Average
from sartor.tools.fold.options import Options
from sartor.tools.fold.pack import pack
from sartor.tools.fold.plan import Options as PackOptions
from sartor.tools.fold.run import Run, open_run, record
from sartor.tools.fold.sampler import make_sampler
from sartor.tools.fold.step import NonFiniteLossError, keep_for_inspection, take
from sartor.tools.fold.store import Shards, open_shards
from sartor.tools.fold.synthetic import write_proteins
from sartor.tools.fold.weights_file import write_weights

PROTEINS, SEED = 4, 0
"""Of the proteins that are made up: the same for every run, so that runs can be compared."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its steps, the loss of the last (None where none was left), the judgement, and the seconds."""

    steps: int
    loss: float | None
    judgement: Judgement
    seconds: float


def train(config: Config, options: Options, argv: Sequence[str] | None) -> Outcome:
    """Train, or go on with, a run; without argv leave no history record.

    Raises UsageError, InputRefusedError, GoalNotMetError where a loss is not finite, OutputError, WriteError, and
    CheckpointedError after SIGTERM or SIGUSR1.
    """
    started = time.monotonic()
    torch.set_num_threads(options.threads)
    shards = open_shards(options.source if options.source is not None else made_up(options))
    judged = shards if options.judged is None else open_shards(options.judged)
    run = open_run(options.run, config, shards.digest, options.resume)
    if argv is not None:
        record(run, config, shards.digest, argv)
    device = torch.device(options.device)
    state = make_state(config, device)
    done = restore(state, run.start) if run.start else 0
    if done:
        note(f"going on after step {done}")
    with open_log(run.folder, done, options.mlperf) as log:
        training = _Training(run, state, shards, judged, config, device, log)
        loss = _steps(training, done, options.threads)
        judgement = _judge(training, max(done, config.training.steps))
    if options.weights is not None:
        write_weights(state, config, run, options.weights)
    if options.trunk is not None:
        export_trunk(state, config, run, options.trunk)
    return Outcome(max(done, config.training.steps), loss, judgement, time.monotonic() - started)


def made_up(options: Options) -> Path:
    """Make up proteins in the folder of a run, pack them, and return the folder of the shards."""
    folder = options.run / "synthetic"
    structures, alignments = write_proteins(folder, PROTEINS, SEED)
    pack(structures, alignments, options.run / "shards", PackOptions(), None)
    return options.run / "shards"


def make_state(config: Config, device: torch.device) -> State:
    """Make the model with weights drawn by the seed, Adam, and the average."""
    torch.manual_seed(config.training.seed)
    model = AlphaFold(config.model).to(device)
    chosen = config.optimiser
    adam = torch.optim.Adam(
        model.parameters(), lr=chosen.rate, betas=(chosen.beta1, chosen.beta2), eps=chosen.epsilon, foreach=True
    )
    return State(model, adam, Average(list(model.parameters()), chosen.average))


@dataclass(frozen=True)
class _Training:
    """What all steps of a run share."""

    run: Run
    state: State
    shards: Shards
    judged: Shards
    config: Config
    device: torch.device
    log: Sink


def _steps(training: _Training, done: int, threads: int) -> float | None:
    """Take the steps that are left and return the loss of the last."""
    config, loss = training.config, None
    sampler = make_sampler(training.shards.lengths, training.shards.clusters, config.training.seed)
    feed = open_feed(training.shards, sampler, config, done + 1, threads)
    with feed as steps, noting_stop() as stopped, progress("steps", config.training.steps - done) as advance:
        for step, waited, passes in _numbered(steps, done + 1):
            loss = _step(training, passes, step, waited)
            last = step == config.training.steps
            if step % config.evaluation.every == 0 and not last:
                _judge(training, step)
            if last or step % config.training.checkpoint_every == 0 or stopped():
                _save(training, step)
            if stopped() and not last:
                remedy = "Start it again with --resume auto"
                raise CheckpointedError(f"stopped by a signal after step {step}", remedy=remedy)
            advance(1)
    return loss


def _numbered(steps: Iterator[list[Pass]], first: int) -> Iterator[tuple[int, float, list[Pass]]]:
    """Yield the number of each step, the seconds that it waited for its samples, and these."""
    number, begun = first, time.monotonic()
    for passes in steps:
        yield number, time.monotonic() - begun, passes
        number, begun = number + 1, time.monotonic()


def _step(training: _Training, passes: list[Pass], step: int, waited: float) -> float:
    """Take a step, write down what it came to, and return its loss."""
    begun = time.monotonic()
    try:
        taken = take(training.state, passes, step, training.config, training.device)
    except NonFiniteLossError as error:
        raise _kept(error, training) from error
    if step % training.config.training.log_every == 0 or step == training.config.training.steps:
        numbers = {**asdict(taken), "seconds": time.monotonic() - begun, "waited": waited}
        training.log.event("step", step, numbers)
    return taken.loss


def _kept(error: NonFiniteLossError, training: _Training) -> GoalNotMetError:
    """Keep the state before the step and its samples, and say where they are."""
    _save(training, error.step - 1)
    path = keep_for_inspection(error, training.run.folder)
    remedy = f"Look at {path}, which has its samples, and at the checkpoint before it"
    return GoalNotMetError(error.reason, subject=error.subject, remedy=remedy)


def _save(training: _Training, step: int) -> None:
    about = {"data": training.shards.digest}
    save(training.state, step, training.run.folder, training.config.training.keep, about)


def _judge(training: _Training, step: int) -> Judgement:
    found = judge(training.state, training.judged, training.config, training.device)
    training.log.event("evaluation", step, {"lddt_ca": found.lddt_ca, "chains": found.chains})
    return found
