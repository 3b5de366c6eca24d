"""Optimizer states in 8 bits: int8 codes with one scale for each block of 256 entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.checks import require_floating
from jaxnn.numerics import largest, safe_sqrt
from jaxnn.optim.base import Optimizer, Transformation, call_update
from jaxnn.optim.chain import require_transformation
from jaxnn.optim.inner import init_inner, seen_by
from jaxnn.optim.keys import given_key, typed_key
from jaxnn.optim.spec import specified
from jaxnn.placement import compiler_sharded, evenly
from jaxnn.types import Array, Key, Params, PyTree, Shape

LEVELS = 127
NOT_FINITE = -128
"""The code of an infinite or NaN entry; the other 255 codes are symmetric."""


class QuantizedState(NamedTuple):
    """`inner_state`: of the optimizer, int8 codes in place of its large moments; `scales`: of their blocks; `key`.

    `scales` has the structure of `inner_state`, with None where a leaf is not quantized. `key` is raw data of the
    random key of the next step, None if rounding is to nearest.
    """

    inner_state: Any
    scales: PyTree
    key: Array | None


@specified
def quantized_state(
    opt: Transformation,
    *,
    key: Key | None = None,
    fields: str | Sequence[str] = ("mu", "nu", "trace"),
    block_size: int = 256,
    min_size: int = 4096,
) -> Optimizer:
    """Keep an optimizer's moments in 8 bits between steps; each step is computed in full precision.

    Each block of entries x of a moment is stored as codes c, from -127 to 127, and one scale:
    scale = max |x|;   x ~ sign(c) (|c| / 127)^4 scale

    The largest entry of a block is exact; the levels are 3% of it apart near it and denser towards 0, the smallest
    being 4e-9 of it. A nonzero entry never becomes 0, or Adam would divide by eps. The paper has a table of levels,
    decimal exponents with linear fractions; the fourth power has a similar range and needs no table.

    Rounding is to nearest, as in the paper. Changes that are small against the largest entry of the block are then
    lost: where one gradient vanishes and its neighbours' do not, mu and nu do not decay. With a key, rounding is
    stochastic and unbiased, and moments decay as they should.

    Args:
        opt: the optimizer to wrap; ours or optax's.
        key: random key, typed or raw, or integer, for stochastic rounding; None rounds to nearest.
        fields: names of the state's fields to quantize: moments, never copies of parameters.
        block_size: entries that share a scale; a float32 moment takes 1 + 4 / block_size bytes an entry instead of 4.
        min_size: leaves with fewer entries are not quantized.

    Raises:
        ValueError: `block_size` below 1; at init, a state without any of the fields.

    Reference: Dettmers, T., Lewis, M., Shleifer, S. & Zettlemoyer, L. (2022). 8-bit optimizers via block-wise
        quantization, sections 1.2 and 2.

    Example:
        >>> from jaxnn import optim
        >>> opt = quantized_state(optim.adam(1e-3))
        >>> state = jax.jit(opt.init)({"w": jnp.ones((64, 64)), "b": jnp.ones(64)})
        >>> state.inner_state.mu["w"].dtype, state.inner_state.mu["b"].dtype, state.scales.mu["w"].shape
        (dtype('int8'), dtype('float32'), (16,))
    """
    require_transformation("quantized_state", "opt", opt)
    first = None if key is None else given_key("quantized_state", key)
    fields = (fields,) if isinstance(fields, str) else tuple(fields)
    if block_size < 1:
        raise ValueError(f"quantized_state: block_size must be at least 1, got {block_size}. 256 is usual.")

    def names(path: Any) -> set[str]:
        return {entry.name for entry in path if hasattr(entry, "name")}

    def kept(path: Any, x: Any) -> bool:
        return not names(path).isdisjoint(fields) and x.size >= min_size and jnp.issubdtype(x.dtype, jnp.floating)

    def compress(inner: Any, key: Key | None) -> QuantizedState:
        following, drawing = (None, None) if key is None else jax.random.split(key)
        data = None if following is None else jax.random.key_data(following)
        paths, structure = jax.tree_util.tree_flatten_with_path(inner)
        pairs: list[tuple[Array, Array | None]] = []
        for i, (path, x) in enumerate(paths):
            if kept(path, x):
                pairs.append(quantize(x, block_size, None if drawing is None else jax.random.fold_in(drawing, i)))
            else:
                pairs.append((x, None))
        leaves, scales = ([pair[i] for pair in pairs] for i in (0, 1))
        return QuantizedState(jax.tree.unflatten(structure, leaves), jax.tree.unflatten(structure, scales), data)

    def expand(state: QuantizedState) -> Any:
        def leaf(x: Array, scale: Array | None) -> Array:
            return x if scale is None else dequantize(x, scale, block_size)

        structure: Any
        leaves, structure = jax.tree.flatten(state.inner_state)
        return jax.tree.unflatten(structure, map(leaf, leaves, structure.flatten_up_to(state.scales)))

    def init(params: Params) -> QuantizedState:
        inner = init_inner(opt, params)
        known = set().union(*(names(path) for path, _ in jax.tree_util.tree_leaves_with_path(inner)))
        if known.isdisjoint(fields) and jax.tree.leaves(params):  # without parameters no field is seen
            raise ValueError(
                f"quantized_state: the state of this optimizer has none of the fields {fields}, so nothing would be "
                f"stored in 8 bits; its fields are {sorted(known)}. Name its moments: fields=(...)."
            )
        return compress(inner, first)

    def update(
        updates: PyTree, state: QuantizedState, params: Params | None = None, **extra: Any
    ) -> tuple[PyTree, QuantizedState]:
        updates, inner = call_update(opt, seen_by(opt, updates), expand(state), seen_by(opt, params), extra)
        return updates, compress(inner, None if first is None or state.key is None else typed_key(state.key, first))

    return Optimizer(init, update)


def quantize(x: Array, block_size: int = 256, key: Key | None = None) -> tuple[Array, Array]:
    """(int8 codes in the shape of x, a vector of the scales of its blocks, in row-major order and in the dtype of x).

    `quantized_state` has the equation. Entries that are not finite are left out of the scale and have their own code,
    which stands for NaN.

    Args:
        x: real floating array of any shape.
        block_size: entries that share a scale; the last block may be shorter.
        key: for stochastic rounding, unbiased except below the smallest level; None rounds to nearest.

    Raises:
        TypeError: x is not real and floating.

    Example:
        >>> jax.jit(quantize, static_argnums=1)(jnp.array([1.0, 0.5, 0.01, 0.0, -4.0]), 4)
        (Array([ 127,  107,   40,    0, -127], dtype=int8), Array([1., 4.], dtype=float32))
    """
    require_floating("quantize", "x", jnp.result_type(x))
    x = jnp.asarray(x)
    like = (x, evenly(-(-x.size // block_size), [x]))
    return compiler_sharded(lambda x, key: _quantized(x, block_size, key), like, x, key)


def _quantized(x: Array, block_size: int, key: Key | None) -> tuple[Array, Array]:
    """`quantize` inside `compiler_sharded`."""
    finite = jnp.isfinite(x)
    x = jnp.where(finite, x, jnp.zeros_like(x))
    blocks = jnp.pad(x.reshape(-1), (0, -x.size % block_size)).reshape(-1, block_size)
    scales = largest(jnp.abs(blocks), 1)
    # Everything but the scales has the shape of x, so that the compiler shards the codes as it shards x.
    scale = _spread(scales, x.shape, block_size)
    ratio = jnp.abs(x) / jnp.where(scale == 0, jnp.ones_like(scale), scale)
    code = LEVELS * safe_sqrt(safe_sqrt(ratio))
    if key is None:
        code = jnp.round(code)
    else:
        low = jnp.floor(code)
        up = jax.random.uniform(key, ratio.shape, ratio.dtype)
        code = low + (up * (_level(low + 1) - _level(low)) < ratio - _level(low)).astype(low.dtype)
    signed = jnp.sign(x) * jnp.clip(code, 1, LEVELS)
    return jnp.where(finite, signed, jnp.full_like(signed, NOT_FINITE)).astype(jnp.int8), scales


def dequantize(codes: Array, scales: Array, block_size: int = 256) -> Array:
    """The numbers that `quantize`'s codes and scales, of the same block_size, stand for; in the dtype of the scales.

    Example:
        >>> there_and_back = jax.jit(lambda x: dequantize(*quantize(x, 4), 4))
        >>> there_and_back(jnp.array([1.0, 0.5, 0.01, 0.0, -4.0]))
        Array([ 1.        ,  0.50387204,  0.00984068,  0.        , -4.        ],      dtype=float32)
    """

    def expanded(codes: Array, scales: Array) -> Array:
        levels = codes.astype(scales.dtype)
        values = jnp.sign(levels) * _level(jnp.abs(levels)) * _spread(scales, codes.shape, block_size)
        return jnp.where(codes == NOT_FINITE, jnp.full_like(values, jnp.nan), values)

    return compiler_sharded(expanded, codes, codes, scales)


def _spread(scales: Array, shape: Shape, block_size: int) -> Array:
    """The scale of each entry's block, in this shape."""
    return jnp.broadcast_to(scales[:, None], (len(scales), block_size)).reshape(-1)[: math.prod(shape)].reshape(shape)


def _level(code: Array) -> Array:
    """The fraction of the scale that a code stands for."""
    root = code / LEVELS
    return (root * root) * (root * root)
