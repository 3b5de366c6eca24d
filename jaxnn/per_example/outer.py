"""Gradients of matrix products and convolutions: sums of outer products over the positions of an example."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import EXACT, accumulation_dtype, exact_einsum
from jaxnn.ops.conv import conv_weight_grads
from jaxnn.ops.patches import conv_patches
from jaxnn.tape import Convolution, Product, positions
from jaxnn.types import Array, DType, Shape


class Outer(abc.ABC):
    """g_i = sum_t a_it' delta_it in each of G groups: `a` (N, T, G, d), `delta` (N, T, G, p), in the tape's dtypes.

    Half precision is stored as it is: `numerics.exact_einsum` multiplies it, element-wise arithmetic is in `dtype`. The
    parameter's entries are (d, G, p) in row-major order: a kernel (..., C_in / G, C_out).
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
        """The accumulation dtype of a and delta, that of the gradients."""

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
        return accumulation_dtype(self.a.dtype, self.delta.dtype)

    def gradients(self) -> Array:
        if self.times == 1:
            a, delta = self.a.astype(self.dtype), self.delta.astype(self.dtype)
            return a[:, 0, :, :, None] * delta[:, 0, :, None, :]
        return exact_einsum("ntgd,ntgp->ngdp", self.a, self.delta)

    def total(self) -> Array:
        return exact_einsum("ntgd,ntgp->gdp", self.a, self.delta)

    def at_outputs(self, start: Array, size: int) -> Pairs:
        return Pairs(self.a, some_outputs(self.delta, start, size))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Correlation(Outer):
    """A convolution. Its a, the patches, repeats the input up to prod(window) times: built on demand."""

    use: Convolution

    @property
    def a(self) -> Array:  # type: ignore[override]
        return conv_patches(self.use.a, self.use.window, **self._geometry)

    @property
    def delta(self) -> Array:  # type: ignore[override]
        return self._by_group(positions(self.use.delta))

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
        use = self.use
        grads = self._by_group(conv_weight_grads(use.a, use.delta, use.window, **self._geometry, precision=EXACT))
        return jnp.swapaxes(grads.reshape(self.examples, -1, *grads.shape[-2:]), 1, 2)

    def total(self) -> Array:
        grad = self._by_group(self.use.grad(precision=EXACT))
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
    return Pairs(use.a[:, :, None], use.delta[:, :, None])


def end_to_end(found: list[Outer]) -> Pairs:
    """Forms of one block shape as one, their positions concatenated; of different dtypes, in the widest's."""

    def joined(parts: list[Array]) -> Array:
        same = len({part.dtype for part in parts}) == 1
        wide = parts[0].dtype if same else accumulation_dtype(*(part.dtype for part in parts))
        return jnp.concatenate([part.astype(wide) for part in parts], axis=1)

    return Pairs(joined([form.a for form in found]), joined([form.delta for form in found]))
