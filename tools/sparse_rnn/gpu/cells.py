"""The pointwise part of cells in Gluon: from pre-activations to states, an element a unit and lane."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def sigmoid(x):
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + gl.exp(-x))


@gluon.jit
def tanh(x):
    """Return the hyperbolic tangent, to 1e-7 absolute."""
    return 2.0 * sigmoid(2.0 * x) - 1.0


@gluon.jit
def activate(x, F: gl.constexpr):
    """Apply an activation."""
    A: gl.constexpr = F.alpha
    B: gl.constexpr = F.beta
    if F.name == "sigmoid":
        y = sigmoid(x)
    elif F.name == "tanh":
        y = tanh(x)
    elif F.name == "affine":
        y = x * A + B
    elif F.name == "relu":
        y = gl.maximum(x, 0.0)
    elif F.name == "leakyrelu":
        y = gl.where(x < 0.0, x * A, x)
    elif F.name == "thresholdedrelu":
        y = gl.where(x > A, x, 0.0)
    elif F.name == "scaledtanh":
        y = A * tanh(B * x)
    elif F.name == "hardsigmoid":
        y = gl.minimum(gl.maximum(x * A + B, 0.0), 1.0)
    elif F.name == "elu":
        y = gl.where(x < 0.0, A * (gl.exp(x) - 1.0), x)
    elif F.name == "softsign":
        y = x / (1.0 + gl.abs(x))
    else:
        gl.static_assert(F.name == "softplus")
        y = gl.maximum(x, 0.0) + gl.log(1.0 + gl.exp(-gl.abs(x)))
    return y


@gluon.jit
def clipped(x, S: gl.constexpr):
    """Clip a pre-activation."""
    if S.clip is not None:
        x = gl.minimum(gl.maximum(x, -S.clip), S.clip)
    return x


@gluon.jit
def lstm(i, o, forget, candidate, cell, peep_i, peep_o, peep_f, S: gl.constexpr):
    """Return the new hidden and cell state of an LSTM."""
    if S.peepholes:
        i += peep_i * cell
        forget += peep_f * cell
    i = activate(clipped(i, S), S.activations[0])
    if S.input_forget:
        forget = 1.0 - i
    else:
        forget = activate(clipped(forget, S), S.activations[0])
    new = forget * cell + i * activate(clipped(candidate, S), S.activations[1])
    if S.peepholes:
        o += peep_o * new
    return activate(clipped(o, S), S.activations[0]) * activate(new, S.activations[2]), new


@gluon.jit
def gru_inside(update, reset, outer, inner, hidden, S: gl.constexpr):
    """Return the new hidden state of a GRU whose reset gate scales the product."""
    update = activate(clipped(update, S), S.activations[0])
    reset = activate(clipped(reset, S), S.activations[0])
    candidate = activate(clipped(outer + reset * inner, S), S.activations[1])
    return (1.0 - update) * candidate + update * hidden
