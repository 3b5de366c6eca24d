"""A batch of padded sequences: values with the mask of the positions that count, and what cross-attention reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnn.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of unequal length, padded to T positions, on their way through a network.

    At masked positions the values are 0 before and after every layer, whatever they were, and cotangents are dropped in
    the backward pass: padding never reaches an output or a gradient, even if it is NaN. Layers that act on each
    position (`Dense`, `LayerNorm`, activations, `Dropout`, ...) are applied to `values`; attention, recurrent layers
    and the pooling over positions take the mask into account. `Conv`, `BatchNorm` and `GroupNorm` count the zeros as
    values.

    Attributes:
        values: tokens (N, T), or features (N, T, D).
        mask: (N, T) bools, True where a position counts; None if all do.
        context: the sequences that cross-attention reads, such as the encoder's outputs (N, S, D); None without.

    Raises:
        ValueError: from a layer whose outputs do not keep (N, T), e.g. `Flatten`, with a mask.

    Example:
        >>> from jaxnn.layers import Dense
        >>> x = Sequences(jnp.array([[[1.0], [jnp.nan]]]), jnp.array([[True, False]]))
        >>> layer = Dense(1)
        >>> y, _ = layer.apply({"w": jnp.array([[2.0]]), "b": jnp.array([1.0])}, (), x)
        >>> y.values.ravel()
        Array([3., 0.], dtype=float32)
    """

    values: Array
    mask: Array | None = None
    context: Sequences | None = None

    @property
    def counted(self) -> Array:
        """The values, 0 where masked."""
        # What a layer returns is masked too; but in its gradient the input is a factor, and 0 times NaN is NaN.
        return only(self.mask, self.values)

    def with_values(self, values: Array) -> Sequences:
        """The same mask and context with other values (or cotangents), 0 where masked."""
        return dataclasses.replace(self, values=only(self.mask, values))

    def with_outputs(self, y: Array) -> Sequences:
        """`with_values` of the outputs of a layer on each position; ValueError unless they keep the positions."""
        if self.mask is not None and (y.shape[:2] != self.mask.shape or y.ndim < self.values.ndim):
            raise ValueError(
                f"padded sequences: a layer must keep the positions, {self.mask.shape}, got outputs {y.shape}. "
                "Take one vector per example by MeanPosition or LastPosition, or drop the mask by Values."
            )
        return self.with_values(y)


def only(mask: Array | None, values: Array) -> Array:
    """values (N, T, ...) where the mask (N, T) is True, else 0; a mask of None is True everywhere.

    Example:
        >>> only(jnp.array([[True, False]]), jnp.array([[1.0, jnp.inf]]))
        Array([[1., 0.]], dtype=float32)
    """
    if mask is None or values.dtype == jax.dtypes.float0:
        return values
    counts = lax.broadcast_in_dim(mask, values.shape, (0, 1))
    return jnp.where(counts, values, jnp.zeros((), values.dtype))


def values_of(x: Any) -> Array:
    """The values of `Sequences`; an array itself."""
    return x.values if isinstance(x, Sequences) else x


def mask_of(x: Any) -> Array | None:
    """The mask of `Sequences`; None for an array, all of whose positions count."""
    return x.mask if isinstance(x, Sequences) else None


def with_values(x: Any, values: Array) -> Any:
    """`values` in place of those of x: with x's mask and context if it is `Sequences`, else as they are."""
    return x.with_values(values) if isinstance(x, Sequences) else values


def require_array(where: str, outputs: Any) -> None:
    """Raise TypeError if a network's outputs are `Sequences`: losses take an array.

    Example:
        >>> require_array("mean_loss", Sequences(jnp.ones((1, 2, 3))))
        Traceback (most recent call last):
        TypeError: mean_loss: the outputs of the network must be an array, got Sequences. End it with Values, or ...
    """
    if isinstance(outputs, Sequences):
        raise TypeError(
            f"{where}: the outputs of the network must be an array, got Sequences. End it with Values, or with "
            "LastPosition or MeanPosition for one vector per example."
        )


def no_context(x: Any) -> Any:
    """A cotangent with a context of zeros, for all but one of the branches that share it."""
    if not isinstance(x, Sequences) or x.context is None:
        return x
    zero = dataclasses.replace(x.context, values=jnp.zeros_like(x.context.values))
    return dataclasses.replace(x, context=no_context(zero))


def added(x: Any, y: Any) -> Any:
    """The sum of two cotangents of one input: of arrays, or of the values and contexts of `Sequences`; float0, the
    cotangent of integers, stays.

    Example:
        >>> added(Sequences(jnp.ones((1, 2))), Sequences(jnp.ones((1, 2)))).values
        Array([[2., 2.]], dtype=float32)
    """
    if isinstance(x, Sequences):
        context = None if x.context is None else added(x.context, y.context)
        return dataclasses.replace(x, values=added(x.values, y.values), context=context)
    return x if isinstance(x, np.ndarray) and x.dtype == jax.dtypes.float0 else x + y
