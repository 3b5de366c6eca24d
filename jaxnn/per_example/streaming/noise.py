"""Noise scale, variance and signal-to-noise ratio from what one streamed pass returns."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import concrete_number, count_of, require_number, require_positive_int
from jaxnn.numerics import accumulate
from jaxnn.per_example.moments import signal_to_noise
from jaxnn.per_example.noise import NoiseScale
from jaxnn.per_example.streaming.norms import groups_of
from jaxnn.per_example.streaming.statistic import Parameter
from jaxnn.types import Array, Params, PyTree, Scalar
from jaxnn.varying import sum_like, vary, varying_axes

By = str | Mapping[str, str | Sequence[str]] | None


def noise_scale_of(
    sq_norms: PyTree, total: Params, *, examples: Scalar | None = None, by: By = None, before: Any = None
) -> Any:
    """`noise_scale` without a tape: unbiased estimates of tr(Sigma) and |G|^2 from |g_i|^2 and sum_i g_i.

    With m = 1/N sum_i |g_i|^2 and M = |1/N sum_i g_i|^2:

        tr(Sigma) = (m - M) N / (N - 1),   |G|^2 = (N M - m) / (N - 1),   B = tr(Sigma) / |G|^2

    Of a `microbatched_value_and_grad` they are those of the whole batch, not of a microbatch. Inside `jax.shard_map`,
    of replicated parameters, |g_i|^2 and N are summed over the devices first, as sum_i g_i was: those of the batch on
    all devices. In float32 tr(Sigma) loses digits where it is less than 1e-4 of m. The gradient has the precision of
    `jax.grad`, on an accelerator less than float32 by default: `with jax.default_matmul_precision("highest")` has more.

    Args:
        sq_norms: of `SqNorms(by)`: (N,), or a dict of these.
        total: the gradient that `value_and_grad` returns with them, sum_i g_i: a SUM. The mean gradient that
            `train.per_example_vg` hands to an optimizer is to be multiplied by N first.
        examples: N, if some examples have weight 0 (`jnp.sum(weights)`; may be traced); None for all rows.
        by: as of `SqNorms`, if not None.
        before: the result for the previous batches, to which this one is added; None for the first.

    Returns:
        `NoiseScale`, with `by` a dict of them: the noise scale of each parameter, layer or group. Of a traced N < 2
        nothing is added.

    Raises:
        TypeError: `examples` that is not a number; `before` of another kind.
        ValueError: N < 2, if known; sq_norms that are not (N,); `by` that does not fit them.

    Reference: McCandlish, S., Kaplan, J., Amodei, D. & the OpenAI Dota team (2018). An empirical model of large-batch
        training, appendix A.1.

    Example:
        >>> from jaxnn.per_example import value_and_grad
        >>> vg = value_and_grad(lambda w, x: jnp.vdot(w, x))
        >>> (losses, sq_norms), grads = vg(jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> noise = noise_scale_of(sq_norms, grads)  # m = 15, M = 13
        >>> noise.trace, noise.sq_norm
        (Array(4., dtype=float32), Array(11., dtype=float32))
    """
    places = jax.tree_util.tree_leaves_with_path(total)
    if not places:
        raise ValueError(f"noise_scale_of: expected the gradient of some parameter, got {total!r}.")
    params = tuple(Parameter(jax.tree_util.keystr(path), g.shape, g.dtype) for path, g in places)
    squares = {p.path: jnp.sum(jnp.square(accumulate(g))) for p, (_, g) in zip(params, places, strict=True)}
    if by is None:
        if isinstance(sq_norms, dict):
            raise ValueError(
                f"noise_scale_of: got squared norms of {list(sq_norms)}; pass the `by` of their SqNorms(by=...) too."
            )
        _require_rows(sq_norms)
        return _noise(sq_norms, list(squares.values()), total, examples, before)
    groups = groups_of("noise_scale_of", by, params)
    if not isinstance(sq_norms, dict) or set(sq_norms) != set(groups):
        got = list(sq_norms) if isinstance(sq_norms, dict) else type(sq_norms).__name__
        raise ValueError(f"noise_scale_of: expected squared norms of each of {list(groups)}, got {got}.")
    if before is not None and (not isinstance(before, dict) or set(before) != set(groups)):
        raise TypeError(
            f"noise_scale_of: before must be a dict of the NoiseScale of each of {list(groups)}, got "
            f"{type(before).__name__}."
        )
    for each in sq_norms.values():
        _require_rows(each)
    return {
        name: _noise(sq_norms[name], [squares[p] for p in paths], total, examples, (before or {}).get(name))
        for name, paths in groups.items()
    }


def _require_rows(sq_norms: Any) -> None:
    shape = getattr(sq_norms, "shape", None)
    if shape is None or len(shape) != 1:
        got = type(sq_norms).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"noise_scale_of: expected squared norms of N examples, an array (N,), got {got}.")


def _require_examples(where: str, examples: Any, most: int) -> None:
    """Raises unless this is a number larger than `most`, as far as known."""
    require_number(where, "examples", examples)
    number = concrete_number(examples)
    if number is not None and not most < number < math.inf:
        raise ValueError(f"{where}: needs more than {count_of(most, 'example')}, got {examples}.")


def _require_sums(where: str, total: Any, moments: Any, name: str) -> None:
    """Raises unless `moments` are arrays like the gradient, of the same examples."""
    if jax.tree.map(jnp.shape, total) != jax.tree.map(jnp.shape, moments):
        raise ValueError(
            f"{where}: {name} must be a pytree like the gradient, shapes {jax.tree.map(jnp.shape, total)}, got "
            f"{jax.tree.map(jnp.shape, moments)}."
        )
    if own := varying_axes(moments) - varying_axes(total):
        raise ValueError(
            f"{where}: the gradient is summed over the mesh axes {sorted(own)}, {name} is not. Average it by "
            f"jax.lax.pmean(x, {tuple(sorted(own))}), and pass the number of examples on all devices."
        )


def _noise(
    sq_norms: Array, squares: list[Array], total: Params, examples: Scalar | None, before: NoiseScale | None
) -> NoiseScale:
    """The estimates for one group of parameters, `squares` |sum_i g_i|^2 of each."""
    if not isinstance(before, NoiseScale | None):
        raise TypeError(
            f"noise_scale_of: before must be the NoiseScale of the batches before, got {type(before).__name__}."
        )
    if examples is None:
        require_positive_int("noise_scale_of", "the number of examples", sq_norms.shape[0], 2)
    else:
        _require_examples("noise_scale_of", examples, 1)
    count = jnp.asarray(sq_norms.shape[0] if examples is None else examples, sq_norms.dtype)
    # A gradient that does not vary over an axis was summed over it. So are the squared norms, and the numbers of
    # examples: the ratio of sums is not the mean of the devices' ratios.
    (like, *_) = jax.tree.leaves(total)
    axes = varying_axes(sq_norms, count)
    each, n = sum_like(vary((jnp.sum(sq_norms), count), axes), (like, like))
    big = functools.reduce(jnp.add, squares, jnp.zeros_like(each)) / jnp.square(n)
    m, rest = each / n, jnp.maximum(n - 1, 1)
    enough = (n >= 2).astype(m.dtype)
    found = NoiseScale(enough * (m - big) * n / rest, enough * (n * big - m) / rest, enough)
    return found if before is None else NoiseScale(*(x + y for x, y in zip(before, found, strict=True)))


def variance_of(total: Params, second_moment: PyTree, examples: Scalar, ddof: int = 0) -> PyTree:
    """(1/N sum_i g_i^2 - (1/N sum_i g_i)^2) N / (N - ddof), at least 0, a pytree like `params`.

    It cancels where the mean is large beside the deviations: with a mean of 1 and a standard deviation of 1e-3 no digit
    is right in float32, and on an accelerator the default precision of float32 products loses more. `Variance` has no
    such error, but its parts (microbatches, devices) do not add up.

    Args:
        total: sum_i g_i, the gradient that `value_and_grad` returns.
        second_moment: of `SecondMoment()`.
        examples: N > ddof; may be traced.
        ddof: 0 divides by N, 1 by N - 1 (unbiased).

    Raises:
        TypeError: `examples` that is not a number.
        ValueError: N <= ddof, if known; another structure; inside `jax.shard_map`, a gradient that was summed over the
            devices, as of replicated parameters, and a second moment of the device's own examples.

    Reference: Chan, T. F., Golub, G. H. & LeVeque, R. J. (1983). Algorithms for computing the sample variance: analysis
        and recommendations, equation 1.2 (one pass).

    Example:
        >>> variance_of(jnp.array([4.0, 6.0]), jnp.array([5.0, 10.0]), 2, ddof=1)
        Array([2., 2.], dtype=float32)
    """
    require_positive_int("variance_of", "ddof", ddof, 0)
    _require_examples("variance_of", examples, ddof)
    _require_sums("variance_of", total, second_moment, "the second moment")

    def leaf(g: Array, square: Array) -> Array:
        n = jnp.asarray(examples, square.dtype)
        mean = g.astype(square.dtype) / n
        return jnp.maximum(square - jnp.square(mean), 0) * (n / (n - ddof))

    return jax.tree.map(leaf, total, second_moment)


def snr_of(total: Params, variance: PyTree, examples: Scalar) -> PyTree:
    """(1/N sum_i g_i)^2 / Var g, a pytree like `params`: `snr` without a tape. Infinite at variance 0; 0 for 0 / 0.

    Of a layer as a whole, |G|^2 / tr(Sigma): 1 / scale of its `noise_scale_of(..., by=...)`.

    Args:
        total: sum_i g_i, the gradient that `value_and_grad` returns.
        variance: of `Variance(ddof)`, or from `variance_of`.
        examples: N; may be traced.

    Raises:
        TypeError, ValueError: as `variance_of`.

    Reference: Liu, J., Bai, Y., Jiang, G., Chen, T. & Wang, H. (2020). Understanding why neural networks generalize
        well through GSNR of parameters, definition 1.

    Example:
        >>> snr_of(jnp.array([4.0, 6.0]), jnp.array([2.0, 0.0]), 2)
        Array([ 2., inf], dtype=float32)
    """

    _require_examples("snr_of", examples, 0)
    _require_sums("snr_of", total, variance, "the variance")

    def leaf(g: Array, noise: Array) -> Array:
        return signal_to_noise(jnp.square(g.astype(noise.dtype) / jnp.asarray(examples, noise.dtype)), noise)

    return jax.tree.map(leaf, total, variance)
