"""A stack of equal blocks with their parameters along one axis: a `lax.scan`, compiled once for any depth."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_positive_int
from jaxnn.layers.base import Layer, output_example, pair_of, require_net
from jaxnn.models.combinators import fold
from jaxnn.models.ties import STACK
from jaxnn.types import Key, Params, State


def stack(block: Layer, n: int, *, remat: bool = False) -> Layer:
    """n blocks in a row, y = block_n(... block_1(x)), that share a structure, not their parameters.

    Params (and state) are those of one block with an axis of n in front. Values, keys and initial parameters are those
    of `serial(*[block] * n)`; the program is compiled for one block. On CPU, a small network of a few blocks runs
    faster as a serial.

    Args:
        block: a layer whose outputs have the shape and dtype of its inputs.
        n: the number of blocks.
        remat: whether the backward pass keeps only the input of each block, and computes its forward pass again
            (Chen et al. 2016): less memory for a third more time. Also in `jax.grad` through `apply`.

    Raises:
        TypeError: block is not a Layer, or n not an int.
        ValueError: n < 1; when initialised: the block changes the shape or dtype of its input.

    Example:
        >>> from jaxnn.layers import Dense, Relu
        >>> from jaxnn.models import residual
        >>> net = stack(residual(Dense(3), Relu), 4)
        >>> params, state = net.init(jax.random.key(0), (3,))
        >>> net.predict(params, state, jnp.ones((2, 3))).shape, params[0][0]["w"].shape
        ((2, 3), (4, 3, 3))
    """
    require_net("stack", block)
    n = require_positive_int("stack", "n", n)

    def init(key: Key, example: Any) -> tuple[Params, State]:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
        params, state = jax.vmap(lambda key: block.init(key, example))(keys)
        p, s = jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[0], tree), (params, state))
        made = output_example(block, p, s, example)
        if _kinds(made) != _kinds(example):
            raise ValueError(
                f"stack: a block must keep the shape and dtype of its input, got {_kinds(example)} -> {_kinds(made)} "
                "for one example. Put layers that change it before or after the stack."
            )
        return params, state

    def apply(
        params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        def body(x: Any, of_block: tuple[Params, State, Key | None]) -> tuple[Any, State]:
            p, s, k = of_block
            return pair_of(block, block.apply(p, s, x, key=k, train=train))

        return lax.scan(jax.checkpoint(body) if remat else body, x, (params, state, keys_of(key, n)), length=n)

    return Layer(init, apply, STACK, MappingProxyType({"n": n, "remat": remat}), (block,), sequences=True)


def keys_of(key: Key | None, n: int) -> Key | None:
    """The keys of n blocks, (n,), as a `serial` folds them; None without a key."""
    return None if key is None else jax.vmap(lambda i: fold(key, i))(jnp.arange(n))


def _kinds(tree: Any) -> list[str]:
    return [
        f"{jax.tree_util.keystr(path)} {x.dtype}{list(x.shape)}".strip() for path, x in jax.tree.leaves_with_path(tree)
    ]
