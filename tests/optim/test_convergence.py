"""Every rule reaches a stated tolerance in a stated number of steps on three landscapes, and learns the digits.

The steps are `convergence.STEPS`: 500 on a parabola of condition number 10, 5,000 in Rosenbrock's valley, 2,000 on the
noisy quadratic with batches of 16. What is left is a fraction of the start's height above the minimum. The digits are
trained for 20 epochs in batches of 64. The learning rates are constant, or decay to 0 along half a cosine.
"""

from __future__ import annotations

import jax
import pytest

from tests.optim.convergence import digits_accuracy, make_rule, reached

TOLERANCES = {"parabola": 1e-4, "rosenbrock": 3e-2, "noisy_quadratic": 3e-3}
ACCURACY = 0.96
PLACES = (*TOLERANCES, "digits")
QUICK = {("adam", "parabola")}
"""The run of the short suite."""

EXEMPT = {
    ("rprop", "noisy_quadratic"): "compares signs of successive gradients, so it needs them without noise",
    ("rprop", "digits"): "likewise: minibatches are noise",
    ("cocob", "noisy_quadratic"): "bets on past gains; its last iterate keeps a third of a percent of noise",
    ("acprop", "digits"): "its first steps are as long as the gradient; 94% in 20 epochs",
    ("muon", "parabola"): "is Nadam for vectors",
    ("muon", "rosenbrock"): "is Nadam for vectors",
    ("muon", "noisy_quadratic"): "is Nadam for vectors",
}
"""(rule, place): why not."""

