"""Minimization and maximization of a function of a pytree, with the convergence tests of gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn import tree
from jaxnn.checks import as_array, count_of, require_between, require_positive_int, require_scalar_function
from jaxnn.numerics import accumulate
from jaxnn.optim import Transformation, apply_updates
from jaxnn.optim.base import call_update
from jaxnn.train.arguments import require_floating_leaves, require_function, require_optimizer
from jaxnn.train.kinds import PointKind, kind_of_point, turned
from jaxnn.types import Array, Params, PyTree, Scalar

Objective: TypeAlias = Callable[[Params], Array]
"""A function from a pytree to a scalar, such as one of `jaxnn.landscapes`."""


class Iterate(NamedTuple):
    """The current point of a run.

    Attributes:
        x: the point, a pytree.
        value: f(x), ().
        grad: the gradient at x, a pytree like `x`.
        steps: int32, the number of steps taken.
        converged: bool, whether a convergence test was met. A run that ended without it ran out of steps, or its value
            or point is no longer finite.
        opt_state: the optimizer's state.
        kind: int32, the `PointKind` of a converged run's last point; UNKNOWN (0) for others, for more than 32 numbers,
            and without `classify`.
    """

    x: PyTree
    value: Array
    grad: PyTree
    steps: Array
    converged: Array
    opt_state: Any
    kind: Array

    def describe(self) -> str:
        """How the run ended, in words; not under `jit`, and for one run.

        Example:
            >>> from jaxnn import optim
            >>> minimize(lambda x: x**3, optim.sgd(0.1), 1.0, steps=999, grad_tolerance=1e-4).describe()
            'converged after 5... steps at an inflection, not at a minimum: f still falls on one side'
        """
        effort = count_of(int(self.steps), "step")
        if not self.converged:
            return f"did not converge in {effort}" + ("" if jnp.isfinite(self.value) else ": the value is not finite")
        return f"converged after {effort} {_PLACES[PointKind(int(self.kind))]}"


_PLACES = {
    PointKind.UNKNOWN: "at a point of unknown kind (see PointKind)",
    PointKind.MINIMUM: "at a minimum",
    PointKind.MAXIMUM: "at a maximum",
    PointKind.INFLECTION: "at an inflection, not at a minimum: f still falls on one side",
    PointKind.SADDLE: "at a saddle: f falls along some directions and rises along others",
    PointKind.FLAT: "where f is flat: within rounding it does not change along some direction",
}


class Trajectory(NamedTuple):
    """All points of a run: the start and the point after each step; the last point is repeated after the run's end.

    Attributes:
        x: the points, leaves (steps + 1, ...).
        values: (steps + 1,), f at the points.
        grad_norms: (steps + 1,), the Euclidean norm of the gradient at the points.
        last: the `Iterate` at the end.
    """

    x: PyTree
    values: Array
    grad_norms: Array
    last: Iterate


def minimize(
    f: Objective,
    opt: Transformation,
    start: PyTree,
    *,
    steps: int,
    value_tolerance: Scalar = 0.0,
    grad_tolerance: Scalar = 0.0,
    classify: bool = True,
) -> Iterate:
    """Gradient descent until convergence: one `lax.while_loop`, which keeps only the last point.

    Converged after step k if |f(x_(k+1)) - f(x_k)| < value_tolerance or |grad f(x_(k+1))| < grad_tolerance, in the
    Euclidean norm. The second test also applies to the start. A run whose value or point is no longer finite ends
    there, not converged. A point at which the gradient is small need not be a minimum: `kind` of the result, and
    `describe()`, say what it is.

    Args:
        f: differentiable, from a pytree like `start` to a floating scalar.
        opt: optimizer; receives the extra arguments `value`, `grad`, `value_fn`, `grad_fn` and `obj_fn`.
        start: pytree of floating arrays.
        steps: the largest number of steps, >= 0.
        value_tolerance, grad_tolerance: >= 0; 0 disables the test; may be traced.
        classify: whether to determine the kind of the last point, if it has at most 32 numbers D: at the end of the run
            2 D gradients and 2 D values more. Nothing is computed for larger ones.

    Returns:
        Iterate. Under `jax.vmap` over starts each run counts its own steps and is frozen once it has ended.

    Raises:
        TypeError: f is not a function or its value is not floating, opt is not an optimizer, or a leaf of start is not
            floating.
        ValueError: f does not return a scalar, or steps or a tolerance is negative.

    Reference: Cauchy 1847, "Méthode générale pour la résolution des systèmes d'équations simultanées" (gradient
        descent).

    Example:
        >>> from jaxnn import landscapes, optim
        >>> end = minimize(landscapes.quadratic(2.0), optim.sgd(0.5), jnp.ones(2), steps=100, grad_tolerance=1e-3)
        >>> end.steps, end.converged, end.describe()
        (Array(10, dtype=int32), Array(True, dtype=bool), 'converged after 10 steps at a minimum')
    """
    steps = require_positive_int("minimize", "steps", steps, 0)
    first, advance = _run(f, opt, start, value_tolerance, grad_tolerance)
    limit = min(steps, 2**31 - 1)  # the largest int32
    last = jax.lax.while_loop(lambda at: _goes_on(at) & (at.steps < limit), advance, first)
    return _classified(f, last) if classify else last


def maximize(
    f: Objective,
    opt: Transformation,
    start: PyTree,
    *,
    steps: int,
    value_tolerance: Scalar = 0.0,
    grad_tolerance: Scalar = 0.0,
    classify: bool = True,
) -> Iterate:
    """Gradient ascent, theta <- theta + eta grad f: `minimize` of -f. The returned value, grad and kind are those of f.

    Args:
        f, opt, start, steps, value_tolerance, grad_tolerance, classify: as for `minimize`.

    Example:
        >>> from jaxnn import optim
        >>> end = maximize(lambda x: 1.0 - (x - 3.0) ** 2, optim.sgd(0.5), 0.0, steps=9, grad_tolerance=1e-3)
        >>> end.x, end.value
        (Array(3., dtype=float32), Array(1., dtype=float32))
    """
    require_function("maximize", "f", f, "a function x -> ()", optional=False)
    end = minimize(
        lambda x: -f(x),
        opt,
        start,
        steps=steps,
        value_tolerance=value_tolerance,
        grad_tolerance=grad_tolerance,
        classify=classify,
    )
    return end._replace(value=-end.value, grad=tree.scale(-1.0, end.grad), kind=turned(end.kind))


def trajectory(
    f: Objective,
    opt: Transformation,
    start: PyTree,
    *,
    steps: int,
    value_tolerance: Scalar = 0.0,
    grad_tolerance: Scalar = 0.0,
    classify: bool = True,
) -> Trajectory:
    """Every point that `minimize` visits: one `lax.scan` of `steps` steps.

    Args:
        f, opt, start, steps, value_tolerance, grad_tolerance, classify: as for `minimize`.

    Returns:
        Trajectory, with `steps + 1` points even if the run ends earlier; its `last` is the Iterate of `minimize`.

    Example:
        >>> from jaxnn import optim
        >>> trajectory(lambda x: x**2, optim.sgd(0.25), 8.0, steps=3).x
        Array([8., 4., 2., 1.], dtype=float32)
    """
    steps = require_positive_int("trajectory", "steps", steps, 0)
    first, advance = _run(f, opt, start, value_tolerance, grad_tolerance)

    def body(at: Iterate, _: None) -> tuple[Iterate, tuple[PyTree, Array, Array]]:
        on = _goes_on(at)
        at = jax.tree.map(lambda new, old: jnp.where(on, new, old), advance(at), at)
        return at, (at.x, at.value, tree.norm(at.grad))

    last, rest = jax.lax.scan(body, first, length=steps)
    begin = (first.x, first.value, tree.norm(first.grad))
    x, values, grad_norms = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), begin, rest)
    return Trajectory(x, values, grad_norms, _classified(f, last) if classify else last)


def nearest(points: PyTree, candidates: PyTree, *, tolerance: Scalar) -> Array:
    """The index of the candidate nearest to each point: basins of attraction, from the final points of runs.

    Args:
        points: (..., d); distances are computed in float32 (float64 for float64).
        candidates: (M, d), such as `landscape.minima`.
        tolerance: >= 0, the largest Euclidean distance at which a point counts as having reached a candidate.

    Returns:
        (...) int32: the index of the nearest candidate, -1 where none is within the tolerance or the point is not
        finite.

    Raises:
        ValueError: the last axes differ, there is no candidate, or the tolerance is negative.

    Example:
        >>> points, candidates = jnp.array([[0.1], [0.9], [5.0]]), jnp.array([[0.0], [1.0]])
        >>> jax.jit(lambda x: nearest(x, candidates, tolerance=0.5))(points)
        Array([ 0,  1, -1], dtype=int32)
    """
    require_between("nearest", "tolerance", tolerance, 0, float("inf"))
    points = accumulate(jnp.asarray(points))
    candidates = jnp.asarray(candidates, points.dtype)
    if candidates.ndim != 2 or not len(candidates) or points.shape[-1:] != candidates.shape[1:]:
        raise ValueError(
            f"nearest: expected points (..., d) and candidates (M, d), M >= 1, got {points.shape} and "
            f"{candidates.shape}."
        )
    squares = jnp.sum(
        jnp.square(jnp.expand_dims(points, -2) - candidates.reshape(*(1,) * (points.ndim - 1), -1, points.shape[-1])),
        axis=-1,
    )
    found = jnp.argmin(squares, axis=-1).astype(jnp.int32)
    least = jnp.min(squares, axis=-1)
    return jnp.where((least <= tolerance**2) & jnp.isfinite(least), found, -1)


def _classified(f: Objective, at: Iterate) -> Iterate:
    """The iterate with the kind of its point, if it converged."""
    return at._replace(kind=jnp.where(at.converged, kind_of_point(f, at.x), jnp.int32(PointKind.UNKNOWN)))


def _goes_on(at: Iterate) -> Array:
    return ~at.converged & jnp.isfinite(at.value) & tree.all_finite(jax.tree.leaves(at.x))


def _run(
    f: Objective, opt: Transformation, start: PyTree, value_tolerance: Scalar, grad_tolerance: Scalar
) -> tuple[Iterate, Callable[[Iterate], Iterate]]:
    """The first iterate, and the function from one iterate to the next."""
    require_function("minimize", "f", f, "landscapes.rosenbrock()", optional=False)
    require_optimizer("minimize", opt)
    require_between("minimize", "value_tolerance", value_tolerance, 0, float("inf"))
    require_between("minimize", "grad_tolerance", grad_tolerance, 0, float("inf"))

    # optax's line searches reject an extra argument that value_fn does not name.
    def value_fn(x: PyTree, grad_fn: Any = None, obj_fn: Any = None) -> Array:
        return f(x)

    x = jax.tree.map(lambda leaf: as_array("minimize", "start", leaf), start)
    require_floating_leaves("minimize", "start", x)
    require_scalar_function("minimize", "f", f, x, "For many starts use jax.vmap.")
    value_and_grad, grad_fn = jax.value_and_grad(value_fn), jax.grad(value_fn)

    def advance(at: Iterate) -> Iterate:
        extra = {"value": at.value, "grad": at.grad, "value_fn": value_fn, "grad_fn": grad_fn, "obj_fn": value_fn}
        updates, opt_state = call_update(opt, at.grad, at.opt_state, at.x, extra)
        x = apply_updates(at.x, updates)
        value, grad = value_and_grad(x)
        converged = (jnp.abs(value - at.value) < value_tolerance) | (tree.norm(grad) < grad_tolerance)
        # exp(-x) at infinity has value 0 and derivative 0, and would pass both tests: that run diverged.
        converged &= jnp.isfinite(value) & tree.all_finite(jax.tree.leaves(x))
        return Iterate(x, value, grad, at.steps + 1, converged, opt_state, at.kind)

    value, grad = value_and_grad(x)
    flat = jnp.isfinite(value) & tree.all_finite(jax.tree.leaves(x)) & (tree.norm(grad) < grad_tolerance)
    return Iterate(x, value, grad, jnp.int32(0), flat, opt.init(x), jnp.int32(PointKind.UNKNOWN)), advance
