"""Square roots of the losses' Hessians with respect to the outputs, exact and sampled, for Gauss-Newton and KFAC.

H_i = d^2 loss_i / dy^2 is the Hessian of example i's loss with respect to its outputs. A root S_i has S_i S_i' = H_i;
its columns, backpropagated as cotangents of the outputs, give the generalized Gauss-Newton matrix
J' H J = (J' S)(J' S)' (J the Jacobian of the outputs). A sampled cotangent s (`sampled_error_of`) has E[s s'] = H_i.

| loss | root S | sampled cotangent |
|---|---|---|
| `softmax_cross_entropy` | diag(sqrt p) - p sqrt(p)', p = softmax(z) | p - e_k, label k ~ p |
| `sigmoid_binary_cross_entropy` | diag(sqrt(p (1 - p))), p = sigmoid(z) | p - d, d ~ Bernoulli(p) |
| `half_squared_error` | I | a standard normal |
| `sum_squared_error` | sqrt(2) I | sqrt(2) times a standard normal |
| `mse`, over K outputs | sqrt(2 / K) I | sqrt(2 / K) times a standard normal |
| any other | from the eigenvectors of its Hessian by `jax.hessian`, negative eigenvalues as 0 | S times random signs |

Root and sample of `softmax_cross_entropy` are multiplied by sqrt(weight of the position) (`softmax.probabilities`).
The first five are, up to scale, negative log-likelihoods in natural parameters: labels sampled from the model give s,
and H is the Fisher information of the outputs, which depends on the targets through those weights only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxnn.losses import binary, regression, softmax
from jaxnn.losses.base import as_outputs, as_pair, entries_per_example
from jaxnn.placement import beside
from jaxnn.types import Array, Key, Loss

Root: TypeAlias = Callable[..., Array]
"""(outputs (N, ...), targets) -> columns (C, N, ...)."""

Sample: TypeAlias = Callable[..., Array]
"""(key, outputs (N, ...), targets) -> a cotangent (N, ...)."""


def _softmax_root(outputs: Array, targets: Array, **settings: Any) -> Array:
    p, share = softmax.probabilities(outputs, targets, **settings)
    (n, times, classes), half = p.shape, jnp.sqrt(p)
    eye = jnp.eye(classes, dtype=p.dtype)
    blocks = (half[..., None] * eye[None, None] - p[..., None] * half[..., None, :]) * jnp.sqrt(share)[..., None, None]
    # Positions are independent: a column belongs to one position and is 0 at the others.
    apart = blocks[:, :, :, None, :] * jnp.eye(times, dtype=p.dtype)[None, :, None, :, None]
    return jnp.moveaxis(apart.reshape(n, times, classes, -1), -1, 0).reshape(-1, *jnp.shape(outputs))


def _softmax_sample(key: Key, outputs: Array, targets: Array, **settings: Any) -> Array:
    p, share = softmax.probabilities(outputs, targets, **settings)
    labels = jax.random.categorical(key, jnp.log(p), axis=-1)
    drawn = jax.nn.one_hot(labels, p.shape[-1], dtype=p.dtype)
    return ((p - drawn) * jnp.sqrt(share)[..., None]).reshape(jnp.shape(outputs))


def _bernoulli(outputs: Array, targets: Array) -> Array:
    z, _, _ = as_pair("sigmoid_binary_cross_entropy", outputs, targets)
    return jax.nn.sigmoid(z)


def _bernoulli_root(outputs: Array, targets: Array) -> Array:
    p = _bernoulli(outputs, targets)
    return _diagonal(jnp.sqrt(p * jax.nn.sigmoid(-as_outputs("sigmoid_binary_cross_entropy", outputs)[0])))


def _bernoulli_sample(key: Key, outputs: Array, targets: Array) -> Array:
    p = _bernoulli(outputs, targets)
    return p - jax.random.bernoulli(key, p).astype(p.dtype)


def _squares(scale: Callable[[Array], float], outputs: Array, targets: Array) -> Array:
    y, _, _ = as_pair("half_squared_error", outputs, targets)
    return jnp.full_like(y, scale(y) ** 0.5)


def _squares_root(scale: Callable[[Array], float], outputs: Array, targets: Array) -> Array:
    return _diagonal(_squares(scale, outputs, targets))


def _squares_sample(scale: Callable[[Array], float], key: Key, outputs: Array, targets: Array) -> Array:
    root = _squares(scale, outputs, targets)
    return root * jax.random.normal(key, root.shape, root.dtype)


def _one(y: Array) -> float:
    return 1.0


def _two(y: Array) -> float:
    return 2.0


def _mean(y: Array) -> float:
    return 2.0 / entries_per_example(y)


def _diagonal(root: Array) -> Array:
    """(N, ...) -> (C, N, ...): column c is nonzero only at the c-th output."""
    flat = root.reshape(root.shape[0], -1)
    eye = jnp.eye(flat.shape[1], dtype=root.dtype)
    return (eye[:, None, :] * flat[None]).reshape(-1, *root.shape)


_LIKELIHOODS: MappingProxyType[Any, tuple[Root, Sample]] = MappingProxyType(
    {
        softmax.softmax_cross_entropy: (_softmax_root, _softmax_sample),
        binary.sigmoid_binary_cross_entropy: (_bernoulli_root, _bernoulli_sample),
        regression.half_squared_error: (
            functools.partial(_squares_root, _one),
            functools.partial(_squares_sample, _one),
        ),
        regression.sum_squared_error: (
            functools.partial(_squares_root, _two),
            functools.partial(_squares_sample, _two),
        ),
        regression.mse: (functools.partial(_squares_root, _mean), functools.partial(_squares_sample, _mean)),
    }
)
"""The losses of the table above whose Hessian is a Fisher information."""


def is_likelihood(loss: Loss) -> bool:
    """Whether the loss is one of the first five of the table in `losses.roots`: H is a Fisher information.

    A loss in `functools.partial` counts; other likelihoods, e.g. `gaussian_nll`, do not.

    Example:
        >>> from jaxnn.losses import hinge, mse
        >>> is_likelihood(mse), is_likelihood(hinge)
        (True, False)
    """
    return _unwrapped(loss)[0] in _LIKELIHOODS


def hessian_root_of(loss: Loss) -> Root:
    """S with S S' = H per example, as a function (outputs (N, ...), targets) -> columns (C, N, ...).

    C is the number of outputs of an example. Settings bound by `functools.partial` apply. Negative eigenvalues of an
    indefinite Hessian count as 0. Columns are float32 (float64 for float64 outputs).

    Example:
        >>> from jaxnn.losses import half_squared_error
        >>> hessian_root_of(half_squared_error)(jnp.zeros((1, 2)), jnp.zeros((1, 2)))[:, 0]
        Array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    function, settings = _unwrapped(loss)
    if function in _LIKELIHOODS:
        return functools.partial(_LIKELIHOODS[function][0], **settings)
    return functools.partial(_root_by_eigenvectors, loss)


