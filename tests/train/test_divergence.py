"""A run that diverges never counts as a success, and the message names what was not finite first."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses, models, optim, train
from jaxnn.data import Partial
from jaxnn.layers import Activation, Dense
from tests.helpers import slow
from tests.train.problems import KEY, LOSS, NET, OPT, D, changed, classification, initial, started


def fit(**how: Any) -> train.FitResult:
    settings = {"net": NET, "loss": LOSS, "opt": OPT, "train": classification(), "key": KEY, "epochs": 2}
    return train.fit(**(settings | {"batch_size": 5, "progress": False} | how))


def diverged(**how: Any) -> train.DivergedError:
    with pytest.raises(train.DivergedError) as caught:
        fit(**how)
    return caught.value


@pytest.mark.parametrize("select", [None, *slow("loss")])
def test_an_overflow_in_the_last_update_of_an_epoch_is_no_success(select: str | None) -> None:
    error = diverged(opt=optim.sgd(lambda count: jnp.where(count == 19, jnp.inf, 0.1)), select=select)
    assert (error.epoch, error.step, error.result.epoch) == (2, 10, 1)
    assert len(error.result.history) == 1
    assert np.isfinite(error.result.params[1]["w"]).all()
    text = str(error)
    assert "['params'][1]['b'] holds" in text
    assert "is no longer finite: it became so at step 10 of epoch 2" in text
    assert "The gradient is finite. The likely cause is a learning rate" in text


def test_the_example_that_is_not_finite_is_named() -> None:
    x, y = classification()
    text = str(diverged(train=(changed(x, (17, 4), np.inf), y)))
    assert "The training x of example 17 holds inf, at [17, 4] (1 of 50 examples are not finite): correct" in text
    assert "learning rate" not in text


@pytest.mark.slow
def test_a_regression_target_that_is_not_finite_is_named() -> None:
    x, _ = classification()
    text = str(diverged(net=models.linear(1), loss=losses.half_squared_error, train=(x, changed(x[:, :1], 3, np.nan))))
    assert "The training y of example 3 holds nan, at [3, 0]" in text


def test_the_validation_example_that_is_not_finite_is_named() -> None:
    x, y = classification()
    error = diverged(validation=(changed(x, 3, np.nan), y))
    assert "validation_loss is NaN after epoch 1" in str(error)
    assert "The validation x of example 3 holds nan, at [3, 0]" in str(error)


def test_parameters_that_were_not_finite_at_the_start_are_named() -> None:
    ts = started()
    ts.params[1]["w"] = changed(np.asarray(ts.params[1]["w"]), (2, 1), np.nan)
    text = str(diverged(start=ts))
    assert "It began with parameters or running statistics that are not finite: [1]['w'] holds nan" in text


def test_a_parameter_that_overflowed_on_the_way_is_named() -> None:
    error = diverged(opt=optim.sgd(lambda count: jnp.where(count == 3, jnp.inf, 0.1)))
    assert (error.epoch, error.step) == (1, 5)
    assert "The update of step 4 made a parameter overflow: [1]['b'] holds" in str(error)
    assert "learning rate" in str(error)


def test_the_first_layer_that_overflows_is_named() -> None:
    net = models.serial(Dense(8), Activation(jnp.exp), Dense(3))
    x, y = classification()
    text = str(diverged(net=net, train=(x * 100, y), partial=Partial.WEIGHT, batch_size=16))
    assert "the first outputs that are not are those of activation at [1]" in text


@pytest.mark.slow
def test_a_loss_that_is_infinite_where_the_outputs_are_not_is_named() -> None:
    def log_loss(outputs: Any, targets: Any) -> Any:
        return -jnp.log(jnp.maximum(outputs[:, 0], 0.0)) + 0.0 * targets

    text = str(diverged(loss=log_loss))
    assert "The network's outputs are finite, the loss of example" in text


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_is_named() -> None:
    def root(outputs: Any, targets: Any) -> Any:
        return jnp.sqrt(jnp.abs(0.0 * outputs[:, 0])) + 0.0 * targets

    text = str(diverged(loss=root, batch_size=50, epochs=1))
    assert "The loss is finite, its gradient is not: [1]['b'] holds nan" in text


@pytest.mark.slow
def test_a_nan_is_never_selected_by_and_an_infinite_figure_does_not_choose_the_start() -> None:
    def figure(value: float) -> Any:
        return lambda params, grads, updates: {"figure": jnp.float32(value)}

    assert "figure is NaN after epoch 1" in str(diverged(measure=figure(jnp.nan), select="figure"))
    assert fit(measure=figure(jnp.inf), select="figure").epoch == 1


def test_descent_to_infinity_has_not_converged() -> None:
    def jump(count: Any) -> Any:
        return jnp.where(count == 1, jnp.inf, 1.0)

    f, opt = lambda x: jnp.exp(-x), optim.sgd(jump)
    end = jax.jit(lambda start: train.minimize(f, opt, start, steps=9, grad_tolerance=1e-6))(1.0)
    assert (int(end.steps), bool(end.converged), float(end.value)) == (2, False, 0.0)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (
            lambda: initial(models.mlp([D, 9, 3]), OPT, KEY, (D,)),
            r"fit: start.params\[1\]\['b'\] is floating\[9\], the network's parameters .* has floating\[8\] there. "
            r"Make it by train.init\(net, opt, key, \(6,\)\)",
        ),
        (
            lambda: initial(models.linear(3), OPT, KEY, (D,)),
            r"start.params\[1\]\['b'\] is floating\[3\]",
        ),
        (
            lambda: initial(NET, optim.adam(0.1), KEY, (D,)),
            r"fit: start.opt_state.* is missing, this optimizer's state \(TraceState\) has",
        ),
        (
            lambda: started()._replace(
                opt_state=jax.tree.map(lambda a: np.asarray(a, np.float16), started().opt_state)
            ),
            r"start.opt_state.trace\[1\]\['b'\] is float16\[8\], this optimizer's state .* has float32\[8\] there",
        ),
        (
            lambda: started()._replace(params=jax.tree.map(lambda a: np.asarray(a, np.int32), started().params)),
            r"start.params\[1\]\['b'\] is int32\[8\], .* has floating\[8\]",
        ),
        (lambda: started()._replace(params=list(started().params)), "must have the structure of the network's param"),
        (
            lambda: started()._replace(state={"mean": np.ones(3, np.float32)}),
            r"start.state\['mean'\] is float.*nothing",
        ),
    ],
    ids=["width", "depth", "optimizer", "dtype", "integers", "structure", "state"],
)
def test_a_start_of_another_network_or_optimizer_is_refused(start: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fit(start=start())


@pytest.mark.parametrize("name", ["adabelief", *slow("yogi", "adamax")])
def test_a_state_with_the_fields_of_another_rule_is_refused(name: str) -> None:
    start = initial(NET, optim.adam(0.1), KEY, (D,))
    with pytest.raises(ValueError, match=r"start.opt_state must have the structure of .*State"):
        fit(opt=getattr(optim, name)(0.1), start=start)
    assert fit(opt=optim.adamw(0.1), start=start, epochs=0).epoch == 0


def test_a_nan_in_the_optimizer_state_at_the_start_is_named() -> None:
    start = started()
    broken = jax.tree.map(lambda a: changed(np.asarray(a), 0, np.nan) if a.ndim else a, start.opt_state)
    text = str(diverged(start=start._replace(opt_state=broken)))
    assert "It began with an optimizer state that holds NaN: opt_state.trace[1]['b'] holds nan" in text
    assert "learning rate" not in text


@pytest.mark.slow
def test_a_start_cast_to_bfloat16_is_taken() -> None:
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), started().params)
    result = fit(start=train.TrainState(params, (), OPT.init(params)))
    assert result.params[1]["w"].dtype == jnp.bfloat16


def test_a_step_refuses_the_state_of_another_optimizer() -> None:
    x, y = classification()
    step = train.make_step(jax.value_and_grad(train.mean_loss(NET, LOSS), has_aux=True), OPT)
    with pytest.raises(ValueError, match=r"make_step: opt_state.* is missing, this optimizer's state \(TraceState\)"):
        step(initial(NET, optim.adam(0.1), KEY, (D,)), x, y)
    with pytest.raises(TypeError, match=r"expected a TrainState, as train.init makes it, got tuple"):
        step(tuple(started()), x, y)
