"""The next token from logits: greedy, or drawn at a temperature from the most probable ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import concrete_number, require_between, require_key, require_number, require_positive_int
from jaxnn.numerics import accumulate
from jaxnn.types import Array, Key, Scalar


def sample(
    key: Key | None,
    logits: Array,
    *,
    temperature: Scalar = 1.0,
    top_k: int | None = None,
    top_p: Scalar | None = None,
) -> Array:
    """Tokens drawn from softmax(z / temperature), restricted to the most probable ones.

    Args:
        key: typed random key; None only for a temperature of 0.
        logits: z (N, V), floating; -inf excludes a token.
        temperature: >= 0; 0 is greedy, the first of the largest logits. May be traced.
        top_k: the number of tokens with the largest logits that remain (ties with the last of them too); None for all.
            Static.
        top_p: the nucleus: the fewest tokens, the most probable first, whose probabilities (at this temperature, of the
            `top_k`) sum to at least p, in (0, 1]; None for all. May be traced.

    Returns:
        (N,) int32.

    Raises:
        ValueError: an argument out of range, no key where one is needed, or logits not (N, V).

    References:
        Fan, A., Lewis, M. & Dauphin, Y. (2018). Hierarchical neural story generation, section 5.2 (top-k).
        Holtzman, A., Buys, J., Du, L., Forbes, M. & Choi, Y. (2020). The curious case of neural text degeneration,
            section 3.1 (nucleus).

    Example:
        >>> logits = jnp.log(jnp.array([[0.1, 0.6, 0.3]]))
        >>> sample(None, logits, temperature=0.0), sample(jax.random.key(0), logits, top_p=0.5)
        (Array([1], dtype=int32), Array([1], dtype=int32))
    """
    require_sampling(temperature, top_k, top_p)
    if logits.ndim != 2:
        raise ValueError(f"sample: logits must have shape (N, V), got {logits.shape}. One position: logits[:, -1].")
    greedy = jnp.argmax(logits, -1).astype(jnp.int32)
    if concrete_number(temperature) == 0:
        return greedy
    require_key("sample", key)
    wide = accumulate(logits)
    warm = jnp.asarray(temperature, wide.dtype)
    # From the largest logit down, so that no temperature, however low, makes infinities of two.
    below = wide - jnp.max(wide, axis=-1, keepdims=True)
    kept = restricted(below / jnp.where(warm == 0, jnp.ones_like(warm), warm), top_k, top_p)
    drawn = jax.random.categorical(key, kept, axis=-1).astype(jnp.int32)  # type: ignore[arg-type]
    return jnp.where(warm == 0, greedy, drawn)


def require_sampling(temperature: Scalar, top_k: int | None, top_p: Scalar | None) -> None:
    """Raise unless the settings of `sample` are in range."""
    require_number("sample", "temperature", temperature)
    warm = concrete_number(temperature)
    if warm is not None and not warm >= 0:
        raise ValueError(f"sample: temperature must be >= 0, got {temperature}. 0 is greedy.")
    if top_k is not None:
        require_positive_int("sample", "top_k", top_k)
    if top_p is not None:
        require_between("sample", "top_p", top_p, 0, 1)
        if concrete_number(top_p) == 0:
            raise ValueError("sample: top_p must lie in (0, 1], got 0. For greedy decoding set temperature=0.")


def restricted(logits: Array, top_k: int | None, top_p: Scalar | None) -> Array:
    """Logits (N, V) with -inf in place of those that top-k and the nucleus exclude.

    Example:
        >>> restricted(jnp.log(jnp.array([[0.1, 0.6, 0.3]])), 2, None).round(1)
        Array([[-inf, -0.5, -1.2]], dtype=float32)
    """
    if top_k is not None and top_k < logits.shape[-1]:
        least = lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is None:
        return logits
    order = jnp.argsort(-logits, axis=-1)
    ranked = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    before = jnp.cumsum(ranked, axis=-1) - ranked
    # The first has nothing before it and stays, whatever rounding does.
    inside = before < jnp.asarray(top_p, ranked.dtype)
    places = jnp.argsort(order, axis=-1)
    return jnp.where(jnp.take_along_axis(inside, places, axis=-1), logits, -jnp.inf)
