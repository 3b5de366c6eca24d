"""Ways to run a rule in one program: beside a transcription of its paper, along given gradients, traced alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest

from jaxnn import optim
from tests.helpers import float64, random

STEPS = 100


def start(*shape: int) -> np.ndarray:
    """The parameters that both begin with."""
    return random(0, *shape)


def noise(*shape: int) -> Iterator[np.ndarray]:
    """For every step, the random part of the gradient, which is theta plus this."""
    return iter(random(1, STEPS, *shape))


def descend(opt: Any, *shape: int) -> tuple[Any, Any]:
    """Parameters and state after STEPS updates with gradients theta + noise, under jit and scan."""
    with float64():

        def body(carry: Any, xi: Any) -> tuple[Any, None]:
            params, state = carry
            updates, state = opt.update(params + xi, state, params)
            return (params + updates, state), None

        draws = np.stack(list(noise(*shape)))
        run = jax.jit(lambda p: jax.lax.scan(body, (p, opt.init(p)), draws)[0])
        return run(start(*shape))


def along(opt: Any, params: Any, grads: Any, **extra: Any) -> tuple[Any, Any, Any]:
    """The update and the parameters after each row of the gradients, and the last state: one program, NumPy arrays."""

    def body(carry: Any, g: Any) -> tuple[Any, Any]:
        params, state = carry
        updates, state = opt.update(g, state, params, **extra)
        params = optim.apply_updates(params, updates)
        return (params, state), (updates, params)

    run = jax.jit(lambda p, g: jax.lax.scan(body, (p, opt.init(p)), g))
    (_, state), (updates, params) = run(params, grads)
    return jax.tree.map(np.asarray, (updates, params, state))


def traced(test: Callable[..., None]) -> Callable[..., None]:
    """A test of errors, shapes and dtypes whose body is traced as one program: nothing in it is compiled."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        jax.eval_shape(lambda: test(*args, **kwargs))

    return run


def optax_still(shows: Any, what: str) -> None:
    """Skip where optax no longer shows a behaviour that a test is about."""
    if not bool(shows):
        pytest.skip(f"optax {optax.__version__} mended this: {what}")
