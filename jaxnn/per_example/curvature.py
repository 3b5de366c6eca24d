"""Curvature from the columns of a GGN tape: diagonal, trace, and the neural tangent kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeGuard

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import accumulate, exact_einsum
from jaxnn.per_example.forms import forms
from jaxnn.per_example.measures import squares
from jaxnn.per_example.moments import second_moment
from jaxnn.per_example.norms import sq_norms
from jaxnn.per_example.placing import PARAMS, ROWS, TOTAL, returns
from jaxnn.per_example.products import gram
from jaxnn.per_example.select import require_columns
from jaxnn.per_example.sums import tree_of
from jaxnn.placement import filled_as
from jaxnn.tape import Columns, Product, Tape, Use
from jaxnn.types import Array, PyTree


@returns(PARAMS)
def diag_ggn(columns: Columns) -> PyTree:
    """The diagonal of the generalized Gauss-Newton matrix G = 1/N sum_i J_i' H_i J_i: 1/N sum_i sum_c g_ic^2.

    A pytree like `params`, >= 0. J_i is the Jacobian of example i's outputs, H_i = sum_c s_ic s_ic' the Hessian of its
    loss with respect to them, g_ic = J_i' s_ic; the square is element-wise. For a weight matrix used at one position
    (T = 1) it is (a^2)' sum_c delta_c^2 / N, one matrix product for all columns.

    Args:
        columns: of `backprop.ggn_record`. Those of `output_record` have H_i = I: the diagonal of 1/N sum_i J_i' J_i.

    Reference: Dangel, F., Kunstner, F. & Hennig, P. (2020). BackPACK: packing more into backprop, equation 19 (appendix
        A.2).

    Example:
        >>> from jaxnn.per_example.sample import sample_columns
        >>> diag_ggn(sample_columns())["w"][:, 0]
        Array([5.5, 4. ], dtype=float32)
    """
    require_columns("diag_ggn", columns)
    tape = columns.tape
    found = [
        (_of_product(uses[0]) if _is_product(uses) else _over_columns(columns, functools.partial(_squares, i)))
        for i, uses in enumerate(tape.uses)
    ]
    shaped = [g.reshape(leaf.shape) / tape.examples for g, leaf in zip(found, tape.leaves, strict=True)]
    return tree_of(tape, shaped)


@returns(PARAMS)
def diag_fisher(columns: Columns) -> PyTree:
    """The diagonal of the Fisher information, 1/N sum_i E[g_i^2] over labels sampled from the model.

    A pytree like `params`, >= 0. Where -loss is a log-probability in its natural parameters (softmax cross-entropy,
    sigmoid binary cross-entropy, squared errors) the Fisher information equals the generalized Gauss-Newton matrix, and
    this is `diag_ggn`.

    Args:
        columns: of `backprop.ggn_record`; exact, or with `samples` labels sampled per example.

    Raises:
        ValueError: -loss is not such a log-probability.

    Reference: Martens, J. (2020). New insights and perspectives on the natural gradient method, section 9.2.

    Example:
        >>> from jaxnn.per_example.sample import sample_columns
        >>> diag_fisher(sample_columns())["b"]
        Array([1.5], dtype=float32)
    """
    require_columns("diag_fisher", columns)
    if not columns.fisher:
        raise ValueError(
            "diag_fisher: the Fisher information needs a loss that is -log of a probability, such as "
            "softmax_cross_entropy, sigmoid_binary_cross_entropy, half_squared_error or mse. diag_ggn is defined for "
            "every loss, empirical_fisher_diag for every tape."
        )
    return diag_ggn(columns)


@returns(PARAMS)
def empirical_fisher_diag(tape: Tape) -> PyTree:
    """1/N sum_i g_i^2, the gradients of the TRUE labels' losses, a pytree like `params`: same as `second_moment`.

    Not an estimate of the Fisher information, whose labels are sampled from the model; the two differ most where the
    model fits badly.

    Reference: Kunstner, F., Balles, L. & Hennig, P. (2019). Limitations of the empirical Fisher approximation for
        natural gradient descent, equation 3.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> empirical_fisher_diag(sample_tape())["b"]
        Array([2.5], dtype=float32)
    """
    return second_moment(tape)


@returns(TOTAL)
def trace(columns: Columns) -> Array:
    """The trace of the generalized Gauss-Newton matrix, a scalar: 1/N sum_i sum_c |g_ic|^2.

    Reference: Martens, J. (2020). New insights and perspectives on the natural gradient method, section 8.

    Example:
        >>> from jaxnn.per_example.sample import sample_columns
        >>> trace(sample_columns())
        Array(11., dtype=float32)
    """
    require_columns("trace", columns)
    return jnp.sum(_over_columns(columns, sq_norms)) / columns.tape.examples


@returns(ROWS)
def ntk(columns: Columns, other: Columns | None = None) -> Array:
    """The empirical neural tangent kernel, K_ijcd = grad y_ic . grad y_jd, gradients in the parameters.

    Args:
        columns: of `backprop.output_record`, N examples with C outputs.
        other: of M examples with D outputs and the same parameters; None for `columns` itself.

    Returns:
        (N, M, C, D), float32 or float64. Its trace over c = d is known as the trace NTK.

    Raises:
        ValueError: tapes of different parameters.

    Reference: Jacot, A., Gabriel, F. & Hongler, C. (2018). Neural tangent kernel: convergence and generalization in
        neural networks, section 4.

    Example:
        >>> from jaxnn.per_example.sample import sample_columns
        >>> jax.jit(ntk)(sample_columns())[:, :, 0, 0]
        Array([[ 6.,  4.],
               [ 4., 10.]], dtype=float32)
    """
    other = columns if other is None else other
    for each in (columns, other):
        require_columns("ntk", each)
    mine = columns.as_examples()
    products = gram(mine, None if other is columns else other.as_examples())
    n, m = columns.tape.examples, other.tape.examples
    return products.reshape(n, columns.count, m, other.count).transpose(0, 2, 1, 3)


def _is_product(uses: tuple[Use, ...]) -> TypeGuard[tuple[Product]]:
    """One matrix product at one position of each example: a (N, 1, d)."""
    return len(uses) == 1 and isinstance(uses[0], Product) and uses[0].a.shape[1] == 1


def _of_product(use: Product) -> Array:
    """(a^2)' sum_c delta_c^2; delta (C, N, 1, p)."""
    seen, sent = jnp.square(accumulate(use.a[:, 0])), jnp.sum(jnp.square(accumulate(use.delta[:, :, 0])), axis=0)
    return exact_einsum("nd,np->dp", seen, sent)


def _squares(parameter: int, tape: Tape) -> Array:
    return squares(forms(tape)[parameter])


def _over_columns(columns: Columns, f: Callable[[Tape], Array]) -> Array:
    """The sum over columns c of f(tape of column c), one column in memory at a time."""

    def add(total: Array, column: Array) -> tuple[Array, None]:
        return total + f(columns.at(column)), None

    shape = jax.eval_shape(lambda: f(columns.at(0)))
    return lax.scan(add, filled_as(shape), jnp.arange(columns.count))[0]
