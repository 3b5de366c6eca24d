"""An upper bound on per-example gradient norms that holds under rounding, so that clipping by it bounds sensitivity."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np

from jaxnn.numerics import accumulate, safe_sqrt
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.placing import ROWS, returns
from jaxnn.tape import Addition, Convolution, Lookup, Placed, SoftmaxProduct, Tape, Use, Whole
from jaxnn.types import Array

ROUNDINGS = 4
"""k: the margin covers a rounding error of k eps S_i^2. Sums of 4 to 1,024 positions that cancel, through
products and convolutions, were off by at most eps S_i^2 / 3; worse cases are not excluded."""


@returns(ROWS)
def safe_norms(tape: Tape, norms: Array) -> Array:
    """sqrt(n_i^2 + k eps S_i^2), (N,), S_i >= sum_t |a_it| |delta_it|: an upper bound on |g_i| under cancellation.

    n_i are the computed `norms`, k is `ROUNDINGS`, eps the machine epsilon of their dtype; S_i^2 adds
    over parameters.

    The terms of g_i = sum_t a_it' delta_it may cancel. Then n_i^2, from Gram matrices of positions, has an error of
    about eps S_i^2, and may be 0 although g_i is not: the example would not be clipped. Without cancellation S_i is
    about |g_i| and the margin a rounding error; with T positions of random signs S_i^2 is T |g_i|^2. NaN is
    replaced by infinity, so that such an example is clipped to 0.

    Reference: Higham, N. J. (2002). Accuracy and stability of numerical algorithms, section 3.1 (|fl(x.y) - x.y| is at
        most about n eps |x|.|y|).
    """
    # Terms of all uses of one parameter may cancel each other; terms of different parameters are never added.
    sizes = [functools.reduce(jnp.add, map(size_of, uses)) for uses in tape.uses if uses]
    return with_margin(norms, sum((jnp.square(size.astype(norms.dtype)) for size in sizes), jnp.zeros_like(norms)))


def with_margin(norms: Array, squares: Array) -> Array:
    """`safe_norms` from the norms and the S_i^2, (N,)."""
    eps = jnp.asarray(ROUNDINGS * float(np.finfo(norms.dtype).eps), norms.dtype)
    found = safe_sqrt(jnp.square(norms) + eps * squares)
    return jnp.where(jnp.isnan(found), jnp.asarray(jnp.inf, norms.dtype), found)


def size_of(use: Use) -> Array:
    """An upper bound on sum_t |a_t| |delta_t|, (N,), by the Cauchy-Schwarz inequality."""
    if isinstance(use, Placed):
        return size_of(use.use)  # an injective view has the same terms
    if isinstance(use, Whole):
        return _norm(use.grads)
    if isinstance(use, SoftmaxProduct):
        form = Chunked(use)
        squares = form.sum(lambda c: jnp.square(_norm(use.at(c).delta if use.class_axis == 1 else use.at(c).a)))
        return _norm(use.a) * safe_sqrt(squares)
    if isinstance(use, Addition | Lookup):
        return math.sqrt(use.delta.shape[1]) * _norm(use.delta)
    # An entry of a convolution's input is in at most as many patches as the window has positions.
    repeats = math.prod(use.window) if isinstance(use, Convolution) else 1
    return math.sqrt(repeats) * _norm(use.a) * _norm(use.delta)


def _norm(x: Array) -> Array:
    wide = accumulate(x)
    return safe_sqrt(jnp.sum(jnp.square(wide.reshape(wide.shape[0], -1)), axis=1))
