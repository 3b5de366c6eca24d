"""Derivatives without differentiation: quotients of differences with a given step, and an estimate that finds its own.

| quotient | error of the formula | error of rounding |
|---|---|---|
| `one_sided`, (f(x + h v) - f(x)) / h | O(h) | eps / h |
| `central`, (f(x + h v) - f(x - h v)) / 2h | O(h^2) | eps / h |
| `complex_step`, Im f(x + i h v) / h | O(h^2) | none: nothing is subtracted |

The first two are best at h ~ eps^(1/2) and eps^(1/3) and lose digits below; the complex step takes h = 1e-20, if f is
analytic and takes complex numbers. `derivative` extrapolates central quotients over a range of steps and
chooses among them; it returns the derivatives from the left and from the right too: where these differ, f has a kink.

Points x and directions v are pytrees of floating arrays, computed in float32 or float64 (half precision as float32).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import as_array, as_arrays, concrete_number, require_floating, require_function, require_number
from jaxnn.numerics import accumulate, accumulation_dtype
from jaxnn.types import Array, DType, DTypeLike, PyTree, Scalar

LARGEST = 0.25
"""The largest step of `derivative`, relative to max(1, |x|)."""


class Estimate(NamedTuple):
    """A derivative by differences, and how far to trust it.

    Attributes:
        value: (), the derivative by extrapolated central differences.
        error: (), its estimated error: rounding, and the distance of two extrapolations.
        left, right: (), the derivatives from the left and from the right, by one-sided differences.
        side_error: (), the larger of their estimated errors.
    """

    value: Array
    error: Array
    left: Array
    right: Array
    side_error: Array


def one_sided(f: Callable[[PyTree], PyTree], x: PyTree, v: PyTree = None, *, step: Scalar) -> PyTree:
    """The forward difference quotient (f(x + h v) - f(x)) / h.

    Args:
        f: from a pytree like `x` to a pytree of floating arrays.
        x: pytree of floating arrays.
        v: direction, a pytree like `x`; None for ones.
        step: h, not 0; may be traced.

    Returns:
        A pytree like f(x): the derivative along v, with an error of h v'f''v / 2 and of rounding, eps |f| / h.

    Raises:
        TypeError: f is not a function, or x is not floating.
        ValueError: v has another structure or shape than x, or step is 0, not finite, or 0 in the dtype of x.

    Example:
        >>> one_sided(lambda x: x**2, 1.0, step=0.125)
        Array(2.125, dtype=float32)
    """
    x, v = _pair("one_sided", f, x, v)
    _require_step("one_sided", x, step)
    return _scaled(f(_moved(x, v, step)), f(x), step)


def central(f: Callable[[PyTree], PyTree], x: PyTree, v: PyTree = None, *, step: Scalar) -> PyTree:
    """The central difference quotient (f(x + h v) - f(x - h v)) / 2h.

    Args:
        f, x, v, step: as for `one_sided`.

    Returns:
        A pytree like f(x), with an error of h^2 f''' / 6 and of rounding, eps |f| / h: exact for quadratic f.

    Example:
        >>> central(lambda x: x**2, 1.0, step=0.125)
        Array(2., dtype=float32)
    """
    x, v = _pair("central", f, x, v)
    _require_step("central", x, step)
    return _scaled(f(_moved(x, v, step)), f(_moved(x, v, -step)), 2 * step)


def complex_step(f: Callable[[PyTree], PyTree], x: PyTree, v: PyTree = None, *, step: Scalar = 1e-20) -> PyTree:
    """The imaginary part Im f(x + i h v) / h: no difference, so that h can be tiny and the result exact.

    Args:
        f: analytic, and computed for complex arguments without abs, max or comparisons, which are not.
        x, v: as for `one_sided`.
        step: h; its square should vanish beside 1.

    Returns:
        A pytree like f(x), with an error of h^2 f''' / 6 only.

    Raises:
        TypeError: f is not a function, x is not floating, or f(x + i h v) is not complex.

    Reference: Squire, W. & Trapp, G. (1998). Using complex variables to estimate derivatives of real functions; after
        Lyness, J. N. & Moler, C. B. (1967). Numerical differentiation of analytic functions.

    Example:
        >>> complex_step(jnp.exp, 0.0)
        Array(1., dtype=float32)
    """
    x, v = _pair("complex_step", f, x, v)
    _require_step("complex_step", x, step)

    def part(y: Array) -> Array:
        if not jnp.iscomplexobj(y):
            raise TypeError(
                f"complex_step: f must compute with complex numbers, got {jnp.result_type(y)} for x + i h v. Where f "
                "has abs, max or casts to a real dtype, use central."
            )
        imaginary = jnp.imag(y)
        return imaginary / jnp.asarray(step, imaginary.dtype)

    return jax.tree.map(part, f(jax.tree.map(lambda a, d: jax.lax.complex(a, jnp.asarray(step, a.dtype) * d), x, v)))


def errors_by_step(
    method: Callable[..., PyTree], f: Callable[[PyTree], Array], x: PyTree, steps: Array, v: PyTree = None
) -> Array:
    """The error of a quotient for each step h, |quotient(h) - f'| / |f'|, f' by `jax.jvp`.

    Args:
        method: `one_sided`, `central` or `complex_step`, or a function with their arguments.
        f: from a pytree like `x` to a scalar.
        x, v: as for `one_sided`.
        steps: (S,) steps h > 0.

    Returns:
        (S,), relative errors; absolute ones where f' = 0.

    Raises:
        ValueError: f does not return a scalar, or steps is not (S,).

    Example:
        >>> errors_by_step(one_sided, lambda x: x**2, 1.0, jnp.array([0.25, 0.125]))
        Array([0.125 , 0.0625], dtype=float32)
    """
    require_function("errors_by_step", "method", method, "backprop.differences.central", optional=False)
    x, v = _pair("errors_by_step", f, x, v)
    steps = as_array("errors_by_step", "steps", steps)
    if steps.ndim != 1:
        raise ValueError(f"errors_by_step: steps must be (S,), got shape {steps.shape}. Pass jnp.geomspace(...).")
    slope = jax.jvp(f, (x,), (v,))[1]
    _require_scalar("errors_by_step", slope)
    error = jnp.abs(jax.vmap(lambda h: method(f, x, v, step=h))(steps.astype(slope.dtype)) - slope)
    return error / jnp.where(slope == 0, jnp.ones_like(slope), jnp.abs(slope))


def derivative(f: Callable[[PyTree], PyTree], x: PyTree, v: PyTree = None, dy: PyTree = None) -> Estimate:
    """The derivative of <dy, f(x + t v)> at t = 0 by differences, without a step to choose.

    With steps h, h/4, h/16, ... the central quotients D(h) = D + c h^2 + ... are extrapolated, (16 D(h/4) - D(h)) / 15.
    Of these the value is the one with the smallest estimated error: its distance to the next, plus rounding. One-sided
    quotients, for `left` and `right`, are extrapolated likewise, (4 D(h/4) - D(h)) / 3. Products with dy are taken of
    differences of f, so that outputs that do not change add no rounding error.

    Args:
        f, x, v: as for `one_sided`.
        dy: cotangent, a pytree like f(x); None where f(x) is a scalar.

    Returns:
        Estimate. Half precision is computed in float32: f must follow the dtype of its argument.

    Raises:
        TypeError: f is not a function, or x is not floating.
        ValueError: v has another structure or shape than x, or dy than f(x).

    Reference: Ridders, C. J. F. (1982). Accurate computation of F'(x) and F'(x) F''(x); Richardson, L. F. (1911). The
        approximate arithmetical solution by finite differences of physical problems involving differential equations.

    Example:
        >>> found = derivative(jnp.abs, 0.0)
        >>> found.left, found.right
        (Array(-1., dtype=float32), Array(1., dtype=float32))
    """
    x, v = _pair("derivative", f, x, v)
    of_y = jax.eval_shape(f, x)
    if dy is None:
        _require_scalar("derivative", of_y)
        dy = jnp.ones((), of_y.dtype)
    dy = as_arrays("derivative", "dy", dy)
    require_same_structure("derivative: dy must be a pytree like f(x)", dy, of_y)
    steps = _steps(x, v)
    size = sum((jnp.sum(jnp.square(d)) for d in jax.tree.leaves(v)), jnp.zeros_like(steps[0]))

    def at(t: Array) -> tuple[PyTree, Array]:
        moved = _moved(x, v, t)
        # x + t v is rounded: the quotient divides by the step that was taken.
        taken = jax.tree.map(lambda m, a, d: jnp.sum((m - a) * d), moved, x, v)
        step = sum(jax.tree.leaves(taken), jnp.zeros_like(t)) / jnp.where(size == 0, jnp.ones_like(size), size)
        return f(moved), jnp.where(size == 0, t, step)

    n = len(steps)
    y, t = jax.vmap(at)(jnp.concatenate([steps, jnp.zeros_like(steps[:1]), -steps]))
    parts = slice(n), slice(n, n + 1), slice(n + 1, None)
    above, here, below = (jax.tree.map(operator.itemgetter(part), y) for part in parts)
    value, error = _extrapolated(*_quotients(above, below, t[:n] - t[n + 1 :], dy), 16)
    right, right_error = _extrapolated(*_quotients(above, here, t[:n], dy), 4)
    left, left_error = _extrapolated(*_quotients(here, below, -t[n + 1 :], dy), 4)
    return Estimate(value, error, left, right, jnp.maximum(left_error, right_error))


def _quotients(above: PyTree, below: PyTree, step: Array, dy: PyTree) -> tuple[Array, Array]:
    """<dy, above - below> / step for each of the steps (L,), and its error of rounding."""
    slope, noise = jnp.zeros_like(step), jnp.zeros_like(step)
    for a, b, d in zip(*map(jax.tree.leaves, (above, below, dy)), strict=True):
        eps = eps_of(a.dtype)
        a, b, d = (accumulate(z).astype(step.dtype) for z in (a, b, d))
        axes = tuple(range(1, a.ndim))
        # An output that no step changes has no error of rounding; beside a large constant, small steps change nothing.
        still = jnp.all((a == a[:1]) & (b == a[:1]), axis=0, keepdims=True)
        size = jnp.where(still, jnp.zeros_like(a), jnp.maximum(jnp.abs(a), jnp.abs(b)))
        slope += jnp.sum((a - b) * d[None], axes)
        noise += eps * jnp.sum(size * jnp.abs(d)[None], axes)
    return slope / step, noise / jnp.abs(step)


def _extrapolated(quotients: Array, noise: Array, factor: int) -> tuple[Array, Array]:
    """The best extrapolation of quotients (L,) whose error falls by `factor` from step to step, and its error."""
    values = (factor * quotients[1:] - quotients[:-1]) / (factor - 1)
    errors = jnp.abs(values[:-1] - values[1:]) + noise[1:-1]
    errors = jnp.where(jnp.isfinite(errors), errors, jnp.inf)
    best = jnp.argmin(errors)
    return values[best], errors[best]


def _steps(x: PyTree, v: PyTree) -> Array:
    """Steps from `LARGEST` down by factors of 4, relative to x where v is not 0: to 2^-26, in float32 to 2^-14."""
    dtype = _wide(x)
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(v), strict=True)
    places = [jnp.max(jnp.where(d == 0, 0, jnp.abs(a)), initial=1) for a, d in pairs]
    longest = _max_of([jnp.max(jnp.abs(d), initial=0) for d in jax.tree.leaves(v)])
    count = 13 if dtype == jnp.float64 else 7
    ladder = jnp.asarray([LARGEST * 4.0**-i for i in range(count)], dtype)
    return ladder * _max_of(places).astype(dtype) / jnp.where(longest == 0, 1, longest).astype(dtype)


def eps_of(dtype: DTypeLike) -> float:
    """The distance from 1 to the next number of a floating dtype."""
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _max_of(numbers: list[Array]) -> Array:
    """The largest of some scalars."""
    return jnp.max(jnp.stack([number.astype(accumulation_dtype(number.dtype)) for number in numbers]))


def _wide(x: PyTree) -> DType:
    return accumulation_dtype(*(a.dtype for a in jax.tree.leaves(x)))


def _moved(x: PyTree, v: PyTree, step: Any) -> PyTree:
    """x + step v, in the dtypes of x."""
    return jax.tree.map(lambda a, d: a + jnp.asarray(step, a.dtype) * d, x, v)


def _scaled(a: PyTree, b: PyTree, step: Any) -> PyTree:
    """(a - b) / step, in the dtypes of a."""
    return jax.tree.map(lambda a, b: (a - b) / jnp.asarray(step, a.dtype), a, b)


def _pair(where: str, f: Any, x: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
    """x and v as arrays of accumulation dtypes, checked."""
    require_function(where, "f", f, "jnp.sum", optional=False)
    x = as_arrays(where, "x", x)
    for leaf in jax.tree.leaves(x):
        require_floating(where, "x", leaf.dtype, "Convert it: x.astype(jnp.float32).")
    if not jax.tree.leaves(x):
        raise ValueError(f"{where}: x must hold at least one array, got {x!r}.")
    x = jax.tree.map(lambda a: a if a.dtype == accumulation_dtype(a.dtype) else accumulate(a), x)
    v = jax.tree.map(jnp.ones_like, x) if v is None else as_arrays(where, "v", v)
    require_same_structure(f"{where}: v must be a pytree like x", v, x)
    return x, jax.tree.map(lambda a, d: d.astype(a.dtype), x, v)


def _require_step(where: str, x: PyTree, step: Any) -> None:
    """Raise ValueError for a concrete step that is 0 or not finite in the dtypes of x."""
    require_number(where, "step", step)
    number = concrete_number(step)
    for dtype in {a.dtype for a in jax.tree.leaves(x)} if number is not None else ():
        if not 0 < abs(float(jnp.asarray(number, dtype))) < float("inf"):
            raise ValueError(f"{where}: step must be finite and not 0 in {dtype.name}, got {number:g}.")


def require_same_structure(message: str, got: PyTree, expected: PyTree) -> None:
    """Raise ValueError unless both have one structure, and leaves of one shape."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (got, expected)]
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (got, expected)]
    if structures[0] != structures[1] or shapes[0] != shapes[1]:
        raise ValueError(f"{message}, of shapes {shapes[1]}, got {shapes[0]}.")


def _require_scalar(where: str, y: PyTree) -> None:
    shapes = jax.tree.map(jnp.shape, y)
    if shapes != ():
        raise ValueError(f"{where}: f must return one number, got shape {shapes}. Sum it, or pass dy to derivative.")