RATES = {
    "sgd": (("cosine", 0.22), ("cosine", 0.0022), ("cosine", 0.0046), ("cosine", 0.1)),
    "adam": (("cosine", 4.6), ("cosine", 0.46), ("cosine", 0.1), ("cosine", 0.046)),
    "adamw": (("cosine", 2.2), ("cosine", 0.1), ("cosine", 0.1), ("cosine", 0.046)),
    "nadam": (("cosine", 0.22), ("cosine", 0.046), ("cosine", 0.1), ("cosine", 0.1)),
    "adamax": (("cosine", 1), ("cosine", 1), ("cosine", 0.22), ("cosine", 0.046)),
    "amsgrad": (("cosine", 1), ("cosine", 1), ("cosine", 0.46), ("cosine", 0.1)),
    "adabelief": (("cosine", 2.2), ("cosine", 1), ("cosine", 0.1), ("cosine", 0.1)),
    "yogi": (("cosine", 0.46), ("cosine", 1), ("cosine", 0.1), ("cosine", 0.046)),
    "radam": (("cosine", 0.22), ("constant", 0.0046), ("cosine", 0.1), ("cosine", 0.46)),
    "adan": (("cosine", 2.2), ("cosine", 0.0022), ("cosine", 0.22), ("cosine", 0.1)),
    "novograd": (("cosine", 0.001), ("cosine", 0.001), ("cosine", 0.1), ("cosine", 0.1)),
    "ademamix": (("cosine", 2.2), ("cosine", 4.6), ("cosine", 0.1), ("cosine", 0.046)),
    "simplified_ademamix": (("cosine", 0.022), ("cosine", 0.022), ("cosine", 0.001), ("cosine", 0.0001)),
    "adopt": (("cosine", 10), ("cosine", 2.2), ("cosine", 0.22), ("cosine", 0.022)),
    "acprop": (("cosine", 0.046), ("cosine", 0.01), ("cosine", 0.1), None),
    "adagrad": (("cosine", 0.46), ("cosine", 1), ("cosine", 2.2), ("cosine", 0.22)),
    "adadelta": (("cosine", 2.2), ("cosine", 1), ("cosine", 10), ("constant", 1)),
    "rmsprop": (("cosine", 0.0001), ("cosine", 0.001), ("cosine", 0.0046), ("cosine", 0.01)),
    "lion": (("cosine", 0.01), ("cosine", 0.0022), ("cosine", 0.01), ("cosine", 0.022)),
    "signum": (("cosine", 0.0046), ("cosine", 0.0022), ("cosine", 0.022), ("cosine", 0.01)),
    "sign_sgd": (("cosine", 1), ("cosine", 1), ("cosine", 0.022), ("cosine", 0.022)),
    "rprop": (("constant", 1), ("constant", 0.01), None, None),
    "madgrad": (("cosine", 2.2), ("cosine", 0.046), ("cosine", 0.022), ("cosine", 0.046)),
    "cocob": (("cosine", 0.01), ("constant", 0.001), None, ("cosine", 0.0001)),
    "optimistic_gradient_descent": (("cosine", 0.046), ("cosine", 0.001), ("cosine", 0.01), ("cosine", 0.46)),
    "optimistic_adam_v2": (("cosine", 0.22), ("cosine", 0.022), ("cosine", 0.1), ("cosine", 0.1)),
    "sm3": (("cosine", 2.2), ("cosine", 4.6), ("cosine", 2.2), ("cosine", 0.46)),
    "noisy_sgd": (("cosine", 0.046), ("cosine", 0.0022), ("cosine", 0.022), ("cosine", 1)),
    "adafactor": (("cosine", 1), ("cosine", 0.022), ("cosine", 0.46), ("cosine", 0.046)),
    "lamb": (("cosine", 1), ("cosine", 0.01), ("cosine", 0.22), ("cosine", 0.01)),
    "lars": (("cosine", 10), ("cosine", 2.2), ("cosine", 10), ("constant", 1)),
    "fromage": (("cosine", 0.22), ("cosine", 0.22), ("cosine", 10), ("cosine", 0.1)),
    "dog": (("cosine", 4.6), ("cosine", 2.2), ("cosine", 2.2), ("constant", 1)),
    "dowg": (("cosine", 2.2), ("cosine", 0.46), ("cosine", 2.2), ("cosine", 0.46)),
    "prodigy": (("cosine", 10), ("cosine", 0.46), ("cosine", 0.46), ("cosine", 0.22)),
    "dadapt_adamw": (("cosine", 4.6), ("cosine", 0.46), ("cosine", 0.46), ("cosine", 1)),
    "galore": (("cosine", 4.6), ("cosine", 0.46), ("cosine", 0.1), ("cosine", 0.046)),
    "shampoo": (("cosine", 1), ("cosine", 0.46), ("cosine", 0.01), ("cosine", 0.01)),
    "soap": (("cosine", 0.22), ("cosine", 0.0022), ("cosine", 0.1), ("cosine", 0.01)),
    "momo": (("cosine", 10), ("cosine", 1), ("cosine", 0.046), ("cosine", 1)),
    "momo_adam": (("cosine", 10), ("cosine", 4.6), ("cosine", 0.1), ("cosine", 0.046)),
    "polyak_sgd": (("constant", 0.22), ("constant", 1), ("constant", 0.0022), ("constant", 0.22)),
    "muon": (None, None, None, ("cosine", 0.022)),
    "lbfgs": (("constant", 1), ("constant", 1), ("cosine", 1), ("cosine", 1)),
}  # fmt: skip
"""For each rule, (schedule, learning rate) on the parabola, Rosenbrock's valley, the noisy quadratic and the digits."""

CASES = [
    pytest.param(name, place, *rate, marks=() if (name, place) in QUICK else pytest.mark.slow, id=f"{name}-{place}")
    for name, rates in RATES.items()
    for place, rate in zip(PLACES, rates, strict=True)
    if rate is not None
]


@pytest.mark.parametrize(("name", "place", "schedule", "learning_rate"), CASES)
def test_converges(name: str, place: str, schedule: str, learning_rate: float) -> None:
    if place == "digits":
        accuracy = jax.jit(lambda: digits_accuracy(make_rule(name), learning_rate, schedule))()
        assert accuracy >= ACCURACY
    else:
        left = jax.jit(lambda: reached(make_rule(name), place, learning_rate, schedule))()
        assert left <= TOLERANCES[place]


def test_only_the_exempt_are_left_out() -> None:
    left_out = {
        (name, place)
        for name, rates in RATES.items()
        for place, rate in zip(PLACES, rates, strict=True)
        if rate is None
    }
    assert left_out == set(EXEMPT)
