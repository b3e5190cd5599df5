"""Least-squares refit of a layer that reads pruned channels.

The channels that a layer reads fall into n classes that live or die whole; channels of no class are always kept. When
only some are left, the weights that fit the layer's target best are `argmin_W |Y - A_S W|^2 + r |W0_S - W|^2`: S are
the columns of the kept channels and W0 the layer's weights. Pulling towards W0, not towards zero, leaves a layer that
loses nothing as it is, even where columns are dead, constant, duplicate, or more than there are rows. How strong the
pull has to be follows from how far the Gram matrix of so many rows is to be trusted: it is the oracle approximating
shrinkage of a covariance (Chen et al. 2010, IEEE Trans. Signal Processing 58(10), equation 23).

Whether cross products with a target have to be summed: not where the target is what the layer itself puts out for the
same inputs, because then `A^T Y = A^T A W0`. Only a target from elsewhere needs them: outputs of the unpruned network
for inputs of a pruned one, or the sum that a residual block ends in.

Letters: G groups, K columns of a group, O outputs of a group, n classes of s columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sartor.tools.prune.kernels.cross import Cross
from sartor.tools.prune.kernels.moments import Moments
from sartor.tools.prune.kernels.nested import cholesky, forward, weights_of_first
from sartor.tools.prune.kernels.window import Array

LEAST_PULL = 1e-5
"""Smallest pull, as a share of the mean square of the columns: ten times the error of their Gram matrix."""

MOST_SHRINKAGE = 0.9
"""Largest share of a shrunk covariance that its multiple of the identity has."""


@dataclass(frozen=True)
class Statistics:
    """What the refit of a layer needs to know about data, as means over `rows`, in float64.

    Of columns and outputs less their means, or as they are where the layer has no bias: gram [G, K, K] = A^T A,
    cross [G, K, O] = A^T Y, energy [G] = |Y|^2. The means, zero without a bias: columns [G, K], outputs [G, O].
    The mean square of the columns as they were summed, which measures the error of the sums: scale [G].
    """

    rows: int
    scale: Array
    gram: Array
    cross: Array
    energy: Array
    weight: Array
    columns: Array
    outputs: Array

    def group(self, index: int) -> Statistics:
        """Return the statistics of one group, for classes that differ by group."""
        fields = (self.scale, self.gram, self.cross, self.energy, self.weight, self.columns, self.outputs)
        return Statistics(self.rows, *(field[index : index + 1] for field in fields))


@dataclass(frozen=True)
class Refit:
    """Weights of a layer for some columns: columns [k] ascending, weight [G, k, O], bias [G, O]."""

    columns: Array
    weight: Array
    bias: Array


def own_statistics(found: Moments, weight: Array, bias: Array | None) -> Statistics:
    """Take what the layer itself puts out as the target; weight [G, K, O], and bias [G, O] if the layer has one."""
    weight = weight.astype(np.float64)
    gram, columns = _second(found), _first(found)
    outputs = np.einsum("gk,gko->go", columns, weight) + (0 if bias is None else bias)
    cross = gram @ weight
    energy = np.sum(weight * cross, (1, 2))
    about_mean = Statistics(found.rows, _scale(found), gram, cross, energy, weight, columns, outputs)
    return about_mean if bias is not None else _about_zero(about_mean)


def target_statistics(found: Moments, target: Cross, weight: Array, has_bias: bool) -> Statistics:
    """Take a target from elsewhere for a layer of weight [G, K, O]."""
    rows, mean = target.rows, target.sums / target.rows
    products = target.cross / rows - _outer(found.sums / rows, mean)
    energy = target.energy / rows - np.sum(mean**2, 1)
    weight, columns, outputs = weight.astype(np.float64), _first(found), target.shift + mean
    about_mean = Statistics(rows, _scale(found), _second(found), products, energy, weight, columns, outputs)
    return about_mean if has_bias else _about_zero(about_mean)


def _first(found: Moments) -> Array:
    """Return the mean of every column [G, K]."""
    groups, columns = found.sums.shape
    by_column = np.repeat(found.shift.astype(np.float64), groups * columns // len(found.shift))
    return np.asarray(by_column.reshape(groups, columns) + found.sums / found.rows)


def _second(found: Moments) -> Array:
    """Return the covariance of columns [G, K, K]."""
    mean = found.sums / found.rows
    return np.asarray(found.gram / found.rows - _outer(mean, mean))


def _scale(found: Moments) -> Array:
    return np.asarray(np.einsum("gkk->g", found.gram) / found.gram.shape[1] / found.rows)


def _about_zero(about_mean: Statistics) -> Statistics:
    columns, outputs = about_mean.columns, about_mean.outputs
    return replace(
        about_mean,
        gram=about_mean.gram + _outer(columns, columns),
        cross=about_mean.cross + _outer(columns, outputs),
        energy=about_mean.energy + np.sum(outputs**2, 1),
        columns=np.zeros_like(columns),
        outputs=np.zeros_like(outputs),
    )


def _outer(a: Array, b: Array) -> Array:
    return np.asarray(a[:, :, None] * b[:, None])


@dataclass(frozen=True)
class Nested:
    """Refits of a layer to the first k classes of an order, for all k.

    order [n]; columns [K] in the order of the factor, those of no class first; ends [n + 1]: of k classes and those
    columns; factor [G, K, K] and solved [G, K, O] of `kernels.nested`; curve [n + 1], the share of the target's energy
    that k classes leave unexplained: in [0, 1] and non-increasing.
    """

    statistics: Statistics
    order: Array
    columns: Array
    ends: Array
    factor: Array
    solved: Array
    curve: Array


def nest(statistics: Statistics, classes: Array, order: Array) -> Nested:
    """Work out the refits to the first k classes of an order [n]; classes [n, s] lists the columns of each."""
    count, size = classes.shape
    fixed = np.setdiff1d(np.arange(statistics.gram.shape[1]), classes)
    columns = np.concatenate([fixed, classes[order].ravel()]).astype(np.intp)
    ends = len(fixed) + size * np.arange(count + 1)
    gram, right, energy = _pulled(statistics)
    factor = cholesky(gram[:, columns[:, None], columns])
    solved = forward(factor, right[:, columns])
    explained = np.sum(solved**2, (0, 2))
    # Sums of squares from the end: nothing cancels where little is left.
    left = max(energy - float(explained.sum()), 0.0) + np.append(np.cumsum(explained[::-1])[::-1], 0.0)
    curve = left[ends] / left[0] if left[0] > 0 else np.zeros(count + 1)
    return Nested(statistics, order, columns, ends, factor, solved, curve)


def _pulled(statistics: Statistics) -> tuple[Array, Array, float]:
    """Add the pull towards the layer's own weights to Gram, cross products and energy, as if there were more rows."""
    weight = statistics.weight
    pull = pull_of(statistics)[:, None, None]
    energy = float(statistics.energy.sum() + np.sum(pull * weight**2))
    return statistics.gram + pull * np.eye(weight.shape[1]), statistics.cross + pull * weight, energy


