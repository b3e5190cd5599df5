"""The story of `sartor prune`: read, find channels, calibrate, search, compact, refit, verify, fine-tune, write."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from threadpoolctl import threadpool_limits

from sartor.share import history
from sartor.share.artifact import Model, read_model, write_model
from sartor.share.console import progress, warn
from sartor.share.data import open_data
from sartor.tools.prune.again import refit_again
from sartor.tools.prune.evaluate import Judge, Runner, make_judge, parse_metric
from sartor.tools.prune.history import read_history
from sartor.tools.prune.network import Network
from sartor.tools.prune.plan import Options, Plan
from sartor.tools.prune.prepare import (
    Samples,
    declared_interface,
    fix_sizes,
    make_network,
    make_problem,
    read_samples,
    restore_interface,
)  # fmt: skip
from sartor.tools.prune.problem import Counts
from sartor.tools.prune.report import describe
from sartor.tools.prune.search import Outcome, begin, episodes_of, make_strategy, search
from sartor.tools.prune.verify import require_same


def prune(source: str, target: str | None, data: str, options: Options, argv: Sequence[str] | None) -> Plan:
    """Prune a model and write it; without a target only search, without argv leave no history record.

    Raises InputRefusedError, UsageError, GoalNotMetError, OutputError, WriteError.
    """
    # Products take one thread each: what they sum to must not depend on how many there are.
    with threadpool_limits(1):
        return _prune(source, target, data, options, argv)


def _prune(source: str, target: str | None, data: str, options: Options, argv: Sequence[str] | None) -> Plan:
    started = time.monotonic()
    model = read_model(source)
    interface = declared_interface(model.ir)
    with open_data(data, model.ir) as stored:
        samples = read_samples(stored, options)
    fix_sizes(model.ir, samples.training)
    metric = parse_metric(options.metric, bool(samples.judging.labels))
    judge = make_judge(model.ir, samples.judging, metric, options.threads, data)
    network = make_network(model.ir, samples.training, options)
    resumed = None if options.resume is None else read_history(options.resume)
    problem = make_problem(
        network, samples.training, options, model.source, None if resumed is None else resumed.problem
    )
    earlier = begin(model, network, problem, judge, samples, options, resumed)
    strategy = make_strategy(problem, earlier.history.base, options, earlier.others)
    with progress("episodes", episodes_of(options)) as step:
        outcome = search(strategy, earlier, lambda counts: judge.score(network.pruned(counts)), options, step)
    final = make_judge(model.ir, samples.choosing, metric, options.threads, data)
    best, small = _chosen(network, outcome, final, samples)
    error = require_same(network, best, samples.training, model.source)
    small, losses = _tuned(small, model, final, samples, options)
    plan = describe(network, small, best, final, samples, outcome, losses, error, time.monotonic() - started, options)
    if target is not None:
        restore_interface(small, interface)
        if argv is not None:
            _record(model, samples, options, argv)
            small.metadata_props.update(model.ir.metadata_props)
        write_model(small, target)
    return plan


def _chosen(network: Network, outcome: Outcome, judge: Judge, samples: Samples) -> tuple[Counts, ir.Model]:
    """Judge what did best in the search on more samples; return the best, or the start if it is better in the end."""
    best = outcome.finalists[0]
    if len(outcome.finalists) > 1:
        scores = [judge.score(network.pruned(counts)) for counts in outcome.finalists]
        best = outcome.finalists[int(np.argmax(scores))]
    found = [(best, _refitted(network, best, judge, samples))]
    if not np.array_equal(best, outcome.start):
        found.append((outcome.start, _refitted(network, outcome.start, judge, samples)))
    return max(found, key=lambda one: judge.score(one[1]))


def _refitted(network: Network, counts: Counts, judge: Judge, samples: Samples) -> ir.Model:
    """Return the pruned model, refitted again unless it is worse then."""
    once, twice = (network.pruned(counts) for _ in range(2))
    refit_again(network, counts, twice, samples.training, network.place)
    return twice if judge.score(twice) >= judge.score(once) else once


def _tuned(
    small: ir.Model, model: Model, judge: Judge, samples: Samples, options: Options
) -> tuple[ir.Model, list[float]]:
    """Return the fine-tuned model, if that is asked for and does not make it worse, and the loss of every epoch."""
    if samples.tuning is None:
        return small, []
    from sartor.share.training import steps_of
    from sartor.tools.prune.finetune import finetune

    wanted = Runner(model.ir).outputs(samples.tuning.inputs, options.threads) if options.distill else None
    tuned = small.clone()
    with progress("gradient steps", steps_of(samples.tuning, options.finetune)) as step:
        losses = finetune(tuned, samples.tuning, wanted, options.finetune, options.seed, options.threads, step)
    before, after = judge.score(small), judge.score(tuned)
    if after < before:
        warn(f"fine-tuning made it worse on val ({before:.4f} -> {after:.4f}): it is left out")
        return small, losses
    return tuned, losses


def _record(model: Model, samples: Samples, options: Options, argv: Sequence[str]) -> None:
    parameters = {
        "budget": [options.budget.resource, options.budget.ratio],
        "metric": options.metric,
        "strategy": options.search,
        "start": options.start,
        "episodes": options.episodes,
        "transfer": options.transfer,
        "assistant": options.assistant,
        "round": options.round_to,
        "keep": options.keep,
        "least_ratio": options.least_ratio,
        "samples": options.samples,
        "shard": options.shard,
        "finetune": options.finetune,
        "distill": options.distill,
    }
    previous = history.last_id(history.read_onnx(model.ir, model.source))
    inputs = [model.sha256, samples.sha256]
    record = history.make_record("prune", argv, inputs, parameters, options.seed, previous)
    history.append_onnx(model.ir, record, model.source)
