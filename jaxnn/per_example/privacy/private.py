"""Differentially private training: every example's gradient clipped, the sum blurred once.

    g~ = (sum_i w_i c(n_i) g_i + sigma C z) / L,   n_i = |g_i|,   |c(n)| n <= C,   z standard normal

C bounds what one example can add to the sum, sigma is the noise multiplier, L the EXPECTED batch size: a number fixed
beforehand, since how many examples a random batch holds is itself private.

What this gives. A step is a Gaussian mechanism of multiplier sigma, for adding, removing or zeroing out one example
(sensitivity C; where one is REPLACED by another it is 2C, and the multiplier sigma / 2). What is made from g~ alone, by
any optimizer, schedule or averaging, is as private as g~. The (epsilon, delta) of a whole run is not known here: an
accountant finds it from sigma, the number of steps, and the way in which batches were drawn (`dp_event`).

What this does not give:

- Sampling. Accounts of subsampled steps hold for batches drawn as they suppose: each example on its own with one
  probability (`poisson_batch`; adding, removing, zeroing out), or a uniform subset of fixed size (replacing). An epoch
  of shuffled batches is neither: its only simple account is one unsampled step for each EPOCH (zeroing out).
- Arithmetic. Norms are taken with a margin for terms that cancel (`margin.safe_norms`), so that sums of float32 keep
  the bound but for roundings of 1e-6 of it. Noise is drawn in float32 or float64: the low bits of g~ tell about the sum
  (Mironov 2012), the largest |z| in float32 is about 5.4, and `jax.random` is no cryptographic generator. Keys must be
  secret and used once.
- Reports. Losses, norms and aux outputs of a step, the batch's indices and whether a draw overflowed are NOT private.
- Choices. Settings tuned on the private data, early stopping and a published validation score all leak.
- Coupled examples. Batch normalization in training raises; a loss that looks at other examples in any other way (a
  weight that depends on them, a shared statistic in the data) breaks the bound unseen.
- Devices. Inside `jax.shard_map` with check_vma=False each device has a mechanism of its own, on the parameters that it
  has; with the same key on all, their differences carry no noise. With the default checks that raises.
- Regularizers. Within an example's loss they are clipped with it; add their gradient to g~, or decay weights in the
  optimizer. An optimizer that needs the loss (`value`) is not served: the loss is not private.

An example whose gradient is NaN or infinite, and parameters that make all of them so, add nothing: g~ is then noise.
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
    require_positive,
    require_positive_int,
)
from jaxnn.numerics import accumulation_dtype, safe_divide
from jaxnn.optim import apply_updates
from jaxnn.optim.base import call_update, dtypes_of
from jaxnn.per_example.clip import Clip, flat
from jaxnn.per_example.microbatch import over_microbatches
from jaxnn.per_example.placing import PARAMS, ROWS, specs
from jaxnn.per_example.privacy.gaussian import add_gaussian_noise
from jaxnn.per_example.privacy.margin import safe_norms
from jaxnn.per_example.privacy.shards import require_own_examples, require_replicated
from jaxnn.per_example.select import require_tape
from jaxnn.per_example.sums import clipped_grad
from jaxnn.placement import compiler_sharded
from jaxnn.tape import Tape
from jaxnn.types import Array, Key, Params, PyTree, Scalar
from jaxnn.varying import sum_like, varying_axes


class PrivateState(NamedTuple):
    """What a private step changes: begin with `PrivateState(params, opt.init(params))`."""

    params: Params
    opt_state: Any


class PrivateReport(NamedTuple):
    """What a step saw of each example; none of it is private, and padding has entries too.

    Attributes:
        losses: (N,).
        norms: (N,), of the gradients before clipping.
        aux: trees of arrays (N, ...), None where the recorder returns none.
    """

    losses: Array
    norms: Array
    aux: PyTree


def dp_sgd(
    recorder: Callable[..., Any],
    opt: Any,
    *,
    clip: Scalar | Clip,
    noise_multiplier: Scalar,
    batch_size: Scalar,
    bound: Scalar | None = None,
    microbatch_size: int | None = None,
) -> Callable[..., tuple[PrivateState, PrivateReport]]:
    """A step of differentially private training: any optimizer on the gradient of `private_grad`.

        params <- params + u,   (u, opt_state) = opt.update(g~, opt_state, params)

    The step is a pure function, to be compiled or scanned by the user. What it guarantees, and what not, stands in
    `help(jaxnn.per_example.privacy.private)`; in short: every g~ is a Gaussian mechanism of multiplier sigma and
    sensitivity C, epsilon and delta of a run come from an accountant (`dp_event`) for batches drawn as it supposes
    (`poisson_batch`, not shuffled epochs), and the report, tuned settings, floating-point noise and the generator are
    not covered.

    `optim.dpsgd` is optax's rule: it takes the gradients of all examples, (N, ...), and only for gradient descent. Here
    they are never materialized, and any optimizer will do.

    Args:
        recorder: as for `private_grad`: `per_example.record(loss)`.
        opt: an optimizer of `jaxnn.optim`, or of optax. Its update is given g~ and nothing of the batch besides, so
            none that asks for the loss. Frozen parameters (`trainable` of `record`) have gradient 0 for it and stay as
            they are, whatever it makes of them; large ones are better kept out of params, where they need no state.
        clip, noise_multiplier, batch_size, bound, microbatch_size: as for `private_grad`.

    Returns:
        `step(state, *data, key, weights=None) -> (state, report)`: state a `PrivateState`, report a `PrivateReport` of
        what is NOT private; data, key and weights as for `private_grad`.

    Raises:
        TypeError: recorder no function, opt no optimizer, settings no numbers.
        ValueError: settings out of range; later, data, weights or, inside `shard_map`, parameters that do not fit.

    Reference:
        Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep learning
        with differential privacy, algorithm 1.

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
        # The batch's loss must not reach the optimizer: what it made of it would not be covered by the noise.
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
    """The private mean gradient g~ = (sum_i w_i c(n_i) g_i + sigma C z) / L.

    Sums and noise are float32 (float64), for parameters in half precision too; g~ is cast once, at the end. Every
    array has noise of its own key. The noise is added once, to the sum over all microbatches, also where the batch is
    empty.

    Args:
        recorder: `(params, *data) -> Tape`, or `(Tape, aux)`, params one tree and the first argument, examples on axis
            0 of all data: `per_example.record(loss)` of the loss of ONE example,
            or `lambda params, x, y: backprop.record(net, loss)(params, state, x, y)`.
        clip: C >= 0, or a function from norms (N,) to factors (N,) such as `automatic(C)`; that function's factors are
            cut to |c| <= C / n, so that the bound holds whatever it returns.
        noise_multiplier: sigma >= 0; sigma C is the standard deviation of the noise of the SUM. With 0 nothing is
            private.
        batch_size: L > 0, the expected batch size: sampling probability times examples for Poisson sampling, N for
            batches of fixed size.
        bound: C of a clip function; not with a number.
        microbatch_size: examples that are recorded at a time; None records the whole batch.

    C, sigma and L may be traced.

    Inside `jax.shard_map`, with its default checks, the batch is that of all devices: each clips its own examples, the
    sums are added over the mesh axes over which the data (or weights) vary, and then the noise, once. What is trained
    must be the same on all devices, since one that has a part of it knows a part of the norm only. A sharded model
    comes under `jax.jit` with `NamedSharding`, over axes that `shard_map` leaves to the compiler (`axis_names`), or
    gathered by `jax.lax.all_gather(shard, axis, tiled=True, to="invarying")`. With check_vma=False nothing is known of
    the mesh and nothing raises: each device has a batch of its own, clips by the norm of the parameters that it has and
    adds all the noise of its key. Train privately with the checks.

    Returns:
        `gradient(params, *data, key, weights=None) -> (g~, report)`. data: trees of arrays (N, ...), N >= 1, one row
        for each example. key: a typed key, a new one for each step. weights: (N,), 1 for an example and 0 for padding,
        whose rows may hold anything, NaN too; traced weights are cut to [0, 1]. g~: like params, in their dtypes.
        report: a `PrivateReport` of what is NOT private.

    Raises:
        TypeError: recorder no function, settings no numbers, a key that is not typed.
        ValueError: settings out of range; noise with an infinite C; a clip function without bound; a batch without
            rows; weights of another shape or, if known, outside [0, 1]; layers that couple examples; inside
            `shard_map`, parameters or a key that differ between devices, or gradients where the examples do not.

    Reference:
        Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep learning
        with differential privacy, algorithm 1 (there L is the lot size, q N).
        Mironov, I. (2012). On significance of the least significant bits for differential privacy.

    Example:
        >>> from jaxnn import per_example
        >>> loss = lambda params, x: jnp.vdot(params, x)
        >>> gradient = private_grad(per_example.record(loss), clip=1.0, noise_multiplier=0.0, batch_size=2)
        >>> x = jnp.array([[3.0, 4.0], [0.0, 0.5], [jnp.nan, 1.0]])
        >>> [f"{g:.2f}" for g in gradient(jnp.zeros(2), x, key=jax.random.key(0))[0]]
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
            f"{where}: no noise hides a gradient without bound; give a finite clip, or noise_multiplier=0."
        )
    factors_of = _within(where, clip if callable(clip) else flat(clip), most)

    def gradient(params: Params, *data: PyTree, key: Key, weights: Array | None = None) -> tuple[Params, PrivateReport]:
        require_key(where, key)
        shares = _shares(where, weights, data)

        def part(shares: Array, *data: PyTree) -> tuple[PyTree, PrivateReport]:
            recorded = recorder(params, *data)
            tape, aux = recorded if isinstance(recorded, tuple) else (recorded, None)
            require_tape(where, tape)
            if tape.examples != shares.shape[0]:
                raise ValueError(
                    f"{where}: got a tape of {tape.examples} examples from {shares.shape[0]} rows of data."
                )
            tape = widened(tape)

            def clipped(tape: Tape, shares: Array) -> tuple[PyTree, Array]:
                def factors(norms: Array) -> Array:
                    # A norm that rounding made too small would let an example through that the noise does not hide.
                    kept = factors_of(safe_norms(tape, norms))
                    return jnp.where(shares > 0, shares.astype(norms.dtype) * kept, 0)

                return clipped_grad(tape, factors)

            sums, norms = compiler_sharded(clipped, specs(tape, (PARAMS, ROWS)), tape, shares)
            return sums, PrivateReport(tape.losses, norms, aux)

        # A sum for each microbatch, the noise for their sum only: it would be drawn too often otherwise.
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
        # The examples of all devices of shard_map; the noise is for their sum, and the same everywhere.
        sums = sum_like(sums, params)
        if foreign := varying_axes(key):
            raise ValueError(
                f"{where}: the key differs along the mesh axes {sorted(foreign)}, the parameters do not: each device "
                "would add other noise. Pass the same key to all devices (in_specs P())."
            )
        # Without noise C may be infinite, and 0 times it would be NaN.
        deviation = jnp.where(jnp.equal(noise_multiplier, 0), 0.0, noise_multiplier * jnp.maximum(most, 0.0))
        noisy = add_gaussian_noise(key, sums, deviation)
        mean = jax.tree.map(lambda s: s / jnp.asarray(batch_size, s.dtype), noisy)
        return dtypes_of(mean, params), report

    return gradient


def widened(tape: Tape) -> Tape:
    """The tape whose sums come out in the accumulation dtypes, to be added up or blurred before they are rounded."""
    leaves = tuple(leaf.update(dtype=accumulation_dtype(leaf.dtype)) for leaf in tape.leaves)
    return dataclasses.replace(tape, leaves=leaves)


def _bound(where: str, clip: Scalar | Clip, bound: Scalar | None) -> Scalar:
    """C, the largest norm that clipping leaves, from a number or beside a function."""
    if not callable(clip):
        if bound is not None:
            raise ValueError(f"{where}: a number clip={clip} is the bound itself; bound is for a clip function.")
        require_between(where, "clip", clip, 0, math.inf)
        return clip
    if bound is None:
        raise ValueError(
            f"{where}: a clip function needs bound=C, the largest norm that it leaves, by which the noise is scaled; "
            "for automatic(C) and psac(C) it is C."
        )
    require_between(where, "bound", bound, 0, math.inf)
    return bound


def _within(where: str, clip: Clip, bound: Scalar) -> Clip:
    """The clip function's factors, cut to |c| <= C / n: a guarantee that is not left to the function."""

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
    """The optimizer's update. A frozen parameter, None in grads, has gradient 0, since optax's rules want an array for
    each parameter of their state; its update is left out, since decay would move it."""

    def filled(g: Array | None, p: Array | None) -> Array | None:
        return jnp.zeros_like(p) if g is None and p is not None else g

    whole = jax.tree.map(filled, grads, params, is_leaf=_is_none)
    updates, opt_state = call_update(opt, whole, opt_state, params, {"grad": whole})
    return jax.tree.map(lambda g, u: None if g is None else u, grads, updates, is_leaf=_is_none), opt_state


