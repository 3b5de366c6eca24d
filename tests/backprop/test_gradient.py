"""`backprop.value_and_grad` against `jax.value_and_grad` of the training loss, and in its place."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, backprop, layers, losses, models, train
from jaxnn.layers import Conv, Dense, Dropout, Embedding, Relu, Softmax, Tanh
from jaxnn.losses.table import DERIVATIVES
from tests.backprop.checking import EXACT, drawn, gradient_error, relative
from tests.helpers import float64, random, slow, strict
from tests.train.problems import LOSS, NET, classification

IMAGE_NET = models.serial(
    Conv(4, 3, padding="SAME", b_init=None), layers.BatchNorm(), Relu, layers.MaxPool(2),
    models.residual(Conv(4, 3, padding="SAME"), Tanh, layers.GroupNorm(2)),
    models.parallel(layers.GlobalAveragePool, layers.GlobalMaxPool), Dropout(0.3), Dense(3),
)  # fmt: skip
WORD_NET = models.serial(Embedding(7, 4), layers.LayerNorm(), Dense(6), layers.Gelu, layers.RMSNorm(), Dense(5))
IMAGES = random(0, 4, 6, 6, 2), np.array([0, 2, 1, 1])
LABELS = np.array([[1, -1, 3], [0, 4, -1], [-1, -1, -1], [2, 2, 2]])
WORDS = np.random.default_rng(0).integers(0, 7, (4, 3)), LABELS
WEIGHTS = np.array([0.5, 0.0, 2.0, 1.0])
IGNORING = functools.partial(losses.softmax_cross_entropy, ignore_index=-1)


def own_penalty(params: Any) -> Any:
    return sum(jnp.sum(jnp.cos(p)) for p in jax.tree.leaves(params))


SMALL_NET = models.serial(Conv(2, 3), layers.BatchNorm(), Relu, layers.Flatten, Dropout(0.3), Dense(3))
CASES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "small": (SMALL_NET, LOSS, IMAGES, {"call": {"key": jax.random.key(5), "weights": WEIGHTS}}),
    "images": (IMAGE_NET, LOSS, IMAGES, {"call": {"key": jax.random.key(5)}}),
    "weights": (IMAGE_NET, LOSS, IMAGES, {"call": {"key": jax.random.key(5), "weights": WEIGHTS}}),
    "all weights 0": (NET, LOSS, (random(0, 4, 6), np.array([0, 1, 2, 0])), {"call": {"weights": 0 * WEIGHTS}}),
    "words": (WORD_NET, IGNORING, WORDS, {}),
    "weighted words": (WORD_NET, IGNORING, WORDS, {"call": {"weights": WEIGHTS.astype(np.float32)}}),
    "l2": (NET, LOSS, (random(0, 4, 6), np.array([0, 1, 2, 0])), {"regularizer": losses.l2(0.1)}),
    "l1": (NET, losses.mse, (random(0, 4, 6), random(1, 4, 3)), {"regularizer": losses.l1(0.1, mask=None)}),
    "elastic": (NET, losses.huber, (random(0, 4, 6), random(1, 4, 3)), {"regularizer": losses.elastic(0.1, 0.2)}),
    "own penalty": (NET, losses.mse, (random(0, 4, 6), random(1, 4, 3)), {"regularizer": own_penalty}),
    "own loss": (NET, lambda y, d: jnp.sum((y - d) ** 4, 1), (random(0, 4, 6), random(1, 4, 3)), {}),
    "one layer": (Dense(3), LOSS, (random(0, 4, 6), np.array([0, 1, 2, 0])), {}),
}


SLOW = ("images", "weights", "words", "l1", "elastic", "own penalty", "one layer")
"""Those whose like is in the quick suite."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_agrees_with_automatic_differentiation(name: str) -> None:
    net, loss, (x, y), settings = CASES[name]
    assert gradient_error(net, loss, x, y, **settings) <= EXACT


