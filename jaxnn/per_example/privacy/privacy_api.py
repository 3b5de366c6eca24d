"""`clipped_grad_of`: `jax_privacy.clipped_grad`, computed from a tape."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import (
    concrete_number,
    require_between,
    require_function,
    require_leading_axis,
    require_positive,
    require_positive_int,
)
from jaxnn.numerics import safe_divide
from jaxnn.per_example.clip import Clip, flat
from jaxnn.per_example.margin import safe_norms
from jaxnn.per_example.microbatch import over_microbatches
from jaxnn.per_example.norms import norms as norms_of
from jaxnn.per_example.placing import PARAMS, ROWS, specs
from jaxnn.per_example.privacy.private import widened
from jaxnn.per_example.privacy.shards import require_own_examples
from jaxnn.per_example.recording import record
from jaxnn.per_example.sums import clipped_grad, materialize
from jaxnn.placement import beside, compiler_sharded
from jaxnn.tape import Tape, Whole
from jaxnn.types import Array, DTypeLike, PyTree, Scalar

WHERE = "clipped_grad_of"
NEIGHBOURS = {"ADD_OR_REMOVE_ONE": 1, "REPLACE_SPECIAL": 1, "REPLACE_ONE": 2}
"""Sensitivity in multiples of the bound, by the names of `dp_accounting.NeighboringRelation`."""


class Aux(NamedTuple):
    """Per-example outputs of `clipped_grad_of`; NOT private.

    Attributes:
        values: (N,) of the function, or None.
        grad_norms: (N,), float32 (float64), of the gradients before transformation and clipping, or None.
        aux: a pytree of arrays (N, ...), or None.
    """

    values: Array | None
    grad_norms: Array | None
    aux: PyTree


@dataclasses.dataclass(frozen=True)
class ClippedGrad:
    """A function whose sum, the first result if `has_aux`, has bounded L2 sensitivity.

    Attributes:
        fun: the function; calling this calls it.
        l2_norm_bound: the largest L2 norm of one example's contribution.
        has_aux: whether it returns a pair (sum, Aux).
    """

    fun: Callable[..., Any]
    l2_norm_bound: Scalar
    has_aux: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fun(*args, **kwargs)

    def sensitivity(self, neighboring_relation: Any = "REPLACE_SPECIAL") -> Scalar:
        """The L2 sensitivity of the sum under a `dp_accounting.NeighboringRelation` or its name: the bound for adding,
        removing or zeroing out an example, twice the bound for replacing one; ValueError for other relations."""
        name = getattr(neighboring_relation, "name", neighboring_relation)
        if name not in NEIGHBOURS:
            raise ValueError(f"sensitivity: expected one of {list(NEIGHBOURS)}, got {neighboring_relation!r}.")
        return NEIGHBOURS[name] * self.l2_norm_bound


def _same(tree: PyTree) -> PyTree:
    """The identity, compared by `is`: any other transformation needs materialized gradients."""
    return tree


def clipped_grad_of(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    l2_clip_norm: Scalar,
    rescale_to_unit_norm: bool = False,
    normalize_by: float = 1.0,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    return_values: bool = False,
    return_grad_norms: bool = False,
    pre_clipping_transform: Callable[[PyTree], PyTree] = _same,
    microbatch_size: int | None = None,
    nan_safe: bool = True,
    dtype: DTypeLike | None = None,
    prng_argnum: int | None = None,
    spmd_axis_name: str | None = None,
) -> ClippedGrad:
    """1/b sum_i min(1, C / |g_i|) g_i of any function: replaces `jax_privacy.clipped_grad`, at the cost of a tape.

        1/b sum_i min(1 / C, 1 / |g_i|) g_i   with rescale_to_unit_norm; for C = 0 the factor is 1 / |g_i|

    Arguments have the names, order and defaults of jax-privacy 2.0. The differences:

    - An example whose gradient is not finite adds nothing; in jax-privacy its finite entries still count.
    - Sums run in float32 (float64) and are cast once, so that half precision neither overflows nor loosens the bound;
      norms are in those dtypes too.
    - Clipping uses an upper bound on the norm that holds under rounding (`margin.safe_norms`): factors are smaller by
      1e-7 to 1e-3 in float32, and much smaller where the terms of a gradient cancel so far that its norm is unknown.
    - microbatch_size need not divide N, and microbatches of padding are not skipped.
    - With nan_safe=False an example whose norm is not finite makes the sum NaN in all entries.

    Args:
        fun: `fun(*args, **kwargs)` -> a scalar, or (scalar, aux); the loss of one example, or of one group.
        argnums: the arguments to differentiate, without axis of examples; an int, or several for a tuple of pytrees.
        has_aux: whether fun returns a pair.
        l2_clip_norm: C >= 0, may be infinite or traced.
        rescale_to_unit_norm: divide by C, so that C does not scale the learning rate (De et al. 2022).
        normalize_by: b > 0, such as the expected batch size.
        batch_argnums: the arguments whose arrays have a leading axis of N examples.
        keep_batch_dim: pass each example to fun with a leading axis of 1, as a batch of one. False passes it without:
            for the loss of one example, or of a GROUP of examples (a user's, N groups of K) clipped as one unit.
        return_values, return_grad_norms: also return fun's values, and the norms before clipping.
        pre_clipping_transform: gradients of one example -> a pytree of arrays, which is clipped and summed instead.
            Materializes the gradients of N examples.
        microbatch_size: examples per microbatch; None takes the whole batch at once.
        nan_safe: whether the bound holds even if gradients are not finite.
        dtype: of the sum; None for those of the gradients.
        prng_argnum: an argument that holds typed keys, each split into N, one for each example.
        spmd_axis_name: ignored: it shards the examples of a vmap, and changes no result.

    Inside `jax.shard_map` the examples are the device's own: sum the results by `jax.lax.psum`. The bound is that of
    all parameters, so these may not be sharded over mesh axes over which the examples are replicated: leave such axes
    to the compiler (`axis_names` of `shard_map`, or `jax.jit` with `NamedSharding`). With check_vma=False this is not
    checked, and the bound is that of the parameters on each device.

    Returns:
        A `ClippedGrad`. Called with the arguments of fun, and `is_padding_example=` (N,) bool for rows that add nothing
        whatever they hold, it returns the sum, or (sum, `Aux`) if has_aux, return_values or return_grad_norms; other
        keyword arguments have a leading axis N too. With keep_batch_dim, aux arrays (N, 1, ...) are returned as
        (N, ...).

    Raises:
        TypeError: fun not a function, settings not numbers.
        ValueError: C negative, if known; normalize_by not > 0; argnums and batch_argnums that overlap or are negative;
            when called, missing arguments, arrays of different N, N = 0; gradients that differ over mesh axes of
            `shard_map` over which the examples do not.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1. De, S., Berrada, L., Hayes, J., Smith, S. L. & Balle, B.
        (2022). Unlocking high-accuracy differentially private image classification through scale (dividing by C).

    Example:
        >>> loss = lambda params, x: 0.5 * jnp.sum((x - params) ** 2)
        >>> clipped = clipped_grad_of(loss, l2_clip_norm=1.0, keep_batch_dim=False, return_grad_norms=True)
        >>> sums, aux = jax.jit(clipped)(jnp.zeros(2), jnp.array([[3.0, 4.0], [0.0, 0.5]]))
        >>> [f"{s:.2f}" for s in sums], aux.grad_norms, clipped.sensitivity()
        (['-0.60', '-1.30'], Array([5. , 0.5], dtype=float32), 1.0)
    """
    require_function(WHERE, "fun", fun, "loss(params, batch)", optional=False)
    require_function(WHERE, "pre_clipping_transform", pre_clipping_transform, "lambda grads: grads", optional=False)
    require_between(WHERE, "l2_clip_norm", l2_clip_norm, 0, math.inf)
    require_positive(WHERE, "normalize_by", normalize_by)
    if microbatch_size is not None:
        require_positive_int(WHERE, "microbatch_size", microbatch_size)
    batched = _places(argnums, batch_argnums)
    mapped = batched if prng_argnum is None else (*batched, prng_argnum)
    nums = argnums if isinstance(argnums, int) else tuple(argnums)
    returns_aux = has_aux or return_values or return_grad_norms
    factors = _factors(l2_clip_norm, rescale_to_unit_norm)

    def part(
        rest: list[Any], like: PyTree, padding: Array, batch: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[PyTree, Aux]:
        """The sum over one microbatch, in the accumulation dtype, and its `Aux`."""
        args = _merged(rest, mapped, batch)
        axes = tuple(0 if i in mapped else None for i in range(len(args)))

        def one(*args: Any) -> Any:
            *args_of_one, named_of_one = args
            if keep_batch_dim:
                for i in batched:
                    args_of_one[i] = jax.tree.map(lambda x: x[None], args_of_one[i])
            return fun(*args_of_one, **named_of_one)

        recorded = record(one, argnums=nums, in_axes=(*axes, 0), has_aux=has_aux)(*args, named)
        tape, aux = recorded if has_aux else (recorded, None)
        tape, losses, before = widened(tape), tape.losses, None
        if pre_clipping_transform is not _same:
            before = norms_of(tape) if return_grad_norms else None
            tape = _transformed(tape, pre_clipping_transform, like)

        def of_tape(tape: Tape, padding: Array) -> tuple[PyTree, Array]:
            return clipped_grad(tape, lambda n: jnp.where(padding, 0, factors(safe_norms(tape, n))))

        sums, norms = compiler_sharded(of_tape, specs(tape, (PARAMS, ROWS)), tape, padding)
        if not nan_safe:
            bad = jnp.any(~padding & ~jnp.isfinite(norms))
            sums = jax.tree.map(lambda s: jnp.where(bad, jnp.nan, s), sums)
        if keep_batch_dim:
            aux = jax.tree.map(lambda a: a.squeeze(1) if a.ndim > 1 and a.shape[1] == 1 else a, aux)
        shown = norms if before is None else before
        return sums, Aux(losses if return_values else None, shown if return_grad_norms else None, aux)

    def clipped(*args: Any, is_padding_example: Array | None = None, **named: Any) -> Any:
        n = _examples(args, batched, named)
        padding = jnp.zeros(n, bool) if is_padding_example is None else jnp.asarray(is_padding_example, bool)
        if padding.shape != (n,):
            raise ValueError(f"{WHERE}: is_padding_example must have shape ({n},), got {padding.shape}.")
        split = list(args)
        if prng_argnum is not None:
            batch: Any = jax.tree.leaves([args[i] for i in batched])[0]
            split[prng_argnum] = jax.tree.map(lambda key: beside(jax.random.split(key, n), batch), args[prng_argnum])
        data = (padding, tuple(split[i] for i in mapped), named)
        like = jax.eval_shape(_same, args[nums] if isinstance(nums, int) else tuple(args[i] for i in nums))
        of_part = functools.partial(part, split, like)
        sums, aux = of_part(*data) if microbatch_size is None else over_microbatches(of_part, data, microbatch_size)
        # Without the keys of prng_argnum: the same example with another key is not another example.
        require_own_examples(WHERE, sums, (padding, [args[i] for i in batched], named))
        like = jax.eval_shape(pre_clipping_transform, like)
        # Cast last: a sum over microbatches in half precision would lose the small ones.
        sums = jax.tree.map(
            lambda s, g: (s / jnp.asarray(normalize_by, s.dtype)).astype(g.dtype if dtype is None else dtype),
            sums,
            like,
        )
        return (sums, aux) if returns_aux else sums

    bound = (1.0 if rescale_to_unit_norm else l2_clip_norm) / normalize_by
    return ClippedGrad(clipped, bound, returns_aux)


def _factors(bound: Scalar, rescale: bool) -> Clip:
    """min(1, C / n), divided by C to rescale; a traced C < 0 counts as 0."""
    most = bound if concrete_number(bound) is not None else jnp.maximum(bound, 0)
    if not rescale:
        return flat(most)
    return lambda n: safe_divide(jnp.ones((), n.dtype), jnp.maximum(jnp.asarray(most, n.dtype), n))


def _transformed(tape: Tape, transform: Callable[[PyTree], PyTree], like: PyTree) -> Tape:
    """The tape of transformed gradients; the transform gets them in the parameters' dtypes, as from `jax.grad`."""
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), materialize(tape), like)
    structure: Any
    places, structure = jax.tree.flatten_with_path(jax.vmap(transform)(grads))
    whole = dataclasses.replace(
        tape,
        uses=tuple((Whole(g),) for _, g in places),
        paths=tuple(jax.tree_util.keystr(path) for path, _ in places),
        structure=structure,
        leaves=tuple(jax.ShapeDtypeStruct(g.shape[1:], g.dtype) for _, g in places),
    )
    return widened(whole)


