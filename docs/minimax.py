"""Derive the coefficients of `share/kernels/circular.py`, `hyperbolic.py` and `power.py`.

Each polynomial P(z) is a minimax fit: of all polynomials of its degree it has the least maximum of
|g(z) - P(z)| w(z) over an interval, where w makes that the relative error of the function as a whole. Remez's exchange
finds it in 60 digits. Then float32 coefficients are rounded one by one, the lowest first, and the others are fitted
anew to what is left, so that the rounding of one is made up for by the next; float64 ones are simply rounded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mpmath import mp, mpf

Real = Callable[[mpf], mpf]

DIGITS = 60
GRID = 2000
"""Points, dense at the ends as extrema are, among which maxima are looked for."""

ROUNDS = 20


@dataclass(frozen=True)
class Fit:
    """A function to fit by a polynomial of so many coefficients over [low, high], and the weight of its error."""

    target: Real
    weight: Real
    low: float
    high: float
    count: int
    kind: type[np.floating] = np.float32


def _root(function: Real) -> Real:
    """Return a function of the square of its argument."""
    return lambda z: function(mp.sqrt(z))


QUARTER = 0.797
"""Bound of |r| after reduction by multiples of pi/2: pi/4, and what rounding the multiple adds."""

FITS: dict[str, Fit] = {
    # sin(r) = r + r z P(z), cos(r) = 1 - z/2 + z^2 P(z), tan(r) = r + r z P(z), each with z = r^2.
    "circular.SIN": Fit(
        _root(lambda r: (mp.sin(r) / r - 1) / r**2), _root(lambda r: r**3 / mp.sin(r)), 1e-9, QUARTER**2, 3
    ),
    "circular.COS": Fit(
        _root(lambda r: (mp.cos(r) - 1 + r**2 / 2) / r**4), _root(lambda r: r**4 / mp.cos(r)), 1e-9, QUARTER**2, 3
    ),
    "circular.TAN": Fit(
        _root(lambda r: (mp.tan(r) / r - 1) / r**2), _root(lambda r: r**3 / mp.tan(r)), 1e-9, QUARTER**2, 7
    ),
    # atan(t) = t + t z P(z), asin(s) = s + s z P(z).
    "circular.ATAN": Fit(
        _root(lambda t: (mp.atan(t) / t - 1) / t**2), _root(lambda t: t**3 / mp.atan(t)), 1e-9, 1.0, 9
    ),
    "circular.ASIN": Fit(
        _root(lambda s: (mp.asin(s) / s - 1) / s**2), _root(lambda s: s**3 / mp.asin(s)), 1e-9, 0.25, 5
    ),
    # sinh(x) = x + x z P(z).
    "hyperbolic.SINH": Fit(
        _root(lambda x: (mp.sinh(x) / x - 1) / x**2), _root(lambda x: x**3 / mp.sinh(x)), 1e-9, 1.0, 4
    ),
    # log2(1 + f) = f P(f).
    "power.LOG2": Fit(
        lambda f: mp.log1p(f) / mp.log(2) / f,
        lambda f: f * mp.log(2) / mp.log1p(f),
        2**-0.5 - 1,
        2**0.5 - 1,
        12,
        np.float64,
    ),
}


def rounded(fit: Fit) -> list[mpf]:
    """Return coefficients that are numbers of the fit's type, lowest first."""
    with mp.workdps(DIGITS):
        if fit.kind is np.float64:
            return [mpf(float(number)) for number in remez(fit, [])]
        done: list[mpf] = []
        while len(done) < fit.count:
            done.append(mpf(float(fit.kind(float(remez(fit, done)[0])))))
        return done


def remez(fit: Fit, done: Sequence[mpf]) -> list[mpf]:
    """Return the coefficients behind those that are done, so that the whole has the least maximal error."""
    start, free = len(done), fit.count - len(done)
    middle, half = (mpf(fit.high) + mpf(fit.low)) / 2, (mpf(fit.high) - mpf(fit.low)) / 2
    grid = [middle - half * mp.cos(mp.pi * i / GRID) for i in range(GRID + 1)]
    weights = [fit.weight(z) for z in grid]
    left = [fit.target(z) - mp.polyval(list(reversed(done)) or [0], z) for z in grid]
    points = [round(i * GRID / free) for i in range(free + 1)]
    best, least = [mpf(0)] * free, mpf("inf")
    for _ in range(ROUNDS):
        system = mp.matrix([[*(grid[p] ** (start + k) for k in range(free)), (-1) ** i / weights[p]]
                            for i, p in enumerate(points)])  # fmt: skip
        found = list(mp.lu_solve(system, mp.matrix([left[p] for p in points])))[:free]
        errors = [
            weight * (rest - z**start * mp.polyval(found[::-1], z))
            for z, weight, rest in zip(grid, weights, left, strict=True)
        ]
        largest = max(map(abs, errors))
        if largest < least:
            best, least = found, largest
        points = _extrema(errors, free + 1)
    return best


def _extrema(errors: Sequence[mpf], count: int) -> list[int]:
    """Find `count` neighbouring places of largest error whose signs alternate."""
    places = [0]
    for i, error in enumerate(errors):
        same = error * errors[places[-1]] > 0
        if same and abs(error) > abs(errors[places[-1]]):
            places[-1] = i
        elif not same and error != 0:
            places.append(i)
    while len(places) > count:
        places.pop(0 if abs(errors[places[0]]) < abs(errors[places[-1]]) else -1)
    assert len(places) == count, "the error does not alternate"
    return places


def largest_error(fit: Fit, coefficients: Sequence[float]) -> float:
    """Return the maximum of the weighted error when the polynomial is evaluated without rounding."""
    exact = [mpf(float(fit.kind(number))) for number in reversed(coefficients)]
    points = map(mpf, np.linspace(fit.low, fit.high, GRID))
    with mp.workdps(DIGITS):
        return float(max(abs((fit.target(z) - mp.polyval(exact, z)) * fit.weight(z)) for z in points))


def half_pi() -> tuple[float, ...]:
    """Return pi/2 in three float32, each the nearest to what the ones before leave."""
    parts: list[float] = []
    with mp.workdps(DIGITS):
        for _ in range(3):
            parts.append(float(np.float32(float(mp.pi / 2 - mp.fsum(parts)))))
    return tuple(parts)


def turns(exponent: int) -> tuple[float, ...]:
    """Return 2^exponent / (2 pi) less the nearest whole number, in parts of 28, 28 and 53 bits behind the point."""
    with mp.workdps(2 * DIGITS):
        rest = mp.ldexp(1, exponent) / (2 * mp.pi)
        rest -= mp.nint(rest)
        high = mp.ldexp(mp.nint(mp.ldexp(rest, 28)), -28)
        middle = mp.ldexp(mp.nint(mp.ldexp(rest - high, 56)), -56)
        return float(high), float(middle), float(rest - high - middle)


def main() -> None:
    """Print coefficients and the error of each fit, or of those named, and the constants that reduce angles."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("names", nargs="*", help=f"of {', '.join(FITS)}")
    for name in made.parse_args().names or FITS:
        found = [float(number) for number in rounded(FITS[name])]
        digits = 9 if FITS[name].kind is np.float32 else 17
        print(f"{name} = ({', '.join(f'{number:.{digits}g}' for number in found)})")
        print(f"    error {largest_error(FITS[name], found):.3g}")
    print(f"circular.HALF_PI = {half_pi()}")
    print("circular.TURNS =", *(f"    {[part.hex() for part in turns(24 * i)]}" for i in range(5)), sep="\n")


if __name__ == "__main__":
    main()
