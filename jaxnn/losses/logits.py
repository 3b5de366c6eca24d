"""Logits of an output layer, z = a w + b, and their softmax cross-entropy, formed a chunk of classes at a time.

With log-sum-exp l_t = log sum_v e^z_tv, label y_t and smoothing s, the loss of a position and its derivative are

    C_t = l_t - (1 - s) z_ty - s / V sum_v z_tv
    dC_t/dz_tv = e^(z_tv - l_t) - q_tv,   q_tv = (1 - s) [v = y_t] + s / V

so that, once all l_t are known, every chunk of dC/dz follows from its chunk of z. One pass over the classes finds l_t,
by a running maximum and sum; a second one multiplies each chunk of dC/dz before the next is formed.

Reference: Milakov, M. & Gimelshein, N. (2018). Online normalizer calculation for softmax, algorithm 3. Wijmans, E.,
Huval, B., Hertzberg, A., Koltun, V. & Krähenbühl, P. (2025). Cut your losses in large-vocabulary language models,
section 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.numerics import Precision, accumulate, accumulation_dtype, dot_general
from jaxnn.types import Array, DType, Shape
from jaxnn.varying import vary, varying_axes

Tree = TypeVar("Tree")

CHUNK = 2048
"""Classes in a chunk by default: 8 KiB of logits for each position. On 2 CPU cores, of 1,024 positions of 256 features
and 32,768 classes, value and gradients took the same time to 8% in chunks of 512 to 4,096, and four times as long from
logits. One loop over positions, which adds up the gradient of w, saves a product of four, and took as long."""

ALIGNED = 128
"""Chunks are a multiple of so many classes where they may be: the width of tiles on accelerators."""


def chunk_size(classes: int, chunk: int) -> int:
    """The size of equal chunks of at most `chunk` classes; the last one overlaps the one before it.

    Example:
        >>> chunk_size(50_257, 2000), chunk_size(50_257, 2048), chunk_size(10, 4)
        (1933, 2048, 4)
    """
    equal = math.ceil(classes / math.ceil(classes / chunk))
    aligned = math.ceil(equal / ALIGNED) * ALIGNED
    return aligned if aligned <= min(chunk, classes) else equal


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Logits:
    """z = a w + b of V classes, in chunks of `size`.

    Attributes:
        a: inputs (..., D).
        w: (D, V), or (V, D) with class_axis 0.
        b: (V,), (N, V) for a of shape (N, T, D), or None.
        class_axis: the axis of w that counts classes.
        size: classes in a chunk.
    """

    a: Array
    w: Array
    b: Array | None = None
    class_axis: int = dataclasses.field(default=1, metadata={"static": True})
    size: int = dataclasses.field(default=CHUNK, metadata={"static": True})

    @property
    def classes(self) -> int:
        """V."""
        return self.w.shape[self.class_axis]

    @property
    def count(self) -> int:
        """The number of chunks."""
        return math.ceil(self.classes / self.size)

    @property
    def overlaps(self) -> bool:
        """Whether the last chunk holds classes of the one before it."""
        return self.classes % self.size != 0

    @property
    def dtype(self) -> DType:
        """The dtype of logits and sums."""
        return accumulation_dtype(self.a.dtype, self.w.dtype)

    @property
    def operand_dtype(self) -> DType:
        """The dtype in which their cotangents are multiplied: half precision where a and w are."""
        return jnp.promote_types(self.a.dtype, self.w.dtype)

    def start(self, c: Array) -> Array:
        """The first class of chunk c."""
        return jnp.minimum(c * self.size, self.classes - self.size)

    def of_chunk(self, x: Array, c: Array, axis: int) -> Array:
        """The classes of chunk c of an array with V classes on an axis."""
        return x if self.count == 1 else lax.dynamic_slice_in_dim(x, self.start(c), self.size, axis % x.ndim)

    def fresh(self, c: Array, like: Array) -> Array:
        """Which classes of chunk c, the last axis of `like`, are in no chunk before it."""
        place = lax.broadcasted_iota(jnp.int32, like.shape, like.ndim - 1)
        return place >= c * self.size - self.start(c)

    def at(self, c: Array) -> Array:
        """The logits (..., size) of chunk c; -inf at classes of the chunk before it."""
        z = self.product(self.a, self.w, c)
        if self.b is not None:
            b = self.of_chunk(self.b, c, -1).astype(z.dtype)
            z = z + b.reshape(*b.shape[:-1], *(1,) * (z.ndim - b.ndim), self.size)
        return z if not self.overlaps else jnp.where(self.fresh(c, z), z, jnp.asarray(-jnp.inf, z.dtype))

    def product(self, a: Array, w: Array, c: Array) -> Array:
        """a w at chunk c, for any arrays shaped as a and w."""
        # Merged: with several axes of positions XLA transposes a copy of delta for the gradient of w, on a CPU.
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        z = dot_general(rows, self.of_chunk(w, c, self.class_axis), self._contracted)
        return z.reshape(*a.shape[:-1], self.size)

    def tangent(self, a: Array, w: Array, c: Array) -> Array:
        """`product` as a linear function of a or w, whose transposes multiply bfloat16 cotangents where the a and w of
        the logits are bfloat16: float32 ones would take twice as long on tensor cores."""
        if not self.a.dtype == self.w.dtype == jnp.bfloat16:
            return self.product(a, w, c)
        part = self.of_chunk(w, c, self.class_axis)
        change = lax.dot_general(
            a.astype(jnp.bfloat16), part, self._contracted, preferred_element_type=jnp.dtype(jnp.bfloat16)
        )
        return change.astype(self.dtype)

    @property
    def _contracted(self) -> Any:
        return (((1,), (1 - self.class_axis,)), ((), ()))

    def zeros(self, shape: Shape) -> Array:
        """Zeros for the carry of a loop over chunks, in `dtype`; they vary over mesh axes as the logits do."""
        return vary(jnp.zeros(shape, self.dtype), varying_axes(self.a, self.w))

    def scan(self, f: Callable[[Tree, Array], tuple[Tree, Any]], carry: Tree) -> tuple[Tree, Any]:
        """`lax.scan` of f over the numbers of the chunks; without a loop if there is one chunk."""
        if self.count > 1:
            return lax.scan(f, carry, jnp.arange(self.count, dtype=jnp.int32))
        carry, found = f(carry, jnp.int32(0))
        return carry, jax.tree.map(lambda x: x[None], found)


def with_axes(x: Array, ndim: int) -> Array:
    """x with axes of size 1 behind its own."""
    return x.reshape(*x.shape, *(1,) * (ndim - x.ndim))


def targets_of(logits: Logits, labels: Array, smoothing: Array | None, c: Array, like: Array) -> Array:
    """q of chunk c, (..., size): (1 - s) at the label, and s / V; 0 at classes of the chunk before it.

    Labels (...) outside [0, V) are no class; smoothing s is a number, (N,) of the first axis of labels, or None."""
    place = lax.broadcasted_iota(labels.dtype, like.shape, like.ndim - 1)
    hit = (labels - logits.start(c).astype(labels.dtype))[..., None] == place
    seen = hit if not logits.overlaps else hit & logits.fresh(c, like)
    q = seen.astype(like.dtype)
    if smoothing is None:
        return q
    s, other = with_axes(smoothing.astype(like.dtype), like.ndim), jnp.asarray(1 / logits.classes, like.dtype)
    spread = jnp.ones_like(q) if not logits.overlaps else logits.fresh(c, like).astype(q.dtype)
    return (1 - s) * q + s * other * spread


def log_sums(logits: Logits, labels: Array, smoothing: Array | None = None) -> tuple[Array, Array]:
    """(C_t, l_t), each (...): the losses of all positions and their log-sum-exps, in one pass over the classes."""

    def add(carry: tuple[Array, Array, Array], c: Array) -> tuple[tuple[Array, Array, Array], None]:
        most, total, expected = carry
        z = logits.at(c)
        more = jnp.maximum(most, lax.stop_gradient(jnp.max(z, axis=-1)))
        # All logits so far may be -inf.
        shift = jnp.where(more == -jnp.inf, jnp.zeros_like(more), more)
        total = total * jnp.exp(most - shift) + jnp.sum(jnp.exp(z - shift[..., None]), axis=-1)
        return (more, total, expected + _expected(logits, labels, smoothing, c, z)), None

    zeros = logits.zeros(labels.shape)
    step = jax.checkpoint(add, prevent_cse=False)
    (most, total, expected), _ = logits.scan(step, (zeros - jnp.inf, zeros, zeros))
    sums = jnp.log(total) + jnp.where(most == -jnp.inf, zeros, most)
    return sums - expected, sums


def _expected(logits: Logits, labels: Array, smoothing: Array | None, c: Array, z: Array) -> Array:
    """sum_v q_v z_v over the classes of chunk c that are in none before it, (...)."""
    # Picked, not multiplied by q: on a GPU that would read all of z once more, from memory.
    first, start = (x.astype(labels.dtype) for x in (c * logits.size, logits.start(c)))
    place = labels - start
    there = (labels >= first) & (place < logits.size)
    index = jnp.clip(place, 0, logits.size - 1)[..., None]
    at_label = jnp.where(there, jnp.take_along_axis(z, index, axis=-1)[..., 0], jnp.zeros((), z.dtype))
    if smoothing is None:
        return at_label
    s = with_axes(smoothing.astype(z.dtype), at_label.ndim)
    spread = z if not logits.overlaps else jnp.where(logits.fresh(c, z), z, jnp.zeros_like(z))
    return (1 - s) * at_label + s / logits.classes * jnp.sum(spread, axis=-1)


def error_at(logits: Logits, labels: Array, sums: Array, smoothing: Array | None, share: Array, c: Array) -> Array:
    """share_t (e^(z - l) - q) of chunk c, (..., size), in the operands' dtype: the cotangent of the logits where that
    of C_t is share_t. Exactly 0 where share_t is 0."""
    z = logits.at(c)
    p = jnp.exp(z - sums.astype(z.dtype)[..., None])
    g = share.astype(z.dtype)[..., None]
    delta = g * (p - targets_of(logits, labels, smoothing, c, z))
    return jnp.where(g == 0, jnp.zeros_like(delta), delta).astype(logits.operand_dtype)


def input_grad(logits: Logits, delta: Array, c: Array) -> Array:
    """The part of dC/da, (..., D), from chunk c of delta, in the accumulation dtype."""
    rows, w = delta.reshape(-1, logits.size), logits.of_chunk(logits.w, c, logits.class_axis)
    found = dot_general(rows, w, (((1,), (logits.class_axis,)), ((), ())))
    return found.reshape(logits.a.shape)


def weight_grad(logits: Logits, delta: Array, precision: Precision = None) -> Array:
    """dC/dw at a chunk of classes, from its delta: (D, size), or (size, D), in the accumulation dtype."""
    rows = logits.a.reshape(-1, logits.a.shape[-1]), delta.reshape(-1, logits.size)
    x, y = rows if logits.class_axis == 1 else rows[::-1]
    return dot_general(x, y, (((0,), (0,)), ((), ())), precision)


def bias_grad(logits: Logits, delta: Array) -> Array:
    """dC/db at a chunk of classes, (size,) or (N, size): the sum of delta over the axes that b lacks."""
    ndim = 1 if logits.b is None else logits.b.ndim
    return jnp.sum(accumulate(delta), axis=tuple(range(ndim - 1, delta.ndim - 1)))


def put(logits: Logits, whole: Array, part: Array, c: Array, axis: int) -> Array:
    """`whole`, with V classes on an axis, plus `part` at the classes of chunk c."""
    if logits.count == 1:
        return whole + part
    axis = axis % whole.ndim
    return lax.dynamic_update_slice_in_dim(whole, logits.of_chunk(whole, c, axis) + part, logits.start(c), axis)


def smoothing_grad(logits: Logits, labels: Array, share: Array) -> Array:
    """dC/ds of the smoothing s of each example, (N,), for labels (N, T): the sum of share_t (z_ty - mean_v z_tv)."""
    table, labels = logits.w if logits.class_axis == 0 else logits.w.T, jnp.clip(labels, 0, logits.classes - 1)
    a, dtype = logits.a.astype(logits.dtype), logits.dtype
    at_label = jnp.sum(a * table[labels].astype(dtype), axis=-1)
    mean = dot_general(a, jnp.mean(table.astype(dtype), axis=0), (((a.ndim - 1,), (0,)), ((), ())))
    if logits.b is not None:
        b = logits.b.astype(dtype)
        at_label, mean = at_label + jnp.take_along_axis(b, labels, axis=-1), mean + jnp.mean(b, axis=-1, keepdims=True)
    return jnp.sum(share * (at_label - mean), axis=-1)


def gradients(
    logits: Logits, labels: Array, sums: Array, smoothing: Array | None, share: Array, *, of_matrix: bool = True
) -> tuple[Array, Array | None, Array | None]:
    """(dC/da, dC/dw, summed over positions, dC/db), in the accumulation dtype, in one loop over the chunks."""
    Sums = tuple[Array, Array | None, Array | None]

    def add(carry: Sums, c: Array) -> tuple[Sums, None]:
        of_a, of_w, of_b = carry
        delta = error_at(logits, labels, sums, smoothing, share, c)
        if of_w is not None:
            of_w = put(logits, of_w, weight_grad(logits, delta), c, logits.class_axis)
        if of_b is not None:
            of_b = put(logits, of_b, bias_grad(logits, delta), c, -1)
        return (of_a + input_grad(logits, delta, c), of_w, of_b), None

    of_w = logits.zeros(logits.w.shape) if of_matrix else None
    of_b = None if logits.b is None else logits.zeros(logits.b.shape)
    return logits.scan(add, (logits.zeros(logits.a.shape), of_w, of_b))[0]
