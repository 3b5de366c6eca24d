"""The playground's steps against a transcription of its updateWeights, one weight at a time, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from jaxnn.playground.penalties import make_optimizer, sparse_sgd
from tests.helpers import float64, random, strict

STEPS, RATE, STRENGTH = 200, 0.05, 0.4


class Link:
    """A weight as the original keeps it."""

    def __init__(self, weight: float) -> None:
        self.weight, self.dead = weight, False

    def step(self, gradient: float, kind: str) -> None:
        if self.dead:
            return
        slope = {"none": 0.0, "l1": np.sign(self.weight), "l2": self.weight}[kind]
        self.weight -= RATE * gradient
        penalised = self.weight - RATE * STRENGTH * slope
        if kind == "l1" and self.weight * penalised < 0:
            self.weight, self.dead = 0.0, True
        else:
            self.weight = penalised


def gradients() -> dict[str, np.ndarray]:
    """Of mean 0 for half of the weights, of which the penalty then kills most, and steadily downhill for the others."""
    drift = np.where(np.arange(40) % 2 == 0, 1.0, 0.0) * np.where(np.arange(40) % 4 == 0, 1.0, -1.0)
    return {"w": 0.3 * random(1, STEPS, 40) + drift, "b": random(2, STEPS, 3)}


def trajectory(opt: optim.Optimizer) -> tuple[dict[str, np.ndarray], Any]:
    """Parameters after each step, and the last state; one compiled scan."""

    def body(carry: Any, grads: Any) -> Any:
        params, state = carry
        updates, state = opt.update(grads, state, params)
        params = optim.apply_updates(params, updates)
        return (params, state), params

    with float64(), strict():
        params = {"w": 0.5 * random(0, 40), "b": np.full(3, 0.1)}
        (_, state), path = jax.jit(lambda p: jax.lax.scan(body, (p, opt.init(p)), gradients()))(params)
        return jax.tree.map(np.asarray, path), jax.tree.map(np.asarray, state)


def expected(kind: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    links = [Link(w) for w in 0.5 * random(0, 40)]
    biases = [Link(0.1) for _ in range(3)]
    grads, path = gradients(), {"w": [], "b": []}
    for t in range(STEPS):
        for i, link in enumerate(links):
            link.step(grads["w"][t, i], kind)
        for i, link in enumerate(biases):
            link.step(grads["b"][t, i], "none")
        path["w"].append([link.weight for link in links])
        path["b"].append([link.weight for link in biases])
    return {name: np.array(values) for name, values in path.items()}, np.array([not link.dead for link in links])


def agree(opt: optim.Optimizer, kind: str) -> None:
    path, _ = trajectory(opt)
    for name, values in expected(kind)[0].items():
        np.testing.assert_allclose(path[name], values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["none", "l1", "l2"])
def test_steps_are_those_of_the_original(kind: str) -> None:
    with float64():
        agree(make_optimizer(kind, RATE, STRENGTH), kind)  # type: ignore[arg-type]


def test_a_weight_that_the_penalty_carries_over_zero_stays_zero() -> None:
    path, state = trajectory(sparse_sgd(RATE, STRENGTH))
    alive = expected("l1")[1]
    np.testing.assert_array_equal(state.alive["w"], alive)
    assert state.alive["b"].all()
    assert 5 < alive.sum() < 35
    dead = path["w"][:, ~alive]
    assert dead.shape[1] > 5
    died = (dead == 0).argmax(axis=0)
    for weight, step in zip(dead.T, died, strict=True):
        assert (weight[step:] == 0).all()
    # Gradients alone have carried others over 0, which live on.
    assert (np.sign(path["w"][1:, alive]) != np.sign(path["w"][:-1, alive])).any()


def subgradient(kills: Callable[[Any, Any, Any], Any]) -> optim.Optimizer:
    """L1 descent that kills a weight by another rule."""

    def update(grads: Any, alive: Any, params: Any, **extra: Any) -> Any:
        def leaf(w: Any, g: Any, a: Any) -> Any:
            moved = w - RATE * g
            after = moved - RATE * STRENGTH * jnp.sign(w)
            a = a & ~kills(w, moved, after)
            return jnp.where(a, after, jnp.zeros_like(after)) - w, a

        w, alive = leaf(params["w"], grads["w"], alive)
        return {"w": w, "b": -RATE * grads["b"]}, alive

    return optim.Optimizer(lambda params: jnp.ones(params["w"].shape, bool), update)


@pytest.mark.parametrize(
    "kills",
    [
        lambda w, moved, after: jnp.zeros(w.shape, bool),  # the plain subgradient: weights swing about 0 for ever
        lambda w, moved, after: w * after < 0,  # kills what the gradient has carried over 0
    ],
    ids=["never", "by the gradient too"],
)
def test_another_rule_is_told_apart(kills: Any) -> None:
    agree(subgradient(lambda w, moved, after: moved * after < 0), "l1")
    with pytest.raises(AssertionError):
        agree(subgradient(kills), "l1")


def test_a_penalty_on_biases_or_without_the_half_is_told_apart() -> None:
    on_all = optim.chain(optim.add_decayed_weights(STRENGTH), optim.sgd(RATE))
    with float64(), pytest.raises(AssertionError):
        agree(on_all, "l2")
    with float64(), pytest.raises(AssertionError):
        agree(make_optimizer("l2", RATE, 2 * STRENGTH), "l2")


def test_hyperparameters_may_be_traced() -> None:
    params = {"w": np.float32([0.25, 2.0])}

    def after(rate: Any, strength: Any) -> Any:
        opt = sparse_sgd(rate, strength)
        return optim.apply_updates(params, opt.update({"w": np.ones(2, np.float32)}, opt.init(params), params)[0])

    made = jax.jit(jax.vmap(after))(np.float32([0.125, 0.1]), np.float32([1.5, 1.0]))
    np.testing.assert_allclose(made["w"], [[0, 1.6875], [0.05, 1.8]], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: make_optimizer("l3", 0.1, 0.1), "no regularization 'l3'; there are: none, l1, l2"),  # type: ignore[arg-type]
        (lambda: sparse_sgd(-0.1, 0.1), r"learning_rate must lie in \[0, inf\), got -0.1"),
        (lambda: make_optimizer("l2", 0.1, -1), r"strength must lie in \[0, inf\), got -1"),
        (lambda: sparse_sgd(0.1, 0.1).update({}, sparse_sgd(0.1, 0.1).init({})), "update needs the parameters"),
    ],
)
def test_bad_arguments_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()
