"""Gradients of matrix products and convolutions: sums of outer products over the positions of an example."""

from __future__ import annotations

import abc
import dataclasses
import math
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import accumulation_dtype
from jaxnn.ops.conv import conv_weight_grads
from jaxnn.ops.patches import conv_patches
from jaxnn.tape import Convolution, Product, positions
from jaxnn.types import Array, DType, Shape

HIGHEST = lax.Precision.HIGHEST


def highest_precision() -> AbstractContextManager[Any]:
    """A context in which products without a precision of their own run at the highest."""
    # TensorFloat-32 and bfloat16 passes suffice for a gradient; their errors break a clipping norm and hide a variance.
    return jax.default_matmul_precision("highest")


class Outer(abc.ABC):
    """g_i = sum_t a_it' delta_it in each of G groups: `a` (N, T, G, d), `delta` (N, T, G, p), of one dtype.

    The parameter's entries are (d, G, p) in row-major order: a kernel (..., C_in / G, C_out).
    """

    a: Array
    delta: Array

    @property
    @abc.abstractmethod
    def examples(self) -> int:
        """N, the number of examples."""

    @property
    @abc.abstractmethod
    def times(self) -> int:
        """T, the number of positions of an example."""

    @property
    @abc.abstractmethod
    def block(self) -> Shape:
        """(G, d, p)."""

    @property
    @abc.abstractmethod
    def dtype(self) -> DType:
        """The dtype of a and delta."""

    @abc.abstractmethod
    def gradients(self) -> Array:
        """g_i, (N, G, d, p)."""

    @abc.abstractmethod
    def total(self) -> Array:
        """sum_i g_i, (G, d, p)."""

    @abc.abstractmethod
    def at_outputs(self, start: Array, size: int) -> Outer:
        """The form of outputs start to start + size - 1, start a multiple of size; gradients beyond p are 0."""

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one example."""
        return math.prod(self.block) * self.dtype.itemsize

    @property
    def bytes_each(self) -> int:
        """Bytes of the gradient of one example, its a and its delta."""
        groups, d, p = self.block
        return self.gradient_bytes + groups * self.times * (d + p) * self.dtype.itemsize

    def laid_out(self, x: Array) -> Array:
        """(..., G, d, p) flattened in the parameter's order, (..., d G p)."""
        return jnp.swapaxes(x, -3, -2).reshape(*x.shape[:-3], -1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pairs(Outer):
    """A form that stores a and delta."""

    a: Array
    delta: Array

    @property
    def examples(self) -> int:
        return self.a.shape[0]

    @property
    def times(self) -> int:
        return self.a.shape[1]

    @property
    def block(self) -> Shape:
        return (*self.a.shape[2:], self.delta.shape[-1])

    @property
    def dtype(self) -> DType:
        return self.a.dtype

    def gradients(self) -> Array:
        if self.times == 1:
            return self.a[:, 0, :, :, None] * self.delta[:, 0, :, None, :]
        return jnp.einsum("ntgd,ntgp->ngdp", self.a, self.delta, precision=HIGHEST)

    def total(self) -> Array:
        return jnp.einsum("ntgd,ntgp->gdp", self.a, self.delta, precision=HIGHEST)

    def at_outputs(self, start: Array, size: int) -> Pairs:
        return Pairs(self.a, some_outputs(self.delta, start, size))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Correlation(Outer):
    """A convolution. Its a, the patches, repeats the input up to prod(window) times: built on demand."""

    use: Convolution

    @property
    def a(self) -> Array:  # type: ignore[override]
        return conv_patches(self.use.a, self.use.window, **self._geometry).astype(self.dtype)

    @property
    def delta(self) -> Array:  # type: ignore[override]
        return self._by_group(positions(self.use.delta)).astype(self.dtype)

    @property
    def examples(self) -> int:
        return self.use.delta.shape[0]

    @property
    def times(self) -> int:
        return math.prod(self.use.delta.shape[1:-1])

    @property
    def block(self) -> Shape:
        *fan_in, c_out = self.use.shape
        return (self.use.groups, math.prod(fan_in), c_out // self.use.groups)

    @property
    def dtype(self) -> DType:
        return accumulation_dtype(self.use.a.dtype, self.use.delta.dtype)

    def gradients(self) -> Array:
        a, delta = self.use.a.astype(self.dtype), self.use.delta.astype(self.dtype)
        with highest_precision():
            grads = self._by_group(conv_weight_grads(a, delta, self.use.window, **self._geometry))
        return jnp.swapaxes(grads.reshape(self.examples, -1, *grads.shape[-2:]), 1, 2)

    def total(self) -> Array:
        with highest_precision():
            grad = self._by_group(self.use.grad())
        return jnp.swapaxes(grad.reshape(-1, *grad.shape[-2:]), 0, 1)

    def at_outputs(self, start: Array, size: int) -> Correlation:
        delta = some_outputs(self._by_group(self.use.delta), start, size)
        return Correlation(dataclasses.replace(self.use, delta=delta.reshape(*delta.shape[:-2], -1)))

    def _by_group(self, x: Array) -> Array:
        """(..., G p) as (..., G, p)."""
        return x.reshape(*x.shape[:-1], self.use.groups, -1)

    @property
    def _geometry(self) -> dict[str, Any]:
        return {name: getattr(self.use, name) for name in ("stride", "padding", "dilation", "groups")}


def some_outputs(delta: Array, start: Array, size: int) -> Array:
    """delta (..., p) at outputs start to start + size - 1, start a multiple of size; 0 beyond p."""
    short = -delta.shape[-1] % size
    wide = jnp.pad(delta, [(0, 0)] * (delta.ndim - 1) + [(0, short)])
    return lax.dynamic_slice_in_dim(wide, start, size, axis=delta.ndim - 1)


def of_product(use: Product) -> Pairs:
    """The form of a matrix product, one group."""
    dtype = accumulation_dtype(use.a.dtype, use.delta.dtype)
    return Pairs(use.a[:, :, None].astype(dtype), use.delta[:, :, None].astype(dtype))


def end_to_end(found: list[Outer]) -> Pairs:
    """Forms of one block shape as one, their positions concatenated."""
    return Pairs(*(jnp.concatenate([getattr(form, name) for form in found], axis=1) for name in ("a", "delta")))
