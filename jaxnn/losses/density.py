"""Negative log-likelihoods of densities with parameters from a network: a Gaussian, a mixture of Gaussians.

Losses are (N,), in nats, float32 (float64 for float64 outputs). ValueError: shapes do not match; TypeError: outputs are
not floating. A derivative takes the arguments of its loss, and returns the shape and dtype of the outputs.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn.losses.base import as_outputs, as_targets, sum_per_example
from jaxnn.types import Array, ArrayLike, DType


def gaussian_nll(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Negative log-likelihood of a Gaussian: 1/2 sum_j [log(2 pi) + s_j + (d_j - m_j)^2 e^(-s_j)], s = log variance.

    The sum over all positions and D: (N,). The log-variance is unbounded: with a nonzero residual, very negative ones
    overflow to inf (in float32 below -88 at a residual of 1). Bound them in the network if the data can be fitted
    exactly.

    Args:
        outputs: (N, ..., 2 D), floating: on the last axis D means m, then D log-variances s.
        targets: d (N, ..., D), real.

    Example:
        >>> gaussian_nll(jnp.array([[0.0, 0.0]]), jnp.array([[1.0]])).round(4)
        Array([1.4189], dtype=float32)

    Reference: Nix & Weigend 1994, "Estimating the mean and variance of the target probability distribution".
    """
    _, log_variance, scaled, _, _ = _gaussian("gaussian_nll", outputs, targets)
    return 0.5 * sum_per_example(math.log(2 * math.pi) + log_variance + jnp.square(scaled))


def gaussian_nll_grad(outputs: ArrayLike, targets: ArrayLike) -> Array:
    """Derivative of `gaussian_nll`: (m - d) e^(-s) for the means, 1/2 (1 - (d - m)^2 e^(-s)) for the log-variances.

    Example:
        >>> gaussian_nll_grad(jnp.array([[0.0, 0.0]]), jnp.array([[3.0]]))
        Array([[-3., -4.]], dtype=float32)
    """
    _, _, scaled, inverse, dtype = _gaussian("gaussian_nll_grad", outputs, targets)
    return jnp.concatenate([scaled * inverse, 0.5 * (1 - jnp.square(scaled))], axis=-1).astype(dtype)


def mixture_density_nll(outputs: ArrayLike, targets: ArrayLike, *, components: int) -> Array:
    """Negative log-likelihood of a mixture of isotropic Gaussians: -log sum_m a_m N(d; mu_m, sigma_m^2 I).

    a = softmax of the mixing logits, sigma_m = e^(t_m); summed over positions: (N,). A component whose |d - mu_m|^2 /
    sigma_m^2 overflows does not contribute; if all do, the loss is inf and its derivative NaN.

    Args:
        outputs: (N, ..., M (2 + D)), floating: on the last axis M mixing logits, M times D means (component by
            component), M log standard deviations t.
        targets: d (N, ..., D), real.
        components: M >= 1, an int.

    Example:
        >>> mixture_density_nll(jnp.array([[0.0, 0.0, -1.0, 1.0, 0.0, 0.0]]), jnp.array([[0.0]]), components=2).round(4)
        Array([1.4189], dtype=float32)

    Reference: Bishop 1994, "Mixture density networks".
    """
    log_joint, _, _, _ = _mixture("mixture_density_nll", outputs, targets, components)
    return sum_per_example(-jax.nn.logsumexp(log_joint, axis=-1))


def mixture_density_nll_grad(outputs: ArrayLike, targets: ArrayLike, *, components: int) -> Array:
    """Derivative of `mixture_density_nll`, by the responsibilities r_m = a_m N_m / sum_l a_l N_l.

    N_m = N(d; mu_m, sigma_m^2 I). It is a_m - r_m for the mixing logits, r_m (mu_m - d) / sigma_m^2 for the means,
    r_m (D - |d - mu_m|^2 / sigma_m^2) for the log standard deviations.

    Example:
        >>> mixture_density_nll_grad(jnp.array([[0.0, 0.0, -1.0, 1.0, 0.0, 0.0]]), jnp.array([[0.0]]), components=2)
        Array([[ 0. ,  0. , -0.5,  0.5,  0. ,  0. ]], dtype=float32)

    Reference: Bishop 1994, "Mixture density networks".
    """
    log_joint, scaled, inverse, raw = _mixture("mixture_density_nll_grad", outputs, targets, components)
    logits = raw[..., :components].astype(log_joint.dtype)
    r = jax.nn.softmax(log_joint, axis=-1)
    means = r[..., None] * scaled * inverse
    log_scales = r * (scaled.shape[-1] - jnp.sum(jnp.square(scaled), axis=-1))
    means = means.reshape(*r.shape[:-1], components * scaled.shape[-1])
    parts = [jax.nn.softmax(logits, axis=-1) - r, means, log_scales]
    return jnp.concatenate(parts, axis=-1).astype(raw.dtype)


