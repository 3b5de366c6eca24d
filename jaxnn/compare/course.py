"""Courses of a parity measurement: initial parameters, a loss, and the data of each step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.compare.problems import Problem
from jaxnn.data import Partial, batch_indices
from jaxnn.train import mean_loss
from jaxnn.types import Array, DType, Key, Params, PyTree

Gradients = Literal["same", "own"]
"""same: both rules receive one random sequence of gradients; own: each has the gradient at its own parameters."""


class Step(NamedTuple):
    """The data of one step: a random key, x (a minibatch, or noise), and targets y, if any."""

    key: Key
    x: PyTree
    y: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
    """Initial parameters and a loss per step.

    Attributes:
        params: the initial parameters of both rules.
        loss: (params, Step) -> ().
        steps: count -> an iterator of that many `Step`s, the same in every call.
    """

    params: Params
    loss: Callable[[Params, Step], Array]
    steps: Callable[[int], Iterator[Step]]


@functools.lru_cache(maxsize=16)
def random_course(dtype: DType, *, matrices: bool = False, positive: bool = False, seed: int = 0) -> Course:
    """`random_params` on `random_loss`, with new noise at each step.

    Args:
        dtype: of the parameters; float64 is enabled while they are made.
        matrices, positive: as for `random_params`.
        seed: of the parameters and the noise.
    """
    with jax.enable_x64(True):
        key = jax.random.key(seed)
        params = random_params(key, dtype, matrices=matrices, positive=positive)

    # The noise is drawn beforehand: a generator in every call of the loss would make line searches slow to compile.
    @functools.lru_cache(maxsize=8)
    def drawn(count: int) -> list[Step]:
        keys = jax.random.split(jax.random.fold_in(key, 1), count)
        return [Step(k, _drawn_noise(k, params)) for k in keys]

    return Course(params, _random_loss, lambda count: iter(drawn(count)))


@functools.lru_cache(maxsize=4)
def problem_course(problem: Problem, dtype: DType, *, seed: int = 0) -> Course:
    """The training loss of a problem, on full minibatches of its training data in a new order each epoch.

    The loss is the mean over the batch in training mode, with a key for random layers. Running statistics keep their
    initial values: in training mode no layer's output depends on them.

    Args:
        problem: e.g. from `problems.load`.
        dtype: of floating parameters and data; float64 is enabled while they are made.
        seed: of the parameters, the order of the examples and random layers.
    """
    of_params, of_order, of_steps = jax.random.split(jax.random.key(seed), 3)
    with jax.enable_x64(True):
        params, state = problem.net.init(of_params, problem.train.x.shape[1:])
        params, state = jax.tree.map(lambda a: _cast(jnp.asarray(a), dtype), (params, state))
    loss_fn = mean_loss(problem.net, problem.loss)
    x, y = (np.asarray(part) for part in (problem.train.x, problem.train.y))
    per_epoch = len(x) // problem.batch_size

    def loss(params: Params, step: Step) -> Array:
        return loss_fn(params, state, step.x, step.y, key=step.key)[0]

    def steps(count: int) -> Iterator[Step]:
        for i in range(count):
            epoch, place = divmod(i, per_epoch)
            if place == 0:
                key = jax.random.fold_in(of_order, epoch)
                order = np.asarray(batch_indices(key, len(x), problem.batch_size, partial=Partial.DROP)[0])
            batch = (jnp.asarray(_cast(part[order[place]], dtype)) for part in (x, y))
            yield Step(jax.random.fold_in(of_steps, i), *batch)

    return Course(params, loss, steps)


def _cast(a: Any, dtype: DType) -> Any:
    """A floating array in the dtype; any other array unchanged."""
    return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a


# One program per loss: over the whole table of cases it is compiled once per shape of the pytree.
@functools.lru_cache(maxsize=16)
def gradient_program(loss: Callable[[Params, Step], Array], gradients: Gradients) -> Callable[..., Any]:
    """The compiled (params, Step) -> (loss, gradients), the gradients drawn at random for "same"."""

    def both(params: Params, step: Step) -> tuple[Array, PyTree]:
        value, grads = jax.value_and_grad(loss)(params, step)
        if gradients == "own":
            return value, jax.tree.map(jnp.conj, grads)  # of complex parameters, the direction of ascent
        leaves, structure = jax.tree.flatten(grads)
        keys = jax.random.split(step.key, len(leaves))
        draws = [jax.random.normal(k, g.shape, g.dtype) for k, g in zip(keys, leaves, strict=True)]
        return value, jax.tree.unflatten(structure, draws)

    return jax.jit(both)


def random_params(key: Key, dtype: DType, *, matrices: bool = False, positive: bool = False) -> Params:
    """A nested pytree of normal arrays with 0, 1, 2 and 4 axes and a None.

    `matrices`: all arrays have 2 axes; `positive`: their entries are |N(0, 1)| + 0.1.
    """
    keys = iter(jax.random.split(key, 5))

    def draw(*shape: int) -> Array:
        value = jax.random.normal(next(keys), shape, dtype)
        return jnp.abs(value) + 0.1 if positive else value

    if matrices:
        return {"w": draw(5, 3), "parts": (draw(4, 4), draw(2, 6)), "nothing": None}
    return {"w": draw(5, 3), "parts": (draw(4), draw(), draw(3, 2, 2, 4)), "nothing": None}


def random_loss(key: Key, params: Params) -> Array:
    """A smooth, non-convex, noisy loss of any pytree, bounded below by 0; complex entries count as two real ones."""
    return _loss_from(_noise(key, params), params)


def _real(params: Params) -> list[Array]:
    """The leaves; of complex ones the real and the imaginary part."""
    return [part for p in jax.tree.leaves(params) for part in ((p.real, p.imag) if jnp.iscomplexobj(p) else (p,))]


def _noise(key: Key, params: Params) -> list[Array]:
    return [jax.random.normal(jax.random.fold_in(key, i), p.shape, p.dtype) for i, p in enumerate(_real(params))]


_drawn_noise = jax.jit(_noise)


def _loss_from(noise: list[Array], params: Params) -> Array:
    real = _real(params)
    total = jnp.zeros((), jnp.result_type(*real))
    for e, p in zip(noise, real, strict=True):
        centre = jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape)
        away = p - centre - 0.3 * e
        total += jnp.sum(0.5 * away**2 + 0.2 * (1 - jnp.cos(3 * away)))
    return total


def _random_loss(params: Params, step: Step) -> Array:
    return _loss_from(step.x, params)
