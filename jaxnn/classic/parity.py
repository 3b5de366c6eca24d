"""Wide and deep networks of threshold units for the parity of N bits (1 where an odd number of them is 1).

| network | hidden and output units | layers | weights and biases |
|---|---|---|---|
| `dnf` | 2^(N-1) + 1 | 2 | (N + 2) 2^(N-1) + 1 |
| `counter` | N + 1 | 2 | (N + 1)^2 |
| `chain` | 3 (N - 1) | 2 (N - 1) | 9 (N - 1) |
| `tree` | 3 (N - 1) | 2 ceil(log2 N) | 9 (N - 1) |

The networks are (batch, N) -> (batch, 1) on inputs 0 and 1; the argument n is N >= 2. No two true rows of parity differ
in one bit only, so that its disjunctive form cannot be minimized.
"""

from __future__ import annotations

import numpy as np

from jaxnn.checks import require_positive_int
from jaxnn.classic import boolean, gates
from jaxnn.classic.threshold import THRESHOLD, Network, dense_params
from jaxnn.layers import Dense, Kind, Layer, stateless
from jaxnn.models import parallel, serial
from jaxnn.types import Array, Params

KIND = Kind("inputs")


def table(n: int) -> np.ndarray:
    """The truth table of parity.

    Returns:
        (2^n,), bool.

    Example:
        >>> table(2)
        array([False,  True,  True, False])
    """
    return np.asarray(boolean.inputs(n).sum(1) % 2 == 1)


def dnf(n: int) -> Network:
    """Parity by its disjunctive normal form: an AND unit for each of the 2^(N-1) true rows; N <= 20.

    Example:
        >>> dnf(4).units - 1, dnf(4).parameters
        (8, 49)
    """
    return boolean.dnf(table(_bits("dnf", n)))


def counter(n: int) -> Network:
    """Parity by N hidden units that count: unit k fires if at least k bits are 1; their output weights alternate.

    h_k = 1 if sum_i x_i >= k else 0, y = 1 if h_1 - h_2 + h_3 - ... >= 1/2

    Reference: Rumelhart, Hinton & Williams (1986), Learning internal representations by error propagation, "Parity".

    Example:
        >>> boolean.truth_table(counter(3), 3).astype(int)
        array([0, 1, 1, 0, 1, 0, 0, 1])
    """
    n = _bits("counter", n)
    k = np.arange(1, n + 1)
    hidden = dense_params(np.ones((n, n)), 0.5 - k)
    output = dense_params(np.where(k % 2 == 1, 1.0, -1.0)[:, None], [-0.5])
    return Network(serial(Dense(n), THRESHOLD, Dense(1), THRESHOLD), (hidden, (), output, ()))


def chain(n: int) -> Network:
    """Parity by N - 1 XORs, one after another: x_1 XOR x_2, then XOR x_3, and so on.

    Example:
        >>> chain(4).units, chain(4).parameters, chain(4).layers
        (9, 27, 6)
    """
    n = _bits("chain", n)
    return _composed([_stage(width, 1) for width in range(n, 1, -1)])


def tree(n: int) -> Network:
    """Parity by N - 1 XORs in a binary tree; an unpaired input passes to the next level.

    Example:
        >>> tree(4).units, tree(4).parameters, tree(4).layers
        (9, 27, 4)
    """
    width = _bits("tree", n)
    stages = []
    while width > 1:
        stages.append(_stage(width, width // 2))
        width -= width // 2
    return _composed(stages)


def Inputs(start: int, stop: int) -> Layer:
    """A layer without parameters that selects the inputs x[..., start:stop]: the wires that skip a layer.

    Args:
        start, stop: bounds of the slice; a stop beyond the last input counts as the number of inputs.

    Raises:
        ValueError: not 0 <= start < stop.

    Example:
        >>> Inputs(1, 3).predict((), (), np.array([[5.0, 6.0, 7.0]]))
        Array([[6., 7.]], dtype=float32)
    """
    if not 0 <= start < stop:
        raise ValueError(f"Inputs: expected 0 <= start < stop, got start {start}, stop {stop}.")

    def apply(params: Params, x: Array) -> Array:
        return x[..., start:stop]

    return stateless(KIND, apply, start=start, stop=stop)


def _stage(width: int, pairs: int) -> Network:
    """XOR on each of the first `pairs` pairs of `width` inputs, identity on the rest: (width,) -> (width - pairs,)."""
    net, params = gates.xor()
    parts = [serial(Inputs(2 * i, 2 * i + 2), *net.parts) for i in range(pairs)]
    wired = [((), *params)] * pairs
    if 2 * pairs < width:
        return Network(parallel(*parts, Inputs(2 * pairs, width)), (*wired, ()))
    return Network(parallel(*parts), tuple(wired))


def _composed(stages: list[Network]) -> Network:
    return Network(serial(*(net for net, _ in stages)), tuple(params for _, params in stages))


def _bits(where: str, n: int) -> int:
    return require_positive_int(f"parity.{where}", "n", n, 2)
