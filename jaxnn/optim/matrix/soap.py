"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.numerics import safe_divide, safe_sqrt
from jaxnn.optim.arguments import require_decay, require_nonnegative, require_real
from jaxnn.optim.axes import by_axis, by_leaf
from jaxnn.optim.base import Optimizer, initial_moment, map_leaves, widened
from jaxnn.optim.descent import Mask, descent
from jaxnn.optim.matrix.kronecker import EXACT, multiply, second_moments, squeezed, unless_none, zero_factor
from jaxnn.optim.matrix.spectral import eigh, orthonormal
from jaxnn.optim.scalars import cast_like, increment, one_minus_power, zero_count
from jaxnn.optim.spec import specified
from jaxnn.placement import compiler_sharded
from jaxnn.types import Array, Params, PyTree, Scalar, ScalarOrSchedule, Shape


class SoapState(NamedTuple):
    """`count`: int32 updates, the first of which only initializes the bases; `mu`: mean of gradients; `nu`: mean of the
    squares of the rotated gradients; `statistics`, `bases`: mean second moments, and orthogonal matrices whose
    columns tend to their eigenvectors, largest eigenvalue first; tuples of pytrees: entry i has the matrix of the i-th
    axis of every array that is rotated, None where an array has no such axis.
    """

    count: Array  # type: ignore[assignment] # optax's name for it; it hides tuple.count
    mu: PyTree
    nu: PyTree
    statistics: PyTree
    bases: PyTree