def sampled_error_of(loss: Loss) -> Sample:
    """A random cotangent s with E[s s'] = H per example, as a function (key, outputs (N, ...), targets) -> (N, ...).

    s is float32 (float64 for float64 outputs). Negative eigenvalues count as 0, as for `hessian_root_of`.

    Example:
        >>> from jaxnn.losses import softmax_cross_entropy
        >>> s = sampled_error_of(softmax_cross_entropy)(jax.random.key(0), jnp.zeros((1, 2)), jnp.array([0]))
        >>> jnp.abs(s)
        Array([[0.5, 0.5]], dtype=float32)
    """
    function, settings = _unwrapped(loss)
    if function in _LIKELIHOODS:
        return functools.partial(_LIKELIHOODS[function][1], **settings)

    def signed(key: Key, outputs: Array, targets: Array) -> Array:
        columns = _root_by_eigenvectors(loss, outputs, targets)
        signs = jax.random.rademacher(key, columns.shape[:2], columns.dtype)
        return jnp.sum(signs.reshape(*signs.shape, *(1,) * (columns.ndim - 2)) * columns, axis=0)

    return signed


def _root_by_eigenvectors(loss: Loss, outputs: Array, targets: Array) -> Array:
    y, dtype = as_outputs("hessian_root_of", outputs)
    flat = y.astype(dtype).reshape(y.shape[0], -1)

    def of_one(y: Array, d: Array) -> Array:
        hessian = jax.hessian(lambda v: loss(v.reshape(1, *outputs.shape[1:]), d[None])[0])(y)
        values, vectors = jnp.linalg.eigh(hessian)
        return vectors * jnp.sqrt(jnp.maximum(values, jnp.zeros_like(values)))[None, :]

    roots = jax.vmap(of_one)(flat, beside(jnp.asarray(targets), y))  # (N, K, C)
    return jnp.moveaxis(roots, -1, 0).reshape(-1, *outputs.shape)


def _unwrapped(loss: Loss) -> tuple[Any, dict[str, Any]]:
    """The function inside `functools.partial`s, and the settings that they bind."""
    function: Any = loss
    settings: dict[str, Any] = {}
    while isinstance(function, functools.partial) and not function.args:
        function, settings = function.func, {**function.keywords, **settings}
    return function, settings
