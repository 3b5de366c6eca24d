"""The chapters' programs lower for a GPU and a TPU, from a machine that has neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import landscapes, optim, train
from jaxnn.classic import adaline, baselines, gan, logistic, multiclass, perceptron
from jaxnn.classic.boolean import lookup_net, lookup_params
from jaxnn.classic.parity import tree
from jaxnn.playground.training import Settings, make_scan, network
from jaxnn.train import minmax
from tests.helpers import slow

X, SIGNS, LABELS = np.ones((12, 3), np.float32), np.ones(12, np.float32), np.zeros(12, np.int32)
KEY = jax.random.key(0)
FIT: dict[str, Any] = {"learning_rate": 0.1, "epochs": 2, "batch_size": 5}


def lookup(tables: Any, x: Any) -> Any:
    return jax.vmap(lambda table: lookup_net(3).predict(lookup_params(table), (), x))(tables)


def ring_gan(key: Any) -> Any:
    small = gan.make(2, hidden=(4,))
    return gan.run(small, gan.RULES["extragradient"], gan.ring, gan.start(small, key, 2), key, steps=2, looks=2)[1]


def game(x: Any) -> Any:
    opt = optim.optimistic_gradient_descent(0.1)
    step = minmax.simultaneous(minmax.zero_sum(lambda x, y: x * y), opt, opt)
    return minmax.play(step, minmax.init(x, x, opt, opt), 5)


def descents(starts: Any) -> Any:
    return jax.vmap(lambda x: train.minimize(landscapes.himmelblau(), optim.adam(0.1), x, steps=9))(starts).x


def playground(key: Any) -> Any:
    settings, pair = Settings(hidden=(3,), epochs=2), (jnp.ones((25, 2)), jnp.ones((25, 1)))
    return make_scan(settings, network((3,), "tanh", "classification"))(key, pair, pair)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "perceptron": (perceptron.fit, (X, SIGNS)),
    "perceptrons": (jax.vmap(perceptron.fit, (0, 0)), (X[None], SIGNS[None])),
    "pocket": (lambda x, y, key: perceptron.pocket(x, y, key=key, steps=9), (X, SIGNS, jax.random.key(0))),
    "multi-class perceptron": (lambda x, y: multiclass.fit(x, y, 3), (X, LABELS)),
    "adaline": (lambda x, y: adaline.fit(x, y, learning_rate=0.1, passes=3), (X, SIGNS)),
    "logistic": (lambda x, y, key: logistic.fit(x, y, key=key, **FIT), (X, SIGNS, jax.random.key(0))),
    "neighbours": (lambda x, points: baselines.nearest(x, points, k=2, batch_size=5), (X, X)),
    "least squares": (lambda x, y: baselines.least_squares(x, y, 3), (X, LABELS)),
    "truth tables": (lookup, (np.ones((5, 8), np.float32), np.ones((8, 3), np.float32))),
    "parity": (lambda params, x: tree(5).net.predict(params, (), x), (tree(5).params, np.ones((4, 5), np.float32))),
    "GAN": (ring_gan, (KEY,)),
    "game": (game, (1.0,)),
    "descents": (descents, (np.ones((4, 2), np.float32),)),
    "playground": (playground, (KEY,)),
}
QUICK = ["perceptron", "neighbours", "GAN"]
"""Loops that end by what they find, sorting in blocks, draws."""


@pytest.mark.parametrize("name", [*QUICK, *slow(*(name for name in PROGRAMS if name not in QUICK))])
def test_it_lowers_for_cuda_and_tpu(name: str) -> None:
    program, arguments = PROGRAMS[name]
    exported = jax.export.export(jax.jit(program), platforms=["cuda", "tpu"])(*arguments)
    assert set(exported.platforms) == {"cuda", "tpu"}
    assert "callback" not in exported.mlir_module()
