"""Words on conventions: (in, out) where a text's W a is met, and slips of common texts beside the right form."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import backprop, losses, models, optim

IN_OUT = ("layers.dense", "ops.matmul", "backprop.linear", "models", "initializers.orthogonal", "backprop.trace")


def documents(name: str) -> str:
    """The docstrings of a module and of its functions, as one line."""
    module: ModuleType = importlib.import_module(f"jaxnn.{name}")
    texts = [module.__doc__, *(getattr(each, "__doc__", None) for each in vars(module).values() if callable(each))]
    return " ".join(" ".join(text for text in texts if text).split())


@pytest.mark.parametrize("name", IN_OUT)
def test_the_shape_of_weights_is_said_where_a_text_has_w_a(name: str) -> None:
    said = documents(name)
    assert "(in, out)" in said
    assert "W a" in said


def test_rows_and_in_out_are_columns_and_out_in_transposed() -> None:
    net = models.serial(*models.mlp([3, 4, 2]).parts[1:])
    params, _ = net.init(jax.random.key(0), (3,))
    x = np.ones((1, 3), np.float32)
    first, second = params[0], params[2]
    z1 = np.asarray(first["w"]).T @ x.T + np.asarray(first["b"])[:, None]
    z2 = np.asarray(second["w"]).T @ np.maximum(z1, 0) + np.asarray(second["b"])[:, None]
    np.testing.assert_allclose(net.predict(params, (), x), z2.T, rtol=1e-5)
    trace = backprop.trace_table(net, params, (), x, np.zeros((1, 2), np.float32), losses.half_squared_error)
    np.testing.assert_allclose(trace["delta1"].T, np.asarray(second["w"]) @ trace["delta2"].T * (z1 > 0), rtol=1e-5)


SLIPS: list[tuple[Any, str]] = [
    (losses.logistic, "Some texts print -d log f"),
    (losses.cross_entropy, "minus sign, which some texts drop"),
    (losses.kl_divergence, "KL = cross-entropy - H(d): some texts print a plus"),
    (optim.sgd, "Some texts print theta <- theta + v with v <- momentum v + learning_rate g, which ascends"),
]


@pytest.mark.parametrize(("function", "text"), SLIPS, ids=lambda value: getattr(value, "__name__", ""))
def test_slips_of_common_texts_are_named(function: Any, text: str) -> None:
    assert text in " ".join((function.__doc__ or "").split())


def test_the_right_forms_are_ours_and_the_slips_are_wrong() -> None:
    f, d = np.array([2.0, -1.0], np.float32), np.array([1, 1])
    np.testing.assert_allclose(losses.logistic(f, d), -np.log(1 / (1 + np.exp(-d * f))), rtol=1e-6)
    assert losses.logistic(f, d)[1] > losses.logistic(f, d)[0], "a mistake costs more"
    y, t = np.array([[0.2, 0.3, 0.5]], np.float32), np.array([[0.5, 0.25, 0.25]], np.float32)
    ce, kl, h = losses.cross_entropy(y, t), losses.kl_divergence(np.log(y), t), losses.entropy(t)
    np.testing.assert_allclose(kl, ce - h, rtol=1e-5)
    assert ce > 0
    assert abs(kl - (ce + h)) > 1
    opt = optim.sgd(0.1, momentum=0.9)
    down = opt.update(np.ones(1, np.float32), opt.init(np.ones(1, np.float32)))[0]
    assert down < 0, "against a positive gradient"
