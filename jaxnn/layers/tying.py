"""Tied parameters: one parameter at several places of a network."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.checks import require_floating
from jaxnn.layers import embedding
from jaxnn.layers.base import Kind, Layer, param, require_net
from jaxnn.ops.matmul import linear_input_grad
from jaxnn.types import Array, Key, Params, State

TIED, UNEMBEDDING = Kind("tied"), Kind("unembedding")


def tied(layer: Layer) -> Layer:
    """The parameters of `layer` at another place of the same network; of an `Embedding`, as the output matrix.

    The pytree of parameters holds them once, where `layer` itself stands; here it has `()`. Their gradient is the sum
    over both places. Tied to an `Embedding` with w (V, D), the layer maps features h to logits,

        z = h w',   (N, ..., D) -> (N, ..., V).

    Tied to any other layer, it is that layer again (with running statistics and random numbers of its own).

    Args:
        layer: a part, at any depth, of the network in which the result stands. The innermost `serial` (or
            encoder-decoder network) that contains both hands the parameters over; where `layer` stands several times,
            those of the first.

    Raises:
        TypeError: `layer` is not a Layer.
        ValueError: when initialised or applied: no network around it contains `layer`.

    Reference: Press, O. & Wolf, L. (2017). Using the output embedding to improve language models, section 3.

    Example:
        >>> from jaxnn.layers import Embedding
        >>> from jaxnn.models import serial
        >>> embed = Embedding(7, 4)
        >>> net = serial(embed, tied(embed))
        >>> params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((5,), jnp.int32))
        >>> jax.tree.map(jnp.shape, params), net.predict(params, state, jnp.zeros((2, 5), jnp.int32)).shape
        (({'w': (7, 4)}, ()), (2, 5, 7))
    """
    require_net("tied", layer)
    kind = UNEMBEDDING if layer.kind is embedding.KIND else TIED

    def init(key: Key, example: Any) -> tuple[Params, State]:
        return (), () if kind is UNEMBEDDING else layer.init(key, example)[1]

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        if isinstance(params, tuple) and not params and (kind is UNEMBEDDING or _has_parameters(layer, x)):
            raise ValueError(
                f"tied: no network around this layer contains the {layer.kind.name} layer that it is tied to. Put both "
                "into one models.serial(...), the same object in it and in tied(...)."
            )
        if kind is UNEMBEDDING:
            return logits(params, x), state
        return layer.apply(params, state, x, key=key, train=train)

    return Layer(init, apply, kind, MappingProxyType({"of": layer}), sequences=kind is TIED and layer.sequences)


def _has_parameters(layer: Layer, x: Any) -> bool:
    """Whether a layer on inputs x has parameters."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    return bool(jax.tree.leaves(jax.eval_shape(lambda key: layer.init(key, one)[0], jax.random.key(0))))


def logits(params: Params, h: Array) -> Array:
    """z = h w', for a table w of an embedding.

    Args:
        params: {"w": (V, D)}.
        h: (..., D), floating.

    Returns:
        (..., V) in the promoted dtype of h and w.

    Example:
        >>> logits({"w": jnp.array([[1.0, 0.0], [2.0, 3.0]])}, jnp.array([[1.0, 1.0]]))
        Array([[1., 5.]], dtype=float32)
    """
    w = param("tied", params, "w")
    require_floating("tied", "h", h.dtype, "Convert it: h.astype(jnp.float32).")
    if h.ndim == 0 or h.shape[-1] != w.shape[1]:
        raise ValueError(
            f"tied: h must have {w.shape[1]} features on its last axis to match the table {w.shape}, got h {h.shape}."
        )
    return linear_input_grad(w, h.astype(jnp.promote_types(h.dtype, w.dtype)))
