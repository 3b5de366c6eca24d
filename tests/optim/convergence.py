"""Runs of a rule on landscapes and on the digits, many learning rates at once; shared by the test and by tuning.

python -m tests.optim.convergence adam lion     # what each rule reaches over a grid of learning rates
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import data, landscapes, losses, metrics, models, optim, schedules, train
from tests.optim.test_traced import RULES

STEPS = {"parabola": 500, "rosenbrock": 5000, "noisy_quadratic": 2000}
"""Steps on each landscape."""

NUMBERS_ONLY = ("rprop", "polyak_sgd")
"""Rules whose learning rate cannot be a schedule."""

Make = Callable[[Any], optim.Optimizer]
"""From a learning rate, number or schedule, to a rule."""


def make_rule(name: str) -> Make:
    """The rule with the settings of the tests of traced hyperparameters."""
    settings = {key: value for key, value in RULES[name].items() if key not in ("random", "weight_decay")}
    rate = "max_learning_rate" if name == "polyak_sgd" else "learning_rate"
    return lambda learning_rate: getattr(optim, name)(**settings, **{rate: learning_rate})


@functools.cache
def landscape(name: str) -> Any:
    """The landscape of a name; the parabola is x^2 + 10 y^2."""
    if name == "parabola":
        return landscapes.quadratic(10.0)
    with jax.ensure_compile_time_eval():  # it is first asked for while tracing
        return landscapes.rosenbrock() if name == "rosenbrock" else landscapes.noisy_quadratic(jax.random.key(0))


def reached(make: Make, name: str, learning_rate: Any, schedule: str) -> jax.Array:
    """How far above its minimum a run ends, as a fraction of where it started (float32)."""
    f, steps = landscape(name), STEPS[name]
    rate = schedules.cosine_decay_schedule(learning_rate, steps) if schedule == "cosine" else learning_rate
    opt, start = make(rate), jnp.asarray(f.start, jnp.float32)

    def body(carry: Any, key: Any) -> tuple[Any, None]:
        x, state = carry
        xi = f.sample(key, 16) if name == "noisy_quadratic" else None

        def value_fn(x: Any, grad_fn: Any = None) -> jax.Array:
            return f(x) if xi is None else jnp.mean(jax.vmap(f.example_loss, in_axes=(None, 0))(x, xi))

        value, grads = jax.value_and_grad(value_fn)(x)
        extra = {"value": value, "grad": grads, "value_fn": value_fn, "grad_fn": jax.grad(value_fn), "obj_fn": value_fn}
        updates, state = opt.update(grads, state, x, **extra)
        return (optim.apply_updates(x, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    (x, _), _ = jax.lax.scan(body, (start, opt.init(start)), keys)
    return (f(x) - f.minimum_value) / (f(start) - f.minimum_value)


@functools.cache
def digits() -> Any:
    """The embedded digits and the network trained on them."""
    return data.load("digits"), models.mlp([64, 64, 10])


def digits_accuracy(make: Make, learning_rate: Any, schedule: str, epochs: int = 20) -> jax.Array:
    """Test accuracy on the digits after some epochs in batches of 64."""
    splits, net = digits()
    steps = epochs * (splits.train.x.shape[0] // 64)
    rate = schedules.cosine_decay_schedule(learning_rate, steps) if schedule == "cosine" else learning_rate
    opt = make(rate)
    vg = jax.value_and_grad(train.mean_loss(net, losses.softmax_cross_entropy), has_aux=True)
    epoch = train.pieces.scan_epoch(vg, opt, batch_size=64)
    ts = train.init(net, opt, jax.random.key(0), (8, 8, 1))

    def body(ts: Any, key: Any) -> tuple[Any, None]:
        return epoch(ts, splits.train.x, splits.train.y, key)[0], None

    ts, _ = jax.lax.scan(body, ts, jax.random.split(jax.random.key(1), epochs))
    return 1 - jnp.mean(metrics.error_rate(net.predict(ts.params, ts.state, splits.test.x), splits.test.y))


def sweep(name: str, schedule: str) -> None:
    """Print the best of a grid of learning rates on every landscape and on the digits."""
    make, rates = make_rule(name), np.logspace(-4, 1, 16)
    for place in STEPS:
        found = jax.jit(jax.vmap(functools.partial(_reached_at, make, place, schedule)))(rates)
        best = int(np.nanargmin(np.where(np.isnan(found), np.inf, found)))
        print(f"{name:28} {schedule:9}{place:16} {rates[best]:8.2g} reaches {found[best]:.1e}", flush=True)
    found = jax.jit(lambda r: jax.lax.map(lambda rate: digits_accuracy(make, rate, schedule), r))(jnp.asarray(rates))
    best = int(np.nanargmax(found))
    print(f"{name:28} {schedule:9}{'digits':16} {rates[best]:8.2g} reaches {found[best]:.3f}", flush=True)


def _reached_at(make: Make, place: str, schedule: str, rate: Any) -> jax.Array:
    return reached(make, place, rate, schedule)


def main() -> None:
    for name in sys.argv[1:]:
        sweep(name, "constant")
        if name not in NUMBERS_ONLY:
            sweep(name, "cosine")


if __name__ == "__main__":
    main()
