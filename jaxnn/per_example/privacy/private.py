"""Differentially private training: per-example gradients are clipped, noise is added once, to their sum.

    g~ = (sum_i w_i c(n_i) g_i + sigma C z) / L,   n_i = |g_i|,   |c(n)| n <= C,   z standard normal

w_i is 1 for an example, 0 for padding. The clipping norm C bounds the contribution of one example to the sum. sigma is
the noise multiplier. L is the EXPECTED batch size, fixed in advance, since the number of examples in a random batch is
itself private.

Guarantee. A step is a Gaussian mechanism of noise multiplier sigma, for adding, removing or zeroing out one example
(sensitivity C; for REPLACING one it is 2C, and the multiplier sigma / 2). Anything computed from g~ alone, by any
optimizer, schedule or averaging, is post-processing and as private as g~. The (epsilon, delta) of a run comes from an
accountant: from sigma, the number of steps, and the sampling of the batches (`dp_event`).

Not covered:

- Sampling. Accounting for subsampled steps assumes Poisson subsampling (`poisson_batch`; adding, removing, zeroing out)
  or batches of fixed size sampled without replacement (replacing). An epoch of shuffled batches is neither: simple
  accounting covers it only as one unsampled step per EPOCH (zeroing out).
- Arithmetic. Gradients are clipped by an upper bound on the norm that holds under rounding (`margin.safe_norms`), so
  float32 sums keep the bound up to relative errors of 1e-6: with a tape, and in the two passes that a recorder's loss
  gets where its tape would take more than 1.25 times the memory of the gradient; both scale gradients where they are
  formed. Noise is drawn in float32 or float64: the low bits of g~ leak information about the sum (Mironov 2012), the
  largest |z| in float32 is about 5.4, and `jax.random` is not cryptographically secure. Keys must be secret and used
  once.
- Reports. Losses, norms and aux outputs of a step, the batch's indices and whether it overflowed are NOT private.
- Choices. Settings tuned on the private data, early stopping and a published validation score all leak.
- Coupled examples. Batch normalization in training mode raises. A loss that depends on other examples in any other way
  (through a weight, or a shared statistic in the data) breaks the bound undetected.
- Devices. Inside `jax.shard_map` with check_vma=False each device runs a mechanism of its own, on its own parameters;
  with one key for all, differences between devices carry no noise. With the default checks this raises.
- Regularizers. In an example's loss they are clipped with it. Add their gradient to g~, or use the optimizer's weight
  decay. Optimizers that need the loss (`value`) are not supported: the loss is not private.

An example whose gradient is NaN or infinite adds nothing. If the parameters make all gradients so, g~ is noise alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import (
    concrete_number,
    require_between,
    require_function,
    require_key,
    require_leading_axis,
    require_positive,
    require_positive_int,
)
from jaxnn.numerics import accumulation_dtype, safe_divide
from jaxnn.optim import Transformation, apply_updates
from jaxnn.optim.base import call_update, dtypes_of
from jaxnn.per_example.clip import Clip, flat
from jaxnn.per_example.margin import safe_norms
from jaxnn.per_example.microbatch import over_microbatches
from jaxnn.per_example.placing import PARAMS, ROWS, specs
from jaxnn.per_example.privacy.gaussian import add_gaussian_noise
from jaxnn.per_example.privacy.shards import require_own_examples, require_replicated
from jaxnn.per_example.recording.recorder import Recorder
from jaxnn.per_example.select import require_tape
from jaxnn.per_example.streaming.clipping import bounded_sums, stored
from jaxnn.per_example.sums import clipped_grad
from jaxnn.placement import compiler_sharded
from jaxnn.tape import Tape
from jaxnn.types import Array, Key, Params, PyTree, Scalar
from jaxnn.varying import sum_like, varying_axes


class PrivateState(NamedTuple):
    """The state of a private step; the first is `PrivateState(params, opt.init(params))`."""

    params: Params
    opt_state: Any


class PrivateReport(NamedTuple):
    """Per-example outputs of a step, padding included. NOT private.

    Attributes:
        losses: (N,).
        norms: (N,), of the gradients before clipping.
        aux: a pytree of arrays (N, ...), None if the recorder returns none.
    """

    losses: Array
    norms: Array
    aux: PyTree


def dp_sgd(
    recorder: Callable[..., Any],
    opt: Transformation,
    *,
    clip: Scalar | Clip,
    noise_multiplier: Scalar,
    batch_size: Scalar,
    bound: Scalar | None = None,
    microbatch_size: int | None = None,
) -> Callable[..., tuple[PrivateState, PrivateReport]]:
    """DP-SGD: a step of differentially private training, any optimizer on the gradient of `private_grad`.

        params <- params + u,   (u, opt_state) = opt.update(g~, opt_state, params)

    The step is a pure function, for `jax.jit` or `lax.scan`. `help(jaxnn.per_example.privacy.private)` states what it
    guarantees. In short: every g~ is a Gaussian mechanism of noise multiplier sigma and sensitivity C; epsilon and
    delta of a run come from an accountant (`dp_event`), under Poisson subsampling (`poisson_batch`, not shuffled
    epochs); the report, tuned settings, floating-point noise and the random generator are not covered.

    `optim.dpsgd` is optax's rule: it takes materialized gradients (N, ...), for gradient descent only. Here they are
    never materialized, and any optimizer works.

    Args:
        recorder: as for `private_grad`: `per_example.record(loss)`.
        opt: an optimizer of `jaxnn.optim`, or of optax, that does not need the loss: its update gets g~ and nothing
            else of the batch. Frozen parameters (`trainable` of `record`) have gradient 0 and are never updated; keep
            large ones out of params, where they need no optimizer state.
        clip, noise_multiplier, batch_size, bound, microbatch_size: as for `private_grad`.

    Returns:
        `step(state, *data, key, weights=None) -> (state, report)`: state a `PrivateState`, report a `PrivateReport`,
        which is NOT private; data, key and weights as for `private_grad`.

    Raises:
        TypeError: recorder not a function, opt not an optimizer, settings not numbers.
        ValueError: settings out of range; when called, as for `private_grad`.

    Example:
        >>> from jaxnn import optim, per_example
        >>> x, y, key = jnp.ones((100, 3)), jnp.ones(100), jax.random.key(0)
        >>> loss = lambda params, x, y: (jnp.vdot(params, x) - y) ** 2
        >>> opt = optim.adam(0.1)
        >>> step = dp_sgd(per_example.record(loss), opt, clip=1.0, noise_multiplier=1.1, batch_size=20)
        >>> def one(state, key):
        ...     for_batch, for_noise = jax.random.split(key)
        ...     indices, weights = per_example.poisson_batch(for_batch, 100, 0.2, 60)
        ...     return step(state, x[indices], y[indices], key=for_noise, weights=weights)
        >>> state = PrivateState(jnp.zeros(3), opt.init(jnp.zeros(3)))
        >>> state, report = jax.jit(lambda state: jax.lax.scan(one, state, jax.random.split(key, 5)))(state)
        >>> state.params.shape, report.norms.shape
        ((3,), (5, 60))
    """
    if not (hasattr(opt, "init") and hasattr(opt, "update")):
        raise TypeError(f"dp_sgd: opt must be an optimizer, such as optim.adam(1e-3), got {opt!r}.")
    gradient = _private_grad("dp_sgd", recorder, clip, noise_multiplier, batch_size, bound, microbatch_size)

    def step(
        state: PrivateState, *data: PyTree, key: Key, weights: Array | None = None
    ) -> tuple[PrivateState, PrivateReport]:
        if not isinstance(state, PrivateState):
            raise TypeError(
                f"dp_sgd: state must be PrivateState(params, opt.init(params)), got {type(state).__name__}."
            )
        params, opt_state = state
        grads, report = gradient(params, *data, key=key, weights=weights)
        # The batch's loss must not reach the optimizer: an update that depends on it is not covered by the noise.
        updates, opt_state = _updates(opt, grads, opt_state, params)
        return PrivateState(apply_updates(params, updates), opt_state), report

    return step


def private_grad(
    recorder: Callable[..., Any],
    *,
    clip: Scalar | Clip,
    noise_multiplier: Scalar,
    batch_size: Scalar,
    bound: Scalar | None = None,
    microbatch_size: int | None = None,
) -> Callable[..., tuple[Params, PrivateReport]]:
    """The private mean gradient g~ = (sum_i w_i c(n_i) g_i + sigma C z) / L, n_i = |g_i|, z standard normal.

    Sums and noise are float32 (float64), also for parameters in half precision; g~ is cast once, at the end. Each array
    has its own noise key. Noise is added once, to the sum over all microbatches, also if all weights are 0.

    Args:
        recorder: `(params, *data) -> Tape`, or `(Tape, aux)`, params one pytree and the first argument, examples on
            axis 0 of all data: `per_example.record(loss)` of the loss of ONE example,
            or `lambda params, x, y: backprop.record(net, loss)(params, state, x, y)`.
        clip: C >= 0, or a clip function such as `automatic(C)`, from norms (N,) to factors (N,), which are cut to
            |c| <= C / n, so that the bound holds for any function.
        noise_multiplier: sigma >= 0; sigma C is the standard deviation of the noise of the SUM. With 0 nothing is
            private.
        batch_size: L > 0, the expected batch size: q n for Poisson subsampling, N for batches of fixed size.
        bound: C of a clip function; not with a number.
        microbatch_size: examples per microbatch; None records the whole batch.

    C, sigma and L may be traced.

    Inside `jax.shard_map`, with its default checks, the batch is that of all devices: each clips its own examples, the
    sums are added over the mesh axes over which the data (or weights) vary, and noise is added once, to the total.
    Trained parameters must be replicated, since a shard gives a part of the norm only. For sharded models use `jax.jit`
    with `NamedSharding`, axes that `shard_map` leaves to the compiler (`axis_names`), or gather the shards by
    `jax.lax.all_gather(shard, axis, tiled=True, to="invarying")`. With check_vma=False the mesh is unknown and nothing
    raises: each device treats its examples as a batch, clips by the norm of its own parameters and adds the full noise
    of its key. Keep the checks on for private training.

    Returns:
        `gradient(params, *data, key, weights=None) -> (g~, report)`. data: pytrees of arrays (N, ...), N >= 1, one row
        per example. key: a typed key, a new one for each step. weights: (N,) in [0, 1], 0 for padding, whose rows may
        hold anything, even NaN; traced weights are clipped to [0, 1]. g~: a pytree like `params` in their dtypes,
        None for frozen ones. report: a `PrivateReport`, which is NOT private.

    Raises:
        TypeError: recorder not a function, settings not numbers, a key that is not typed.
        ValueError: settings out of range; noise with an infinite C; a clip function without bound; a batch without
            rows; weights of another shape or, if known, outside [0, 1]; no key; layers that couple the examples; inside
            `shard_map`, parameters or a key that differ between devices, or gradients where the examples do not.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1 (there L is the lot size, q N). Mironov, I. (2012). On
        significance of the least significant bits for differential privacy.

    Example:
        >>> from jaxnn import per_example
        >>> loss = lambda params, x: jnp.vdot(params, x)
        >>> gradient = private_grad(per_example.record(loss), clip=1.0, noise_multiplier=0.0, batch_size=2)
        >>> x = jnp.array([[3.0, 4.0], [0.0, 0.5], [jnp.nan, 1.0]])
        >>> [f"{g:.2f}" for g in jax.jit(gradient)(jnp.zeros(2), x, key=jax.random.key(0))[0]]
        ['0.30', '0.65']
    """
    return _private_grad("private_grad", recorder, clip, noise_multiplier, batch_size, bound, microbatch_size)


def _private_grad(
    where: str,
    recorder: Callable[..., Any],
    clip: Scalar | Clip,
    noise_multiplier: Scalar,
    batch_size: Scalar,
    bound: Scalar | None,
    microbatch_size: int | None,
) -> Callable[..., tuple[Params, PrivateReport]]:
    require_function(where, "recorder", recorder, "per_example.record(loss)", optional=False)
    require_between(where, "noise_multiplier", noise_multiplier, 0, math.inf, open_high=True)
    require_positive(where, "batch_size", batch_size)
    if microbatch_size is not None:
        require_positive_int(where, "microbatch_size", microbatch_size)
    most = _bound(where, clip, bound)
    if concrete_number(most) == math.inf and concrete_number(noise_multiplier) != 0:
        raise ValueError(
            f"{where}: noise cannot hide an unbounded gradient; pass a finite clip, or noise_multiplier=0."
        )
    factors_of = _within(where, clip if callable(clip) else flat(clip), most)

    def gradient(params: Params, *data: PyTree, key: Key, weights: Array | None = None) -> tuple[Params, PrivateReport]:
        require_key(where, key)
        shares = _shares(where, weights, data)

        def part(shares: Array, *data: PyTree) -> tuple[PyTree, PrivateReport]:
            def factors(bounds: Array) -> Array:
                return jnp.where(shares > 0, shares.astype(bounds.dtype) * factors_of(bounds), 0)

            args = (params, *data)
            if isinstance(recorder, Recorder) and not stored(recorder, args):
                found, sums = bounded_sums(recorder, args, factors)
                _require_rows(where, found.losses.shape[0], shares)
                return sums, PrivateReport(found.losses, found.norms, found.aux if recorder.has_aux else None)
            try:
                recorded = recorder(*args)
            except Exception as error:
                error.add_note(
                    f"{where} called its recorder, per_example.record(loss) or backprop.record, with the batch."
                )
                raise
            tape, aux = recorded if isinstance(recorded, tuple) else (recorded, None)
            require_tape(where, tape)
            _require_rows(where, tape.examples, shares)
            tape = widened(tape)

            def clipped(tape: Tape, shares: Array) -> tuple[PyTree, Array]:
                # Rounding may make a norm too small: its example would then exceed C, the noise's sensitivity.
                return clipped_grad(tape, lambda norms: factors(safe_norms(tape, norms)))

            sums, norms = compiler_sharded(clipped, specs(tape, (PARAMS, ROWS)), tape, shares)
            return sums, PrivateReport(tape.losses, norms, aux)

        # Noise is added to the sum of the microbatches, not to each: its variance would grow with their number.
        whole = (shares, *data)
        sums, report = part(*whole) if microbatch_size is None else over_microbatches(part, whole, microbatch_size)
        expected, got = (_places(tree) for tree in (params, sums))
        if got != expected:
            raise ValueError(
                f"{where}: the recorder must take the parameters first and record them, got a tape of {got} for "
                f"parameters {expected}."
            )
        require_own_examples(where, sums, whole)
        require_replicated(where, params, sums)
        # The sum over all devices of shard_map, before the noise, which is the same on each of them.
        sums = sum_like(sums, params)
        if foreign := varying_axes(key):
            raise ValueError(
                f"{where}: the key differs along the mesh axes {sorted(foreign)}, the parameters do not: each device "
                "would add different noise. Pass a replicated key (in_specs P())."
            )
        # sigma = 0 allows C = inf, and 0 times inf is NaN.
        deviation = jnp.where(jnp.equal(noise_multiplier, 0), 0.0, noise_multiplier * jnp.maximum(most, 0.0))
        noisy = add_gaussian_noise(key, sums, deviation)
        mean = jax.tree.map(lambda s: s / jnp.asarray(batch_size, s.dtype), noisy)
        return dtypes_of(mean, params), report

    return gradient


def _require_rows(where: str, examples: int, shares: Array) -> None:
    if examples != shares.shape[0]:
        raise ValueError(f"{where}: got a tape of {examples} examples from {shares.shape[0]} rows of data.")


def widened(tape: Tape) -> Tape:
    """The tape with leaves in the accumulation dtypes: sums are added, and noise added to them, before rounding."""
    leaves = tuple(leaf.update(dtype=accumulation_dtype(leaf.dtype)) for leaf in tape.leaves)
    return dataclasses.replace(tape, leaves=leaves)


def _bound(where: str, clip: Scalar | Clip, bound: Scalar | None) -> Scalar:
    """C, the largest norm after clipping: the number `clip`, or the `bound` of a clip function."""
    if not callable(clip):
        if bound is not None:
            raise ValueError(f"{where}: a number clip={clip} is the bound itself; bound is for a clip function.")
        require_between(where, "clip", clip, 0, math.inf)
        return clip
    if bound is None:
        raise ValueError(
            f"{where}: a clip function needs bound=C, the largest norm after clipping, by which the noise is scaled; "
            "for automatic(C) and psac(C) it is C."
        )
    require_between(where, "bound", bound, 0, math.inf)
    return bound


def _within(where: str, clip: Clip, bound: Scalar) -> Clip:
    """The clip function's factors, cut to |c| <= C / n: the sensitivity must not depend on a user's function."""

    def factors(norms: Array) -> Array:
        given = clip(norms)
        if jnp.shape(given) != norms.shape:
            raise ValueError(
                f"{where}: the clip function must map norms {norms.shape} to factors {norms.shape}, got shape "
                f"{jnp.shape(given)}."
            )
        most = safe_divide(jnp.maximum(jnp.asarray(bound, norms.dtype), 0), norms)
        cut = jnp.clip(given, -most, most)
        return jnp.where(jnp.isnan(cut), 0, cut)

    return factors


def _updates(opt: Any, grads: PyTree, opt_state: Any, params: Params) -> tuple[PyTree, Any]:
    """The optimizer's update. A frozen parameter, None in grads, gets gradient 0, since optax's rules require an array
    for each parameter in their state; its update is dropped, since weight decay would change it."""

    def filled(g: Array | None, p: Array | None) -> Array | None:
        return jnp.zeros_like(p) if g is None and p is not None else g

    whole = jax.tree.map(filled, grads, params, is_leaf=_is_none)
    updates, opt_state = call_update(opt, whole, opt_state, params, {"grad": whole})
    return jax.tree.map(lambda g, u: None if g is None else u, grads, updates, is_leaf=_is_none), opt_state


def _is_none(x: Any) -> bool:
    return x is None


def _places(tree: PyTree) -> list[str]:
    """The paths of all leaves, None (not trained) included."""
    places = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_none)
    return [jax.tree_util.keystr(path) for path, _ in places]


def _shares(where: str, weights: Array | None, data: tuple[PyTree, ...]) -> Array:
    """One weight in [0, 1] per row, float32."""
    remedy = (
        "Pad a batch, even an empty one, with rows of weight 0; bind arrays that all examples share into the recorder."
    )
    shape = (require_leading_axis(where, "data", data, remedy),)
    if weights is None:
        return jnp.ones(shape, jnp.float32)
    if jnp.shape(weights) != shape:
        raise ValueError(
            f"{where}: weights must have one entry for each of {shape[0]} rows, shape {shape}, got "
            f"{jnp.shape(weights)}."
        )
    shares = jnp.asarray(weights).astype(jnp.float32)
    if not isinstance(shares, jax.core.Tracer) and not bool(jnp.all((shares >= 0) & (shares <= 1))):
        raise ValueError(f"{where}: weights must lie in [0, 1], 0 for padding, got {weights}.")
    return jnp.where(shares > 0, jnp.minimum(shares, 1), 0)  # NaN > 0 is False: weight 0