REAL, SIGNS, CLASSES = random(1, 4, 3), np.sign(random(2, 4, 3)), np.array([0, 2, 1, 1])
SHARES = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]])
LOSSES: dict[Any, tuple[Any, np.ndarray]] = {
    losses.half_squared_error: (models.serial(Dense(3), Tanh), REAL),
    losses.mse: (Dense(3), REAL),
    losses.sum_squared_error: (Dense(3), REAL),
    losses.euclidean_error: (Dense(3), REAL),
    losses.absolute_error: (Dense(3), REAL),
    losses.huber: (Dense(3), REAL),
    losses.log_cosh: (Dense(3), REAL),
    losses.cosine_distance: (Dense(3), REAL),
    losses.sigmoid_binary_cross_entropy: (Dense(3), SHARES),
    losses.binary_cross_entropy: (models.serial(Dense(3), Softmax), SHARES),
    losses.softmax_cross_entropy: (Dense(3), SHARES),
    losses.cross_entropy: (models.serial(Dense(3), layers.Sigmoid), SHARES),
    losses.kl_divergence: (models.serial(Dense(3), layers.Activation(activations.log_softmax)), SHARES),
    losses.hinge: (Dense(3), SIGNS),
    losses.square_loss: (Dense(3), SIGNS),
    losses.logistic: (Dense(3), SIGNS),
    losses.perceptron_loss: (Dense(3), SIGNS),
    losses.multiclass_hinge: (Dense(3), CLASSES),
    losses.gaussian_nll: (Dense(6), REAL),
    losses.mixture_density_nll: (Dense(10), REAL),  # two components of 1 + 1 + 3 outputs
}
QUICK = (losses.half_squared_error, losses.hinge, losses.kl_divergence)


@pytest.mark.parametrize(
    "loss", [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow, id=f.__name__) for f in LOSSES]
)
def test_losses(loss: Any) -> None:
    net, targets = LOSSES[loss]
    settings = {"components": 2} if loss is losses.mixture_density_nll else {}
    assert gradient_error(net, functools.partial(loss, **settings), random(0, 4, 6), targets) <= EXACT


def test_no_loss_with_a_derivative_is_left_out() -> None:
    assert set(LOSSES) == set(DERIVATIVES)


@pytest.mark.parametrize(
    ("net", "dtype"),
    [
        pytest.param(models.serial(Dense(4), Tanh), jnp.bfloat16, id="small"),
        *(pytest.param(IMAGE_NET, t, marks=pytest.mark.slow, id=t) for t in ("float32", "bfloat16", "float16")),
    ],
)
def test_dtypes_are_those_of_automatic_differentiation(net: Any, dtype: Any) -> None:
    with strict():
        x = (IMAGES[0] if net is IMAGE_NET else random(0, 4, 6)).astype(dtype)
        params, state = jax.jit(lambda key: net.init(key, jax.ShapeDtypeStruct(x.shape[1:], dtype)))(jax.random.key(0))
        arguments = params, state, x, IMAGES[1].astype(np.int32)
        call = {"key": jax.random.key(1), "weights": WEIGHTS.astype(np.float32)}
        penalty = losses.l2(0.1)
        ours = backprop.value_and_grad(net, LOSS, penalty)
        oracle = jax.value_and_grad(train.mean_loss(net, LOSS, penalty), has_aux=True)
        both = jax.jit(lambda *a, **call: (ours(*a, **call), oracle(*a, **call)))(*arguments, **call)
        off = relative(*both)  # dtypes too
    assert off <= {"float32": 1e-5, "bfloat16": 0.2, "float16": 0.02}[x.dtype.name]


def test_the_tape_sums_to_the_gradient() -> None:
    with float64():
        x, y = IMAGES
        net = models.serial(Conv(4, 3), Relu, layers.Flatten, Dense(3))

        @jax.jit
        def both(params: Any, state: Any) -> Any:
            tape = backprop.record(net, LOSS)(params, state, x, y)
            summed = [sum(use.grad() for use in uses) / 4 for uses in tape.uses]
            return (summed, jnp.mean(tape.losses)), backprop.value_and_grad(net, LOSS)(params, state, x, y)

        (summed, mean), ((value, _), grads) = both(*drawn(net, x))
        assert relative(summed, jax.tree.leaves(grads)) <= EXACT
        np.testing.assert_allclose(mean, value, rtol=1e-12)


# --- the loss and the last layer in one step

