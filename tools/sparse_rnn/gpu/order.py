"""In which order the threads of a row multiply its weights, so that look-ups of a warp meet in few banks.

A program has N threads of K slots. Each row has neighbouring threads; a weight is a pair of a place, which decides the
bank, and a value. What is returned are the weights' indices in the slots [N, K]; an
empty slot is -1 - b where a look-up in bank b, at a place that holds zeros, costs least.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.kernels.memory import compiled

Array = NDArray[Any]
Order = Literal["sorted", "greedy", "constructive"]


def arrange(order: Order, starts: Array, begins: Array, places: Array, threads: int, depth: int, banks: int) -> Array:
    """Distribute weights over slots [N, K].

    `starts` [R + 1] are where rows begin among the weights, `begins` [R + 1] their first threads, `places` those of
    the weights.
    """
    if order == "constructive":
        return np.asarray(_constructive(starts, begins, places, threads, depth, banks))
    slots = np.asarray(_in_turn(starts, begins, _dealt(starts, places, banks, order == "greedy"), threads, depth))
    return np.asarray(_greedy(slots, places, banks)) if order == "greedy" else slots


def _dealt(starts: Array, places: Array, banks: int, by_bank: bool) -> Array:
    """Return the order in which the weights of each row are handed out: by place, or one of each bank in turn."""
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    if not by_bank:
        return np.lexsort((places, rows))
    bank = places % banks
    by = np.lexsort((places, bank, rows))
    first = np.r_[True, (np.diff(rows[by]) != 0) | (np.diff(bank[by]) != 0)] if len(by) else np.zeros(0, bool)
    group = np.flatnonzero(first)
    turn = np.arange(len(by)) - np.repeat(group, np.diff(np.r_[group, len(by)]))
    return np.asarray(by[np.lexsort((bank[by], turn, rows[by]))])


@compiled
def _in_turn(starts: Any, begins: Any, dealt: Any, threads: int, depth: int) -> Any:
    """Hand the weights of a row out in runs, equally many to each of its threads, but for one."""
    slots = np.full((threads, depth), -1, np.int64)
    for row in range(len(starts) - 1):
        count, sharing = starts[row + 1] - starts[row], begins[row + 1] - begins[row]
        for i in range(count):
            thread = i * sharing // count
            slots[begins[row] + thread, i - (thread * count + sharing - 1) // sharing] = dealt[starts[row] + i]
    return slots


@compiled
def _greedy(slots: Any, places: Any, banks: int) -> Any:
    """Order the weights of each thread anew, slot by slot, for threads that are served together.

    In each slot as many threads as possible get banks of their own, those first that have most weights left; banks that
    most weights wait for are given first (augmenting paths). A thread without one takes the least used bank.
    """
    threads, depth = slots.shape
    found = np.full((threads, depth), -1, np.int64)
    for first in range(0, threads, banks):
        left, heads, links = _by_bank(slots[first : first + banks], places, banks)
        for k in range(depth):
            taken = _matching(left, banks)
            used = np.zeros(banks, np.int64)
            for t in range(banks):
                if taken[t] >= 0:
                    used[taken[t]] += 1
            for t in range(banks):
                # A thread with fewer weights than slots may wait for another slot.
                if taken[t] < 0 and left[t].sum() >= depth - k:
                    taken[t] = _least_used(left[t], used)
                    used[taken[t]] += 1
                if taken[t] >= 0:
                    found[first + t, k] = slots[first + t, heads[t, taken[t]]]
                    heads[t, taken[t]] = links[t, heads[t, taken[t]]]
                    left[t, taken[t]] -= 1
            for t in range(banks):
                if taken[t] < 0:
                    found[first + t, k] = -1 - np.argmin(used)
    return found


@compiled
def _by_bank(slots: Any, places: Any, banks: int) -> Any:
    """Return how many weights of each bank a thread has, and lists of them: heads [threads, banks], links [.., K]."""
    depth = slots.shape[1]
    left = np.zeros((banks, banks), np.int64)
    heads, links = np.full((banks, banks), -1, np.int64), np.full((banks, depth), -1, np.int64)
    for t in range(banks):
        for k in range(depth - 1, -1, -1):
            if slots[t, k] >= 0:
                bank = places[slots[t, k]] % banks
                links[t, k] = heads[t, bank]
                heads[t, bank] = k
                left[t, bank] += 1
    return left, heads, links


@compiled
def _least_used(left: Any, used: Any) -> int:
    best = -1
    for b in range(len(left)):
        if left[b] > 0 and (best < 0 or used[b] < used[best]):
            best = b
    return best


@compiled
def _descending(left: Any, axis: int) -> Any:
    """Return banks (axis 0) or threads (1), those first that have most weights left."""
    count = len(left)
    sums, found = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for i in range(count):
        for j in range(count):
            sums[j if axis == 0 else i] += left[i, j]
    for i in range(count):
        best = 0
        for j in range(count):
            if sums[j] > sums[best]:
                best = j
        found[i] = best
        sums[best] = -1
    return found


@compiled
def _matching(left: Any, banks: int) -> Any:
    """Return a bank for each thread, each at most once, -1 for none: the largest matching, full banks first."""
    of_thread = np.full(banks, -1, np.int64)
    before, queue = np.zeros(banks, np.int64), np.zeros(banks + 1, np.int64)
    by_bank, by_thread = _descending(left, 0), _descending(left, 1)
    for bank in by_bank:
        for t in range(banks):
            before[t] = -1
        queue[0] = bank
        head, tail, end = 0, 1, -1
        while head < tail and end < 0:
            b = queue[head]
            head += 1
            for t in by_thread:
                if left[t, b] > 0 and before[t] < 0:
                    before[t] = b
                    if of_thread[t] < 0:
                        end = t
                        break
                    queue[tail] = of_thread[t]
                    tail += 1
        # Along the path every thread takes the bank that it was reached from.
        while end >= 0:
            b = before[end]
            previous = -1
            for t in range(banks):
                if of_thread[t] == b:
                    previous = t
            of_thread[end] = b
            end = previous
    return of_thread


@compiled
def _constructive(starts: Any, begins: Any, places: Any, threads: int, depth: int, banks: int) -> Any:
    """Order weights of rows that have equally many in each bank: no two threads served together meet, for odd K.

    Thread i looks up bank i K + k in slot k, so that with odd K neighbours differ. A row has K slots a thread, one bank
    after the other, round and round; its weights fill them from the front.
    """
    slots = np.zeros((threads, depth), np.int64)
    for thread in range(threads):
        for k in range(depth):
            slots[thread, k] = -1 - (thread * depth + k) % banks
    for row in range(len(starts) - 1):
        filled = np.zeros(banks, np.int64)
        for i in range(starts[row], starts[row + 1]):
            bank = places[i] % banks
            # The row's first slot of this bank, and every `banks`-th from there.
            at = (bank - begins[row] * depth) % banks + banks * filled[bank]
            slots[begins[row] + at // depth, at % depth] = i
            filled[bank] += 1
    return slots