def _is_none(x: Any) -> bool:
    return x is None


def _places(tree: PyTree) -> list[str]:
    """The paths of all leaves; what is left out of training, None, counts as one."""
    places = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_none)
    return [jax.tree_util.keystr(path) for path, _ in places]


def _shares(where: str, weights: Array | None, data: tuple[PyTree, ...]) -> Array:
    """One weight in [0, 1] for each row, float32."""
    lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths <= {(), (0,)}:
        raise ValueError(
            f"{where}: data must be arrays (N, ...) of one N >= 1, got shapes "
            f"{[jnp.shape(x) for x in jax.tree.leaves(data)]}. Pad a batch, an empty one too, with rows of weight 0; "
            "what all examples share belongs into the recorder."
        )
    shape = lengths.pop()
    if weights is None:
        return jnp.ones(shape, jnp.float32)
    if jnp.shape(weights) != shape:
        raise ValueError(
            f"{where}: weights must have one entry for each of {shape[0]} rows, shape {shape}, got "
            f"{jnp.shape(weights)}."
        )
    shares = jnp.asarray(weights).astype(jnp.float32)
    if not isinstance(shares, jax.core.Tracer) and not bool(jnp.all((shares >= 0) & (shares <= 1))):
        raise ValueError(f"{where}: weights must be 1 for an example and 0 for padding, got {weights}.")
    return jnp.where(shares > 0, jnp.minimum(shares, 1), 0)  # NaN is not > 0