def pull_of(statistics: Statistics) -> Array:
    """Work out the pull r [G] that shrinks a Gram matrix by the share of the identity that its rows leave open."""
    gram, size = statistics.gram, statistics.gram.shape[1]
    trace, squares = np.einsum("gkk->g", gram), np.sum(gram**2, (1, 2))
    unlike = np.maximum(squares - trace**2 / size, _TINY)
    share = ((1 - 2 / size) * squares + trace**2) / ((statistics.rows + 1 - 2 / size) * unlike)
    share = np.minimum(share, MOST_SHRINKAGE)
    return np.asarray(np.maximum(share / (1 - share) * trace / size, LEAST_PULL * statistics.scale) + _TINY)


_TINY = 1e-300
"""What keeps the factor of a layer that reads only zeros finite."""


def refit_first(nested: Nested, count: int) -> Refit:
    """Return the refit to the first `count` classes."""
    end = int(nested.ends[count])
    return _refit(nested.statistics, nested.columns[:end], weights_of_first(nested.factor, nested.solved, end))


def refit(statistics: Statistics, columns: Array) -> Refit:
    """Fit the layer to any columns [k], such as those that are left when several units it reads are pruned."""
    gram, right, _ = _pulled(statistics)
    factor = cholesky(gram[:, columns[:, None], columns])
    weight = weights_of_first(factor, forward(factor, right[:, columns]), len(columns))
    return _refit(statistics, columns, weight)


def _refit(statistics: Statistics, columns: Array, weight: Array) -> Refit:
    ascending = np.argsort(columns)
    columns, weight = columns[ascending], weight[:, ascending]
    bias = statistics.outputs - np.einsum("gk,gko->go", statistics.columns[:, columns], weight)
    return Refit(columns, weight, bias)