@specified
def scale_by_soap(
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    precondition_1d: bool = False,
    *,
    correct_bias: bool = True,
    sort: bool = True,
) -> Optimizer:
    """SOAP's direction, which `soap` multiplies by -learning_rate.

    For every axis i of g that is rotated, with G_i the matrix whose rows are the slices along i:
    r = g, multiplied along every axis i by Q_i';   mu <- b1 mu + (1 - b1) g;   m = mu, rotated as g is
    nu <- b2 nu + (1 - b2) r^2;   u = m / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps)
    direction = u, multiplied along every axis i by Q_i;   for a matrix r = Q_1' g Q_2 and direction = Q_1 u Q_2'
    then H_i <- shampoo_beta H_i + (1 - shampoo_beta) G_i G_i'
    and, where t % precondition_frequency = 0: Q_i <- the orthogonal factor of H_i Q_i (QR), one step of power iteration

    eps is outside the root; 0 / 0 := 0. mu is kept unrotated, so a change of basis leaves it; nu is not rotated either,
    as in the paper.

    t = 1, 2, ... counts from the second update. The first update is 0, as in the authors' code: it only sets H_i = (1 -
    shampoo_beta) G_i G_i' and Q_i to its eigenvectors (eigh), so that no gradient is rotated by its own basis. With
    `sort`, as in that code, the columns of Q_i, and the entries of nu, are sorted by their Rayleigh quotients in H_i,
    largest first, before a power step; the paper's algorithm 4 does not sort.

    Axes of length 1 are left out; scalars, and vectors unless `precondition_1d`, get Adam's direction. The authors'
    code adds eps to the root of the uncorrected nu, so its eps is larger by 1 / sqrt(1 - b2^t), and keeps mu rotated.

    The basis is not unique where eigenvalues are equal, as in the null space of the first gradient of a kernel that is
    not square. Rounding chooses it there: runs that start 1e-14 apart diverge, as do runs on one and on several
    devices; where all eigenvalues differ, they agree.

    Args:
        b1, b2: decays of mu and nu, in [0, 1).
        shampoo_beta: decay of the second moments H, in [0, 1). None means b2, as in the paper.
        eps: added to the root, against division by zero, >= 0.
        precondition_frequency: steps between changes of basis, >= 1; none is computed in between.
        max_precond_dim: longest axis that is rotated, >= 1; memory grows as its square, time as its cube.
        precondition_1d: whether vectors are rotated too.
        correct_bias: whether mu and nu are divided by 1 - b^t.
        sort: whether the columns of a basis are ordered before a power step.

    Reference: Vyas, N. et al. (2024). SOAP: improving and stabilizing Shampoo using Adam, algorithms 3 and 4.

    Example:
        >>> opt = scale_by_soap()
        >>> g = jnp.array([[3.0, 0.0], [0.0, -4.0]])
        >>> update = jax.jit(opt.update)
        >>> _, state = update(g, opt.init(g))
        >>> print(update(2 * g, state)[0].round(2) + 0.0)
        [[ 1.  0.]
         [ 0. -1.]]
    """
    require_decay("soap", b1=b1, b2=b2, shampoo_beta=shampoo_beta)
    require_nonnegative("soap", eps=eps)
    every = require_positive_int("soap", "precondition_frequency", precondition_frequency)
    longest = require_positive_int("soap", "max_precond_dim", max_precond_dim)
    beta = b2 if shampoo_beta is None else shampoo_beta

    def axes_of(shape: Shape) -> tuple[int, ...]:
        """The axes that are rotated, of a shape that is squeezed."""
        if 0 in shape or (len(shape) == 1 and not precondition_1d):
            return ()
        return tuple(axis for axis, size in enumerate(shape) if 1 < size <= longest)

    def init(params: Params) -> SoapState:
        whole = initial_moment(require_real("soap", params))

        def factors(x: Array) -> tuple[Array, ...]:
            x = x.reshape(squeezed(x.shape))
            return tuple(zero_factor(x, axis, longest) for axis in axes_of(x.shape))

        zeros = by_axis(jax.tree.map(factors, whole), params)
        bases = jax.tree.map(lambda h: h + jnp.eye(len(h), dtype=h.dtype), zeros)
        return SoapState(zero_count(), whole, initial_moment(params), zeros, bases)

    def rotated(x: Array, bases: tuple[Array, ...], *, into: bool) -> Array:
        """The array in the coordinates of the bases, or back from them."""
        y = x.reshape(squeezed(x.shape))
        for axis, q in zip(axes_of(y.shape), bases, strict=True):
            y = multiply(y, axis, q, transpose=into)
        return y.reshape(x.shape)

    @widened
    def update(
        updates: PyTree, state: SoapState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, SoapState]:
        wide = map_leaves(lambda g, n: g.astype(n.dtype), updates, state.nu)
        kept_sums, kept_bases = (by_leaf(trees, updates) for trees in (state.statistics, state.bases))
        first = state.count == 0
        t = jnp.maximum(state.count, 1)  # at the first update all is multiplied by 0
        c1, c2 = (one_minus_power(b, t) if correct_bias else jnp.ones((), float) for b in (b1, b2))

        def kept(decay: Scalar, old: Array, value: Array) -> Array:
            return cast_like(decay, old) * old + (1 - cast_like(decay, old)) * value

        def mean(g: Array, m: Array) -> Array:
            return jnp.where(first, m, kept(b1, m, g))

        def mean_square(g: Array, n: Array, bases: tuple[Array, ...]) -> Array:
            return jnp.where(first, n, kept(b2, n, rotated(g, bases, into=True) ** 2))

        def direction(m: Array, n: Array, bases: tuple[Array, ...]) -> Array:
            turned = rotated(m, bases, into=True) / cast_like(c1, m)
            # eps outside the root of the corrected moment, as in Adam: its weight is the same at every step.
            return rotated(safe_divide(turned, safe_sqrt(n / cast_like(c2, n)) + cast_like(eps, n)), bases, into=False)

        def moments(g: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            g = g.reshape(squeezed(g.shape))
            return tuple(
                kept(beta, h, second_moments(g, axis, h)) for axis, h in zip(axes_of(g.shape), sums, strict=True)
            )

        def eigenvectors() -> tuple[PyTree, PyTree]:
            def basis(h: Array) -> Array:
                return compiler_sharded(lambda h: eigh(h)[1][:, ::-1], h, h)

            return nu, jax.tree.map(basis, statistics)

        def power_step(n: Array, sums: tuple[Array, ...], bases: tuple[Array, ...]) -> tuple[Array, list[Array]]:
            """nu, its entries sorted, and the bases."""
            y, new = n.reshape(squeezed(n.shape)), []
            for axis, h, q in zip(axes_of(y.shape), sums, bases, strict=True):
                product = jnp.matmul(h, q, precision=EXACT)
                if sort:
                    order = jnp.argsort(-jnp.sum(q * product, 0))
                    y, product = jnp.take(y, order, axis), product[:, order]
                new.append(orthonormal(product))
            return y.reshape(n.shape), new

        def power_steps() -> tuple[PyTree, PyTree]:
            def placed(n: Array, sums: tuple[Array, ...], bases: tuple[Array, ...]) -> tuple[Array, list[Array]]:
                return compiler_sharded(power_step, (n, list(bases)), n, sums, bases)

            pairs = map_leaves(placed, nu, statistics, kept_bases)
            squares = map_leaves(lambda n, pair: pair[0], nu, pairs)
            return squares, unless_none(map_leaves(lambda n, pair: tuple(pair[1]), nu, pairs), kept_bases)

        mu = map_leaves(mean, wide, state.mu)
        nu = map_leaves(mean_square, wide, state.nu, kept_bases)
        steps = map_leaves(direction, mu, nu, kept_bases)
        mu, nu = unless_none(mu, state.mu), unless_none(nu, state.nu)
        statistics = unless_none(map_leaves(moments, wide, kept_sums), kept_sums)
        choice = jnp.where(first, 1, jnp.where(state.count % every == 0, 2, 0))
        nu, bases = jax.lax.switch(choice, (lambda: (nu, kept_bases), eigenvectors, power_steps))
        new = SoapState(increment(state.count), mu, nu, by_axis(statistics, updates), by_axis(bases, updates))
        return steps, new

    return Optimizer(init, update)


@specified
def soap(
    learning_rate: ScalarOrSchedule,
    b1: Scalar = 0.95,
    b2: Scalar = 0.95,
    shampoo_beta: Scalar | None = None,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask = None,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    precondition_1d: bool = False,
    *,
    correct_bias: bool = True,
    sort: bool = True,
) -> Optimizer:
    """SOAP: update = -learning_rate (soap's direction + weight_decay params).

    The direction and its arguments are in `scale_by_soap`. The first direction is 0. The decay is decoupled and
    multiplied by the learning rate. Adam's learning rates suit; the authors use 0.003 with a weight_decay of 0.01.

    Reference: Vyas, N. et al. (2024). SOAP: improving and stabilizing Shampoo using Adam, algorithms 3 and 4.

    Example:
        >>> opt, params = soap(0.5), jnp.ones((2, 2))
        >>> g = jnp.array([[3.0, 0.0], [0.0, -4.0]])
        >>> update = jax.jit(opt.update)
        >>> _, state = update(g, opt.init(params), params)
        >>> updates, state = update(2 * g, state, params)
        >>> print((params + updates).round(2))
        [[0.5 1. ]
         [1.  1.5]]
    """
    direction = scale_by_soap(
        b1,
        b2,
        shampoo_beta,
        eps,
        precondition_frequency,
        max_precond_dim,
        precondition_1d,
        correct_bias=correct_bias,
        sort=sort,
    )
    return descent(direction, learning_rate, weight_decay=weight_decay, mask=mask, where="soap")
