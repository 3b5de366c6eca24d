"""Windows of a sequence of tokens, and the same windows one token later: examples for predicting the next token."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import as_array, as_numpy, require_integer, require_positive_int
from jaxnn.data.draws import Draws
from jaxnn.types import Array, ArrayLike, DType, Key, Shape


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Draws n windows of `length` tokens: offsets uniform on all L - length places, with replacement."""

    length: int

    def __call__(self, key: Key, tokens: Array, n: int) -> tuple[Array, Array]:
        starts = jax.random.randint(key, (n,), 0, tokens.shape[0] - self.length)
        both = jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(tokens, start, self.length + 1))(starts)
        return both[:, :-1], both[:, 1:]


def windows(tokens: ArrayLike, length: int, *, steps: int) -> Draws:
    """Windows of a text at random offsets, drawn anew for every batch: x = tokens[o : o + T], y one token later.

    o is uniform on 0 .. L - T - 1, independently for each example: every window is possible, the first and the last
    included, and neighbours overlap. An epoch is as many batches as `steps` says; steps * batch_size * T = L is about
    one pass over the text.

    Args:
        tokens: (L,) integers, put on the device once as int32.
        length: T, tokens of one example, 1 <= T < L.
        steps: batches of one epoch.

    Returns:
        Draws of x (n, T) int32 and y (n, T) int32, y[:, t] the token that follows x[:, t].

    Raises:
        TypeError: tokens that are not integers; length or steps not an int.
        ValueError: tokens not (L,); length < 1 or >= L; steps < 1.

    Example:
        >>> x, y = windows(np.arange(100), 4, steps=10).batch(jax.random.key(0), 2)
        >>> x.shape, (y - x).tolist()
        ((2, 4), [[1, 1, 1, 1], [1, 1, 1, 1]])

    Reference: Karpathy, A. (2022). nanoGPT, get_batch.
    """
    array = as_array("windows", "tokens", tokens)
    length = _checked("windows", jnp.shape(array), jnp.result_type(array), length)
    return Draws(array.astype(jnp.int32), _Windows(length), require_positive_int("windows", "steps", steps))


def all_windows(tokens: ArrayLike, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive windows of a text that do not overlap, in order, for validation.

    Args:
        tokens: (L,) integers.
        length: T, tokens of one example, 1 <= T < L.

    Returns:
        x (N, T) int32 and y (N, T) int32 on the host, N = floor((L - 1) / T): each of the first N T + 1 tokens but the
        first is predicted once.

    Raises:
        TypeError: tokens that are not integers, or length not an int.
        ValueError: tokens not (L,); length < 1 or >= L.

    Example:
        >>> x, y = all_windows(np.arange(8), 3)
        >>> x.tolist(), y.tolist()
        ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    array = as_numpy("all_windows", "tokens", tokens)
    length = _checked("all_windows", array.shape, array.dtype, length)
    end = (len(array) - 1) // length * length
    x, y = (array[start : start + end].reshape(-1, length).astype(np.int32) for start in (0, 1))
    return x, y


def _checked(where: str, shape: Shape, dtype: DType, length: int) -> int:
    """The length of a window, if the tokens are integers (L,) with L > length; else raises."""
    if len(shape) != 1:
        raise ValueError(f"{where}: tokens must have one axis (L,), got shape {shape}. Concatenate texts to one.")
    require_integer(where, "tokens", dtype, "Encode the text: text.characters(it).encode(it).")
    length = require_positive_int(where, "length", length)
    if length >= shape[0]:
        raise ValueError(
            f"{where}: length must be less than the number of tokens, for a window and the token after it: got length "
            f"{length} for {shape[0]} tokens. Use a shorter length or a longer text."
        )
    return length
