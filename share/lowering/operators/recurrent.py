"""RNN, GRU and LSTM as loops over time, or by torch where it knows the kind.

Shapes: T steps, B batch, I inputs, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.operators.recurrent_plain import is_plain, run_plain
from sartor.share.lowering.registry import NotLoweredError, Op, rule

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]

_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


@dataclass(frozen=True)
class Cell:
    """One direction of a layer: its weights, activations and options."""

    weight_GI: Tensor
    recurrence_GH: Tensor
    bias_W: Tensor
    bias_R: Tensor
    peepholes: tuple[Tensor, ...]
    activations: tuple[Activation, ...]
    clip: float
    coupled: bool
    reset_first: bool

    def bounded(self, x: Tensor) -> Tensor:
        """Clip what goes into an activation."""
        return x.clamp(-self.clip, self.clip) if self.clip else x


def activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    """Return an activation by its ONNX name in any case; raises NotLoweredError for an unknown one."""
    found: dict[str, Activation] = {
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "relu": torch.relu,
        "affine": lambda x: (1.0 if alpha is None else alpha) * x + (beta or 0.0),
        "leakyrelu": lambda x: F.leaky_relu(x, 0.01 if alpha is None else alpha),
        "thresholdedrelu": lambda x: F.threshold(x, 1.0 if alpha is None else alpha, 0.0),
        "scaledtanh": lambda x: (1.0 if alpha is None else alpha) * torch.tanh((1.0 if beta is None else beta) * x),
        "hardsigmoid": lambda x: ((0.2 if alpha is None else alpha) * x + (0.5 if beta is None else beta)).clamp(0, 1),
        "elu": lambda x: F.elu(x, 1.0 if alpha is None else alpha),
        "softsign": F.softsign,
        "softplus": F.softplus,
    }
    if name.lower() not in found:
        raise NotLoweredError(f"the activation {name}")
    return found[name.lower()]


def rnn_step(cell: Cell, gates_BG: Tensor, state: State) -> State:
    """Return the next hidden state."""
    return (cell.activations[0](cell.bounded(gates_BG + state[0] @ cell.recurrence_GH.T + cell.bias_R)),)


def gru_step(cell: Cell, gates_BG: Tensor, state: State) -> State:
    """Return the next hidden state; the gates are update, reset, hidden."""
    (hidden,) = state
    inner, outer = cell.activations
    update_x, reset_x, hidden_x = gates_BG.chunk(3, -1)
    matrices, biases = cell.recurrence_GH.chunk(3, 0), cell.bias_R.chunk(3, 0)
    update = inner(cell.bounded(update_x + hidden @ matrices[0].T + biases[0]))
    reset = inner(cell.bounded(reset_x + hidden @ matrices[1].T + biases[1]))
    if cell.reset_first:
        fresh = (reset * hidden) @ matrices[2].T + biases[2]
    else:
        fresh = reset * (hidden @ matrices[2].T + biases[2])
    candidate = outer(cell.bounded(hidden_x + fresh))
    return ((1 - update) * candidate + update * hidden,)


def lstm_step(cell: Cell, gates_BG: Tensor, state: State) -> State:
    """Return the next hidden and cell states; the gates are input, output, forget, cell."""
    hidden, memory = state
    inner, candidate_of, outer = cell.activations
    parts = (gates_BG + hidden @ cell.recurrence_GH.T + cell.bias_R).chunk(4, -1)
    enter, leave, forget, candidate = parts
    if cell.peepholes:
        enter, forget = enter + cell.peepholes[0] * memory, forget + cell.peepholes[2] * memory
    entering = inner(cell.bounded(enter))
    keeping = 1 - entering if cell.coupled else inner(cell.bounded(forget))
    memory = keeping * memory + entering * candidate_of(cell.bounded(candidate))
    if cell.peepholes:
        leave = leave + cell.peepholes[1] * memory
    return inner(cell.bounded(leave)) * outer(memory), memory


_STEPS = {"RNN": rnn_step, "GRU": gru_step, "LSTM": lstm_step}


@rule("RNN", "GRU", "LSTM")
def recurrent(
    op: Op,
    x: Tensor,
    weight_DGI: Tensor,
    recurrence_DGH: Tensor,
    bias_D2G: Tensor | None = None,
    lengths_B: Tensor | None = None,
    hidden_DBH: Tensor | None = None,
    memory_DBH: Tensor | None = None,
    peepholes_D3H: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return all hidden states (T, D, B, H), the last ones (D, B, H) and, of an LSTM, the last cell states."""
    by_batch = bool(op.attr("layout", 0))
    x_TBI = x.transpose(0, 1) if by_batch else x
    given = [hidden_DBH, memory_DBH] if op.node.op_type == "LSTM" else [hidden_DBH]
    zero = x_TBI.new_zeros(len(weight_DGI), x_TBI.shape[1], recurrence_DGH.shape[2])
    starts = [zero if one is None else (one.transpose(0, 1) if by_batch else one) for one in given]
    if lengths_B is None and peepholes_D3H is None and is_plain(op, x_TBI):
        every, *final = run_plain(op, x_TBI, weight_DGI, recurrence_DGH, bias_D2G, starts)
    else:
        cells = _cells(op, weight_DGI, recurrence_DGH, bias_D2G, peepholes_D3H)
        every, *final = _run_all(op, cells, x_TBI, starts, lengths_B)
    if by_batch:
        return every.permute(2, 0, 1, 3), *(one.transpose(0, 1) for one in final)
    return every, *final


