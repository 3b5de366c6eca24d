"""Functions smoothed by noise, differentiable in expectation even where the function is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp

from jaxnn import checks, missing, tree
from jaxnn.types import Array, DTypeLike, PyTree, Scalar, Shape


class Noise(Protocol):
    """A univariate distribution: samples, and the log-density up to a constant."""

    def sample(self, key: Array, sample_shape: Shape = (), dtype: DTypeLike = float) -> Array:
        """Independent samples of this shape."""

    def log_prob(self, inputs: Array) -> Array:
        """The element-wise log-density, without its constant."""


class Normal:
    """The standard normal distribution, of log-density -z^2 / 2.

    Example:
        >>> Normal().log_prob(jnp.array([2.0]))
        Array([-2.], dtype=float32)
    """

    def sample(self, key: Array, sample_shape: Shape = (), dtype: DTypeLike = float) -> Array:
        """Independent samples of this shape."""
        return jax.random.normal(key, sample_shape, dtype)

    def log_prob(self, inputs: Array) -> Array:
        """-z^2 / 2."""
        return -0.5 * jnp.square(inputs)


class Gumbel:
    """The standard Gumbel distribution, of log-density -z - e^(-z).

    argmax_j (x_j + z_j) is k with probability softmax(x)_k.

    Example:
        >>> Gumbel().log_prob(jnp.array([0.0]))
        Array([-1.], dtype=float32)
    """

    def sample(self, key: Array, sample_shape: Shape = (), dtype: DTypeLike = float) -> Array:
        """Independent samples of this shape."""
        return jax.random.gumbel(key, sample_shape, dtype)

    def log_prob(self, inputs: Array) -> Array:
        """-z - e^(-z)."""
        return -inputs - jnp.exp(-inputs)


def make_perturbed_fun(
    fun: Callable[[PyTree], PyTree],
    num_samples: int = 1000,
    sigma: Scalar = 0.1,
    noise: Noise = Gumbel(),  # noqa: B008  (it has no state)
    use_baseline: bool = True,
) -> Callable[[Array, PyTree], PyTree]:
    """A Monte Carlo estimate of E f(x + sigma z), z ~ noise, differentiable in x even if f is not.

    The estimate is the mean of w f(y) + (1 - w) f(x) over the samples, with y = stop_gradient(x + sigma z), p the
    density of the noise, l = log p((y - x) / sigma), w = exp(l - stop_gradient(l)), and no gradient through f(x). w is
    1, and its derivatives in x are those of the likelihood ratio: derivatives of every order are unbiased, the first
    being the mean of (f(y) - f(x)) dl/dx. The baseline f(x) reduces the variance and changes no expectation.

    Args:
        fun: f, from a pytree of floating arrays to a pytree of arrays. Its own derivative is not used.
        num_samples: number of samples, evaluated together by `jax.vmap`.
        sigma: the scale of the noise, > 0; may be traced, but derivatives in sigma are not those of E f.
        noise: a distribution with `sample` and `log_prob`, such as `Gumbel()` or `Normal()`.
        use_baseline: subtract f(x) in the derivative.

    Returns:
        g(key, x), the smoothed f, of a typed random key and a pytree x: a pytree like f(x).

    Raises:
        TypeError: `fun` is not a function, `num_samples` not an int, or `sigma` not a real number.
        ValueError: num_samples < 1, or a concrete sigma that is not finite and > 0.

    Example:
        >>> smooth = make_perturbed_fun(lambda x: jnp.sign(x), 1000, 0.5, Normal())
        >>> slope = jax.grad(smooth, argnums=1)(jax.random.key(0), jnp.array(0.0))
        >>> bool(abs(slope - 1.596) < 0.2)  # 2 / (0.5 sqrt(2 pi)) in expectation
        True

    Reference: Berthet et al. 2020, "Learning with differentiable perturbed optimizers"; Foerster et al. 2018, "DiCE:
    the infinitely differentiable Monte Carlo estimator".
    """
    checks.require_function("make_perturbed_fun", "fun", fun, "jnp.argsort", optional=False)
    checks.require_positive_int("make_perturbed_fun", "num_samples", num_samples)
    checks.require_positive("make_perturbed_fun", "sigma", sigma)

    def one_sample(key: Array, x: PyTree, baseline: PyTree) -> PyTree:
        drawn = tree.random_like(key, x, sampler=noise.sample)
        y = jax.lax.stop_gradient(jax.tree.map(lambda a, z: a + jnp.asarray(sigma, a.dtype) * z, x, drawn))
        z = jax.tree.map(lambda a, b: (b - a) / jnp.asarray(sigma, a.dtype), x, y)
        log_prob = tree.sum(jax.tree.map(noise.log_prob, z))
        weight = jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))
        out = tree.scale(weight, fun(y))
        return out if baseline is None else tree.add_scale(out, 1 - weight, baseline)

    def perturbed(key: Array, x: PyTree) -> PyTree:
        arrays = jax.tree.map(jnp.asarray, x)
        baseline = fun(jax.lax.stop_gradient(arrays)) if use_baseline else None
        keys = jax.random.split(key, num_samples)
        each = jax.vmap(one_sample, in_axes=(0, None, None))(keys, arrays, baseline)
        return jax.tree.map(lambda v: jnp.mean(v, axis=0), each)

    return perturbed


if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