ONE_HOT = np.eye(3)[[0, 2, 1, 1]]
SOFT = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.1, 0.1, 0.2], [1.0, 0.0, 0.0]])  # one does not sum to 1
FUSED: dict[str, tuple[Any, Any, Any]] = {
    "softmax": (models.serial(Dense(4), Tanh, models.serial(Dense(3), Softmax)), losses.cross_entropy, ONE_HOT),
    "soft targets": (models.serial(Dense(3), Softmax), losses.cross_entropy, SOFT),
    "sigmoid": (models.serial(Dense(3), layers.Sigmoid), losses.binary_cross_entropy, SOFT),
    "alone": (Softmax, losses.cross_entropy, np.eye(6)[[0, 2, 1, 5]]),
}


@pytest.mark.parametrize("name", [n if n == "soft targets" else pytest.param(n, marks=pytest.mark.slow) for n in FUSED])
def test_fused_loss_is_exact(name: str) -> None:
    net, loss, targets = FUSED[name]
    assert gradient_error(net, loss, random(0, 4, 6), targets, call={"weights": WEIGHTS}) <= EXACT
    assert "fused" in backprop.coverage(net, loss).rows[-1].rule


@pytest.mark.parametrize(
    ("last", "loss"), [(Softmax, losses.cross_entropy), (layers.Sigmoid, losses.binary_cross_entropy)]
)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float32)])
def test_fused_loss_is_finite_where_the_output_has_rounded_to_0_or_1(last: Any, loss: Any, dtype: Any) -> None:
    net = models.serial(Dense(3), last)
    x = np.eye(3, dtype=dtype)
    params, d = ({"w": (200 * np.eye(3)).astype(dtype), "b": np.zeros(3, dtype)}, ()), x[::-1]
    vg = backprop.value_and_grad(net, loss)
    ((value, _), grads), y = jax.jit(lambda p: (vg(p, (), x, d), net.predict(p, (), x)))(params)
    y = np.asarray(y, np.float64)
    assert np.isfinite(value)
    assert set(np.unique(y).tolist()) <= {0.0, 0.5, 1.0}
    expected = np.asarray(x, np.float64).T @ (y - np.asarray(d, np.float64)) / 3
    np.testing.assert_allclose(np.asarray(grads[0]["w"], np.float64), expected, rtol=4e-3, atol=1e-7)
    assert grads[0]["w"].dtype == dtype


def test_what_is_not_the_same_function_is_not_fused() -> None:
    over_rows = models.serial(Dense(3), layers.Activation(layers.Softmax.options["function"], axis=0))
    assert "fused" not in backprop.coverage(over_rows, losses.cross_entropy).rows[-1].rule
    for net, loss in [(Softmax, losses.binary_cross_entropy), (layers.Sigmoid, losses.cross_entropy)]:
        assert "fused" not in backprop.coverage(net, loss).rows[-1].rule
        assert gradient_error(net, loss, random(0, 4, 3), SOFT) <= EXACT
    with_residual = models.residual(Dense(3), Softmax)
    assert "fused" not in backprop.coverage(with_residual, losses.cross_entropy).rows[-1].rule


# --- checkpointing


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2, 3, 8, 100])
def test_checkpointing_gives_the_same_numbers(every: int) -> None:
    x, y = IMAGES
    assert gradient_error(IMAGE_NET, LOSS, x, y, remat_every=every, call={"key": jax.random.key(5)}) <= EXACT


def test_checkpointing_draws_the_same_masks() -> None:
    net = models.serial(Dense(4), Dropout(0.5), Tanh, Dropout(0.3), Dense(3))
    settings: dict[str, Any] = {"remat_every": 2, "call": {"key": jax.random.key(5)}}
    assert gradient_error(net, LOSS, random(0, 4, 6), IMAGES[1], **settings) <= EXACT


def test_checkpointing_with_a_fused_loss() -> None:
    net = models.serial(Dense(4), Tanh, Dense(3), Softmax)
    assert gradient_error(net, losses.cross_entropy, random(0, 4, 6), ONE_HOT, remat_every=2) <= EXACT


DEEP = models.serial(*[Dense(16), Tanh] * 32, Dense(3))


def deep_arguments() -> Any:
    """Shapes of the parameters, inputs and labels of DEEP."""
    x, y = jax.ShapeDtypeStruct((2048, 16), jnp.float32), jax.ShapeDtypeStruct((2048,), jnp.int32)
    return *jax.eval_shape(lambda: DEEP.init(jax.random.key(0), x.shape[1:])), x, y