def _run_all(
    op: Op, cells: Sequence[Cell], x_TBI: Tensor, starts: Sequence[Tensor], lengths_B: Tensor | None
) -> tuple[Tensor, ...]:
    """Run all directions step by step."""
    outputs, lasts = [], []
    for direction, cell in enumerate(cells):
        backwards = op.attr("direction", "forward") == "reverse" or direction == 1
        state = tuple(start[direction] for start in starts)
        hidden_TBH, last = _run(op, cell, x_TBI, state, lengths_B, backwards)
        outputs.append(hidden_TBH)
        lasts.append(last)
    return torch.stack(outputs, 1), *(torch.stack(parts) for parts in zip(*lasts, strict=True))


def _run(
    op: Op, cell: Cell, x_TBI: Tensor, state: State, lengths_B: Tensor | None, backwards: bool
) -> tuple[Tensor, State]:
    """Run one direction; past its length a sample keeps its state and gives zeros."""
    step = _STEPS[op.node.op_type]
    gates_TBG = F.linear(x_TBI, cell.weight_GI, cell.bias_W)
    order = range(len(gates_TBG))
    hidden: dict[int, Tensor] = {}
    for time in reversed(order) if backwards else order:
        fresh = step(cell, gates_TBG[time], state)
        if lengths_B is None:
            state, hidden[time] = fresh, fresh[0]
            continue
        inside = (lengths_B > time).unsqueeze(-1)
        state = tuple(torch.where(inside, new, old) for new, old in zip(fresh, state, strict=True))
        hidden[time] = torch.where(inside, fresh[0], torch.zeros_like(fresh[0]))
    empty = x_TBI.new_zeros(0, *state[0].shape)
    return torch.stack([hidden[time] for time in order]) if hidden else empty, state


def _cells(op: Op, weight: Tensor, recurrence: Tensor, bias: Tensor | None, peepholes: Tensor | None) -> list[Cell]:
    """Return the cells of all directions."""
    directions, gates = weight.shape[0], weight.shape[1]
    names = op.attr("activations") or _DEFAULTS[op.node.op_type] * directions
    functions = _activations(names, op.attr("activation_alpha") or [], op.attr("activation_beta") or [])
    count = len(functions) // directions
    cells = []
    for one in range(directions):
        both = weight.new_zeros(2 * gates) if bias is None else bias[one]
        holes = () if peepholes is None else peepholes[one].chunk(3)
        cells.append(
            Cell(
                weight[one], recurrence[one], both[:gates], both[gates:], tuple(holes),
                tuple(functions[one * count : (one + 1) * count]), op.attr("clip", 0.0),
                bool(op.attr("input_forget", 0)), not op.attr("linear_before_reset", 0),
            )
        )  # fmt: skip
    return cells


def _activations(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Activation]:
    """Return activations; each takes its parameters from the lists in turn if it has some."""
    with_alpha = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
    with_beta = {"affine", "scaledtanh", "hardsigmoid"}
    first, second = iter(alphas), iter(betas)
    found = []
    for name in names:
        alpha = next(first, None) if name.lower() in with_alpha else None
        beta = next(second, None) if name.lower() in with_beta else None
        found.append(activation(name, alpha, beta))
    return found