def _gaussian(where: str, outputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array, Array, Array, DType]:
    """Means, log-variances, (m - d) e^(-s/2), e^(-s/2) (1 where m = d), dtype of the outputs."""
    raw, dtype = as_outputs(where, outputs)
    if raw.ndim < 2 or raw.shape[-1] % 2:
        raise ValueError(f"{where}: outputs must have shape (N, ..., 2 D): means, log-variances; got {raw.shape}.")
    expected = (*raw.shape[:-1], raw.shape[-1] // 2)
    _require_targets(where, targets, expected, f"outputs {raw.shape} hold means and log-variances")
    mean, log_variance = jnp.split(raw.astype(dtype), 2, axis=-1)
    residual = mean - as_targets(where, targets, dtype)
    inverse = _inverse_scale(residual, 0.5 * log_variance)
    return mean, log_variance, residual * inverse, inverse, raw.dtype


def _mixture(where: str, outputs: ArrayLike, targets: ArrayLike, components: int) -> tuple[Array, Array, Array, Array]:
    """log(a_m N_m) (..., M), (mu - d) / sigma and 1 / sigma (1 where mu = d), (..., M, D); the outputs."""
    raw, dtype = as_outputs(where, outputs)
    m = checks.require_positive_int(where, "components", components)
    size = raw.shape[-1] // m - 2
    if raw.ndim < 2 or raw.shape[-1] % m or size < 1:
        raise ValueError(
            f"{where}: with components={m} outputs must have shape (N, ..., {m} * (2 + D)): mixing logits, means, log "
            f"standard deviations; got {raw.shape}."
        )
    lead, o = raw.shape[:-1], raw.astype(dtype)
    _require_targets(where, targets, (*lead, size), f"outputs {raw.shape} hold {m} components of {size} dimensions")
    d = as_targets(where, targets, dtype)
    logits, log_scale = o[..., :m], o[..., -m:]
    residual = o[..., m:-m].reshape(*lead, m, size) - d[..., None, :]
    log_scales = jnp.broadcast_to(log_scale[..., None], residual.shape)
    squares = jnp.sum(jnp.square(residual * _inverse_scale(residual, log_scales)), axis=-1)
    # Where the square overflows the density is 0: drop the component before a derivative 0 * inf can arise.
    gone = jnp.isinf(squares)
    residual = jnp.where(gone[..., None], jnp.zeros_like(residual), residual)
    inverse = _inverse_scale(residual, log_scales)
    scaled = residual * inverse
    log_density = -0.5 * jnp.sum(jnp.square(scaled), axis=-1) - size * (log_scale + 0.5 * math.log(2 * math.pi))
    log_density = jnp.where(gone, jnp.full_like(log_density, -jnp.inf), log_density)
    return jax.nn.log_softmax(logits, axis=-1) + log_density, scaled, inverse, raw


def _inverse_scale(residual: Array, log_scale: Array) -> Array:
    """e^(-log_scale), but 1 where the residual is 0, to avoid 0 * inf."""
    zero = residual == 0
    return jnp.exp(jnp.where(zero, jnp.zeros_like(log_scale), -log_scale))


def _require_targets(where: str, targets: ArrayLike, expected: tuple[int, ...], because: str) -> None:
    targets = checks.as_array(where, "targets", targets)
    if jnp.shape(targets) != expected:
        raise ValueError(f"{where}: targets must have shape {expected} ({because}), got {jnp.shape(targets)}.")