@pytest.mark.slow
def test_checkpointing_runs_all_but_the_last_segment_again() -> None:
    def count(every: int | None, operation: str) -> int:
        lowered = jax.jit(backprop.value_and_grad(DEEP, LOSS, remat_every=every)).lower(*deep_arguments())
        return lowered.as_text().count(f"stablehlo.{operation}")

    # 65 parts are 8 segments of 8 and the last layer. Of the 4 tanh of a segment 3 come once more, behind a barrier;
    # what the last one makes was kept as the next segment's input.
    assert count(8, "tanh") - count(None, "tanh") == 8 * 3
    assert count(8, "optimization_barrier") - count(None, "optimization_barrier") == 8


def temporary_bytes(f: Any, *arguments: Any) -> int:
    return jax.jit(f).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def jax_saves_memory() -> bool:
    """XLA for CPUs in jax 0.10 makes one of the two forward passes of `jax.checkpoint` too, and nothing is saved."""

    def segment(weights: Any, x: Any) -> Any:
        return functools.reduce(lambda x, w: jnp.tanh(x @ w), weights, x)

    def loss(saved: Any, weights: Any, x: Any) -> Any:
        for start in range(0, 32, 4):
            x = saved(segment)(weights[start : start + 4], x)
        return jnp.sum(x**2)

    shapes = [jax.ShapeDtypeStruct((16, 16), jnp.float32)] * 32, jax.ShapeDtypeStruct((2048, 16), jnp.float32)
    plain, saving = (
        temporary_bytes(jax.grad(functools.partial(loss, saved)), *shapes) for saved in (lambda f: f, jax.checkpoint)
    )
    return saving < plain


@pytest.mark.slow
def test_checkpointing_takes_less_memory_where_that_of_jax_does() -> None:
    jax.config.update("jax_disable_most_optimizations", False)  # the fixture of this folder sets it back
    vgs = (backprop.value_and_grad(DEEP, LOSS, remat_every=every) for every in (None, 8))
    plain, saving = (temporary_bytes(vg, *deep_arguments()) for vg in vgs)
    assert (saving < 0.6 * plain) == jax_saves_memory(), (saving, plain)


# --- errors


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(TypeError, match=r"value_and_grad: net must be a Layer.*Call it first"):
        backprop.value_and_grad(models.cnn, LOSS)  # type: ignore[arg-type]
    for bad in ("mse", None):
        with pytest.raises(TypeError, match=r"value_and_grad: loss must be a function, such as losses\.softmax"):
            backprop.value_and_grad(NET, bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="regularizer must be a function"):
        backprop.value_and_grad(NET, LOSS, 1e-4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"remat_every counts the parts of models.serial.*got a dense layer"):
        backprop.value_and_grad(Dense(3), LOSS, remat_every=2)
    with pytest.raises(ValueError, match="remat_every must be at least 1, got 0"):
        backprop.value_and_grad(NET, LOSS, remat_every=0)
    vg = backprop.value_and_grad(NET, LOSS)
    x, y = classification()
    both = jax.eval_shape(lambda: NET.init(jax.random.key(0), (6,)))

    def call(vg: Any, *arguments: Any, **more: Any) -> None:
        jax.eval_shape(vg, *arguments, **more)

    with pytest.raises(ValueError, match=r"serial: params must be a tuple.*init returns the pair"):
        call(vg, list(both), (), x, y)
    with pytest.raises(ValueError, match="weights must have one entry for each example"):
        call(vg, *both, x, y, weights=jnp.ones(3))
    with pytest.raises(ValueError, match="expected one loss for each example"):
        call(backprop.value_and_grad(NET, lambda y, d: jnp.mean(y)), *both, x, y)
    with pytest.raises(ValueError, match="empty batch"):
        call(vg, *both, x[:0], y[:0])
    with pytest.raises((TypeError, ValueError)) as caught:
        call(vg, *both, x[:, :5], y)
    assert "in part 1 of serial (dense)" in caught.value.__notes__[0]


def test_a_layer_that_forgets_its_state_is_named() -> None:
    own = layers.Layer(lambda key, example: ((), ()), lambda params, state, x, **mode: x, layers.Kind("mine"))
    with pytest.raises(TypeError, match="mine: apply must return the pair"):
        backprop.value_and_grad(own, losses.mse)((), (), jnp.ones((2, 3)), jnp.ones((2, 3)))
