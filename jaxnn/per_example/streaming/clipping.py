"""Clipped sums of per-example gradients in bounded memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jaxnn.checks import require_between, require_positive_int
from jaxnn.numerics import EXACT, accumulation_dtype, safe_sqrt
from jaxnn.per_example.clip import Clip
from jaxnn.per_example.margin import with_margin
from jaxnn.per_example.memory import peak_bytes
from jaxnn.per_example.plan import Plan, plan
from jaxnn.per_example.recording.arguments import Arguments
from jaxnn.per_example.recording.preparing import on_their_mesh, varying
from jaxnn.per_example.recording.recorder import Recorder, recorder_of
from jaxnn.per_example.recording.tracing import Traced
from jaxnn.per_example.streaming.gradient import Streamed, statistics_of, streamed, weights_for
from jaxnn.per_example.streaming.hoisting import hoisted
from jaxnn.per_example.streaming.norms import PARAMETER, Margin, SqNorms, groups_of
from jaxnn.per_example.streaming.removed import without_removed, zero_where
from jaxnn.per_example.streaming.sites import slices_of
from jaxnn.per_example.streaming.statistic import Parameter
from jaxnn.per_example.streaming.totals import WideTotal
from jaxnn.per_example.sums import clipped_grad, factors_of
from jaxnn.tape import Tape, weighted
from jaxnn.types import Array, PyTree, Scalar
from jaxnn.varying import sum_like

WHERE = "clipped_value_and_grad"
Groups = str | Mapping[str, str | Sequence[str]] | None


def clipped_value_and_grad(
    loss: Callable[..., Any],
    clip: Scalar | Clip | Mapping[str, Scalar | Clip],
    *,
    memory: int | None = None,
    passes: int | None = None,
    groups: Groups = None,
    argnums: int | Sequence[int] = 0,
    in_axes: Any = None,
    has_aux: bool = False,
    trainable: PyTree = True,
) -> ClippedGradient:
    """((losses, |g_i|), sum_i c(|g_i|) g_i), c(n) = min(1, C / n), of any JAX loss, without a tape.

    | way | backward passes | memory | where |
    |---|---|---|---|
    | two passes | two: norms inside the first, then the gradient of sum_i c_i loss_i | without a tape | default |
    | tape | one; then a product for each use | of the tape: every activation and cotangent | `passes=1`, or it fits |
    | by parameter | one: each gradient is scaled where it is formed | near `jax.grad`'s | `groups="parameter"` |

    Measured on CPU, two passes take 1.0 times the memory of `jax.grad` (transformer) to 1.8 (a small MLP), by parameter
    .95 to 1.3; a GRU, whose weights are constants of a loop and so are taped, 3.0 and 2.1 (`python -m
    benchmarks.per_example_any`). `plan(clipped_value_and_grad(...), ...)` shows the way.

    With `groups` g_i is clipped in parts: for group l, sum_i c_l(|g_il|) g_il. One number C means C_l = C / sqrt(L) for
    each of L groups, so that an example adds at most norm C. A factor scales the gradient of its parameters alone, not
    the cotangents that go down to other layers. With "parameter" every parameter is a group, and in a loop over slices
    of a stacked parameter every slice.

    Sharded as for `value_and_grad`: norms as the examples, the sum as the gradient of `jax.grad`, inside
    `jax.shard_map` over the examples of all devices. Devices send each other what `jax.grad` does; in two passes also
    one example, which the second computes in place of those without a finite norm, and sharded parameters twice.

    In microbatches: `over_microbatches(lambda *batch: clipped(params, *batch)[::-1], (x, y), size)` returns (sum,
    (losses, norms)).

    An example whose norm is not finite adds nothing. In half precision the second pass rounds the cotangents of
    c_i loss_i anew: an example adds at most C (1 + r), r some roundings. `private_grad` and `dp_sgd` scale where
    gradients are formed, and bound the norm from above.

    Args:
        loss: as for `record`: of ONE example.
        clip: C >= 0, may be traced; a function from norms (N,) to factors (N,): `flat(C)`, `automatic(C)`, `psac(C)`;
            with groups also a mapping from each group to one of these (then the bound on the whole is the root of the
            sum of their squares).
        memory: bytes that the intermediate arrays may take: one pass by the tape where these (`peak_bytes` of the
            jaxpr, without compiling) fit, else two. None: two. No bound on what two passes take: near `jax.grad`'s.
        passes: 1 or 2, instead of `memory`.
        groups: None; "parameter"; in two passes "layer" (as of `SqNorms`), or a mapping {name: prefix of paths, or
            several} over all parameters.
        argnums, in_axes, has_aux, trainable: as for `record`.

    Returns:
        `clipped(*args, weights=None) -> ((losses, norms[, aux]), sum)`: losses (N,); norms (N,) before clipping, with
        groups {name: (N,)}, those of a stacked parameter over all its slices; sum a pytree like the parameters. With
        `weights` (N,) of w_i loss_i, 0 removes an example.

    Raises:
        TypeError, ValueError: as `record`; `passes` that is not 1 or 2, or given beside `memory`; groups that do not
            hold every parameter once, or in one pass hold several; C negative, if known.

    Reference: Lee, J. & Kifer, D. (2021). Scaling up differentially private deep learning with fast per-example
        gradient clipping, section 4 (two passes). He, J., Li, X., Yu, D., et al. (2023). Exploring the limits of
        differentially private deep learning with group-wise clipping, section 3 (one pass).

    Example:
        >>> loss = lambda w, x: jnp.vdot(w, x)
        >>> x = jnp.array([[3.0, 4.0], [0.0, 0.5]])
        >>> (losses, norms), total = clipped_value_and_grad(loss, 1.0)(jnp.ones(2), x)
        >>> norms, [f"{g:.1f}" for g in total]
        (Array([5. , 0.5], dtype=float32), ['0.6', '1.3'])
    """
    if passes not in (None, 1, 2) or (passes is not None and memory is not None):
        raise ValueError(f"{WHERE}: expected passes=1 or 2, or memory in bytes, got passes={passes}, memory={memory}.")
    if memory is not None:
        require_positive_int(WHERE, "memory", memory)
    recorder = recorder_of(WHERE, loss, argnums, in_axes, has_aux, trainable)
    return ClippedGradient(recorder, clip, memory, passes, groups)


@dataclasses.dataclass(frozen=True, eq=False)
class ClippedGradient:
    """`clipped_value_and_grad(loss, clip, ...)`: see there; `recorder` knows the loss and its options."""

    recorder: Recorder
    clip: Any
    memory: int | None
    passes: int | None
    groups: Groups

    def __call__(self, *args: Any, weights: Array | None = None) -> Any:
        """((losses, norms[, aux]), the clipped sum)."""
        has_aux = self.recorder.has_aux
        weights_for(WHERE, weights, self.recorder.arguments(args, WHERE))  # its checks, by this function's name
        if self.by_tape(args, weights):
            found, total = _by_tape(self.recorder, _single(self.clip), args, weights)
        else:
            with on_their_mesh(args, WHERE):
                given = self.recorder.arguments(args, WHERE)
                shares = weights_for(WHERE, weights, given)
                traced, varied = varying(self.recorder.loss, given, has_aux, shares)
                if self.groups is None:
                    found = _in_two_passes(traced, varied, _single(self.clip), shares)
                else:
                    found = _by_groups(traced, varied, self.clip, self.groups, self.passes, shares)
                total = jax.tree.unflatten(given.structure, sum_like(found.total, list(given.leaves)))
        return ((found.losses, found.norms, found.aux) if has_aux else (found.losses, found.norms)), total

    def by_tape(self, args: tuple[Any, ...], weights: Array | None = None) -> bool:
        """Whether it clips in one pass by the tape."""
        if self.groups is not None or self.memory is None:
            return self.groups is None and self.passes == 1
        return self.tape_bytes(args, weights) <= self.memory

    def tape_bytes(self, args: tuple[Any, ...], weights: Array | None = None) -> int:
        """The bytes of the intermediate arrays by the tape."""
        return peak_bytes(lambda *args: _by_tape(self.recorder, 1.0, args, weights)[1], *args)

    def plan(self, *args: Any) -> Plan:
        """How each parameter is computed, and in its `way` the passes; see `plan`."""
        tape, plain = self.tape_bytes(args), gradient_bytes(self.recorder, args)
        if self.by_tape(args):
            found = plan(jax.eval_shape(lambda *args: _recorded(self.recorder, args, None)[0], *args))
            way = "1 pass by the tape"
        else:
            found = Streamed(self.recorder, *statistics_of(SqNorms())).plan(*args)
            one = self.groups == PARAMETER and self.passes != 2
            way = "1 pass, each parameter by its own norm" if one else "2 passes"
        found.way = f"{way}; intermediate arrays: gradient {plain:,} bytes, tape {tape:,}"
        return found


class Clipped(NamedTuple):
    """The losses (N,), the norms, aux, and the sum for each parameter."""

    losses: Array
    norms: Any
    aux: PyTree
    total: list[Array | None]


def _recorded(recorder: Recorder, args: tuple[Any, ...], weights: Array | None) -> tuple[Tape, PyTree]:
    recorded = recorder(*args, weights=weights)
    return recorded if recorder.has_aux else (recorded, None)


def _by_tape(recorder: Recorder, clip: Any, args: tuple[Any, ...], weights: Array | None) -> tuple[Clipped, PyTree]:
    tape, aux = _recorded(recorder, args, weights)
    own, norms = clipped_grad(tape, clip)
    given = recorder.arguments(args, WHERE)
    # Inside `shard_map` a tape's sum is of the device's own examples; here as in two passes it is of all devices'.
    total = sum_like(own, jax.tree.unflatten(given.structure, list(given.leaves)))
    losses = tape.outputs
    if weights is not None:
        losses, aux = zero_where(weights == 0, (losses, aux))
    return Clipped(losses, norms, aux, []), total


def _in_two_passes(found: Traced, given: Arguments, clip: Scalar | Clip, weights: Array | None) -> Clipped:
    first = streamed(found, given, (SqNorms(),), weights=weights, gradient=False)
    norms = safe_sqrt(first.values[0])
    factors = factors_of(clip, norms)
    total = gradient_of_sum(found, given, factors if weights is None else factors * weights.astype(factors.dtype))
    return Clipped(first.losses, norms, first.aux, total)


def gradient_of_sum(found: Traced, given: Arguments, weights: Array | None) -> list[Array | None]:
    """The gradient of sum_i w_i loss_i, examples of weight 0 left out, by `jax.grad` of the traced loss."""
    mapped = given.mapped if weights is None else without_removed(given, weights)
    loss = jaxpr_as_fun(ClosedJaxpr(found.jaxpr, found.consts))

    def total(leaves: list[Array]) -> Array:
        each = jax.vmap(lambda mapped: loss(*leaves, *mapped)[0], (given.axes,), axis_size=given.examples)(mapped)
        return jnp.sum(weighted(each, weights))

    grads: list[Array] = jax.grad(total)(list(given.leaves))
    if weights is None:
        return [*grads]
    # With no example left, what replaced them may have been anything.
    some = jnp.any(weights != 0)
    return [jnp.where(some, g, jnp.zeros_like(g)) for g in grads]


TAPE_BYTES = 1.25
"""How many times the memory of `jax.grad` a tape may take where one pass is preferred to two."""


def stored(recorder: Recorder, args: tuple[Any, ...]) -> bool:
    """Whether a clipped sum by the tape takes little more memory than `jax.grad`: nothing is rematerialized."""

    def of_tape(*args: Any) -> Any:
        return _by_tape(recorder, 1.0, args, None)[1]

    return peak_bytes(of_tape, *args) <= TAPE_BYTES * gradient_bytes(recorder, args)


def gradient_bytes(recorder: Recorder, args: tuple[Any, ...]) -> int:
    """The bytes of the intermediate arrays of the gradient of the summed losses."""

    def plain(*args: Any) -> Any:
        with on_their_mesh(args):
            given = recorder.arguments(args)
            traced, varied = varying(recorder.loss, given, recorder.has_aux)
            return gradient_of_sum(traced, varied, None)

    return peak_bytes(plain, *args)


def bounded_sums(recorder: Recorder, args: tuple[Any, ...], factors_of_bounds: Clip) -> tuple[Clipped, PyTree]:
    """(losses, norms and aux, sum_i c(n_i) g_i in the accumulation dtype), n_i an upper bound on |g_i|, in two passes.

    Both passes compute the same cotangents, and the factors scale gradients where they are formed: the sum of an
    example's contributions has norm c(n_i) |g_i| up to the rounding that the margin of n_i covers.
    """
    with on_their_mesh(args):
        given = recorder.arguments(args)
        found, varied = varying(recorder.loss, given, recorder.has_aux)
        first = streamed(found, varied, (SqNorms(), Margin()), gradient=False)
        norms = safe_sqrt(first.values[0])
        bounds = with_margin(norms, jnp.square(first.values[1]).astype(norms.dtype))
        factors = factors_of(factors_of_bounds, bounds)
        by_leaf = dict.fromkeys(range(len(given.leaves)), factors)
        second = streamed(found, varied, (WideTotal(),), factors=by_leaf, gradient=False, precision=EXACT)
    return Clipped(first.losses, norms, first.aux, []), second.values[0]


def _by_groups(
    found: Traced, given: Arguments, clip: Any, groups: Any, passes: int | None, weights: Array | None
) -> Clipped:
    params = tuple(Parameter(p, tuple(x.shape), x.dtype) for p, x in zip(given.paths, given.leaves, strict=True))
    if groups == PARAMETER:
        members = {param.path: [param.path] for param in params}
    else:
        members = groups_of(WHERE, groups, params)
        missing = [p.path for p in params if not any(p.path in paths for paths in members.values())]
        if missing:
            raise ValueError(f"{WHERE}: groups must hold every parameter, got none with {missing}.")
    if passes == 1 and any(len(paths) > 1 for paths in members.values()):
        raise ValueError(
            f'{WHERE}: in one pass a group is one parameter, groups="parameter": the factor of several would depend on '
            "cotangents that come later. Use passes=2."
        )
    names = [next(name for name, paths in members.items() if param.path in paths) for param in params]
    if passes == 2 or groups != PARAMETER:
        bounds = _bounds(clip, dict.fromkeys(members, 1))
        first = streamed(found, given, (SqNorms(by=groups),), weights=weights, gradient=False)
        norms = {name: safe_sqrt(x) for name, x in first.values[0].items()}
        factors = {name: factors_of(bounds[name], x) for name, x in norms.items()}
        by_leaf = {i: factors[name] for i, name in enumerate(names)}
        second = streamed(found, given, (WideTotal(),), weights=weights, factors=by_leaf, gradient=False)
        return Clipped(first.losses, norms, first.aux, _rounded(given, second.values[0]))
    slices = slices_of(found.jaxpr, given.leaves)
    bounds = _bounds(clip, dict(zip(names, slices, strict=True)))
    dtypes = [accumulation_dtype(param.dtype) for param in params]
    clips = {i: hoisted(bounds[name], dtypes[i]) for i, name in enumerate(names)}
    both = (SqNorms(by=PARAMETER), WideTotal())
    once = streamed(found, given, both, weights=weights, clips=clips, gradient=False)
    norms = {name: safe_sqrt(x) for name, x in once.values[0].items()}
    return Clipped(once.losses, norms, once.aux, _rounded(given, once.values[1]))


def _rounded(given: Arguments, total: PyTree) -> list[Array | None]:
    """The sums for each parameter, in its dtype."""
    sums = given.structure.flatten_up_to(total)
    return [x.astype(leaf.dtype) for x, leaf in zip(sums, given.leaves, strict=True)]


def _single(clip: Any) -> Any:
    if isinstance(clip, Mapping):
        raise TypeError(f"{WHERE}: a mapping of bounds needs groups, got groups=None and bounds for {list(clip)}.")
    return clip


def _bounds(clip: Any, slices: dict[str, int]) -> dict[str, Any]:
    """The bound, or clip function, of each slice of each group."""
    for bound in clip.values() if isinstance(clip, Mapping) else (clip,):
        if not callable(bound):
            require_between(WHERE, "clip", bound, 0, math.inf)
    if isinstance(clip, Mapping):
        if set(clip) != set(slices):
            raise ValueError(f"{WHERE}: expected a bound for each of the groups {list(slices)}, got {list(clip)}.")
        return {name: bound if callable(bound) else bound / slices[name] ** 0.5 for name, bound in clip.items()}
    if callable(clip):
        raise TypeError(
            f"{WHERE}: with groups, clip must be one number C or a mapping from groups, got a function. Pass it for "
            f"each group: dict.fromkeys({list(slices)}, function)."
        )
    return dict.fromkeys(slices, clip / max(sum(slices.values()), 1) ** 0.5)