def _places(argnums: int | Sequence[int], batch_argnums: int | Sequence[int]) -> tuple[int, ...]:
    """batch_argnums as a tuple, checked to be disjoint from argnums."""
    nums, batched = ((n,) if isinstance(n, int) else tuple(n) for n in (argnums, batch_argnums))
    if not nums or not batched:
        raise ValueError(f"{WHERE}: argnums and batch_argnums must name an argument, got {nums} and {batched}.")
    if min(nums + batched) < 0 or set(nums) & set(batched):
        raise ValueError(
            f"{WHERE}: argnums and batch_argnums must be >= 0 and disjoint, since parameters have no axis of "
            f"examples; got {nums} and {batched}."
        )
    return batched


def _merged(args: Sequence[Any], places: tuple[int, ...], values: tuple[Any, ...]) -> list[Any]:
    """The arguments with those at `places` replaced."""
    merged = list(args)
    for place, value in zip(places, values, strict=True):
        merged[place] = value
    return merged


def _examples(args: tuple[Any, ...], batched: tuple[int, ...], named: dict[str, Any]) -> int:
    """N, the leading axis of all arrays with examples."""
    if len(args) <= max(batched):
        raise ValueError(f"{WHERE}: batch_argnums are {batched}, but there are {len(args)} positional arguments.")
    arrays = ([args[i] for i in batched], named)
    return require_leading_axis(WHERE, "arguments in batch_argnums (and keyword arguments)", arrays)
