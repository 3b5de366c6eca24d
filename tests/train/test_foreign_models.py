"""Models of flax and equinox as layers: equal to loops in those libraries, and taken by all of training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import backprop, compare, losses, models, optim, per_example, train
from jaxnn.data import Dataset
from jaxnn.layers import Layer
from tests.helpers import assert_close, float64, random, slow
from tests.train.problems import classification

nn = pytest.importorskip("flax.linen", reason="flax is not installed: pip install flax")
nnx = pytest.importorskip("flax.nnx", reason="flax is not installed: pip install flax")
eqx = pytest.importorskip("equinox", reason="equinox is not installed: pip install equinox")

LOSS = losses.softmax_cross_entropy
RATE = 1e-2
STEPS = 24
KEY = jax.random.key(0)
D, K = 6, 3
IMAGE = (8, 8, 2)


class LinenMLP(nn.Module):
    rate: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.tanh(nn.Dense(8, param_dtype=self.dtype)(x))
        return nn.Dense(K, param_dtype=self.dtype)(nn.Dropout(self.rate, deterministic=not train)(x))


class LinenCNN(nn.Module):
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Any, use_running_average: bool) -> Any:
        x = nn.Conv(4, (3, 3), use_bias=False, param_dtype=self.dtype)(x)
        x = nn.relu(nn.BatchNorm(use_running_average, momentum=0.9, param_dtype=self.dtype)(x))
        return nn.Dense(K, param_dtype=self.dtype)(x.mean((1, 2)))


class NnxMLP(nnx.Module):
    def __init__(self, rngs: Any, rate: float = 0.5, dtype: Any = jnp.float32) -> None:
        self.layers = nnx.List([nnx.Linear(*sizes, param_dtype=dtype, rngs=rngs) for sizes in ((D, 8), (8, K))])
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.layers[1](self.dropout(nnx.tanh(self.layers[0](x))))


class NnxCNN(nnx.Module):
    def __init__(self, rngs: Any, dtype: Any = jnp.float32) -> None:
        self.conv = nnx.Conv(IMAGE[-1], 4, (3, 3), use_bias=False, param_dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, param_dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(4, K, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


class EquinoxMLP(eqx.Module):
    first: Any
    dropout: Any
    last: Any
    scale: Any

    def __init__(self, key: Any, rate: float = 0.5, dtype: Any = jnp.float32) -> None:
        one, two = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(D, 8, dtype=dtype, key=one), eqx.nn.Linear(8, K, dtype=dtype, key=two)
        self.dropout, self.scale = eqx.nn.Dropout(rate), jax.nn.tanh

    def __call__(self, x: Any, key: Any = None) -> Any:
        return self.last(self.dropout(self.scale(self.first(x)), key=key))


class EquinoxCNN(eqx.Module):
    conv: Any
    norm: Any
    out: Any

    def __init__(self, key: Any, dtype: Any = jnp.float32) -> None:
        one, two = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(IMAGE[-1], 4, 3, padding=1, use_bias=False, dtype=dtype, key=one)
        self.norm = eqx.nn.BatchNorm(4, "batch", momentum=0.9, mode="batch", dtype=dtype)
        self.out = eqx.nn.Linear(4, K, dtype=dtype, key=two)

    def __call__(self, x: Any, state: Any) -> Any:
        x, state = self.norm(self.conv(jnp.moveaxis(x, -1, 0)), state)
        return self.out(jax.nn.relu(x).mean((1, 2))), state


def linen_loop(module: Any, params: Any, state: Any, x: Any, y: Any, mode: Any) -> tuple[Any, Any]:
    opt = optax.adam(RATE)

    def value(params: Any, state: Any) -> Any:
        changing = list(state or {})
        outputs, new = module.apply({"params": params, **(state or {})}, x, **mode, mutable=changing)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(), new or ()

    @jax.jit
    def step(params: Any, state: Any, s: Any) -> Any:
        grads, state = jax.grad(value, has_aux=True)(params, state)
        updates, s = opt.update(grads, s)
        return optax.apply_updates(params, updates), state, s

    s = opt.init(params)
    for _ in range(STEPS):
        params, state, s = step(params, state, s)
    return params, state


def nnx_loop(module: Any, x: Any, y: Any) -> tuple[Any, Any]:
    opt = nnx.Optimizer(module, optax.adam(RATE), wrt=nnx.Param)
    module.train()

    @nnx.jit
    def step(module: Any, opt: Any) -> None:
        def value(module: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(module(x), y).mean()

        opt.update(module, nnx.grad(value)(module))

    for _ in range(STEPS):
        step(module, opt)
    params, _, state = nnx.state(module, nnx.Param, nnx.RngState, ...)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(state) or ()


def equinox_loop(model: Any, state: Any, x: Any, y: Any) -> tuple[Any, Any]:
    opt = optax.adam(RATE)

    def value(model: Any, state: Any) -> Any:
        if state is None:
            outputs = jax.vmap(functools.partial(model, key=KEY))(x)
        else:
            outputs, state = jax.vmap(model, (0, None), (0, None), axis_name="batch")(x, state)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(), state

    @eqx.filter_jit
    def step(model: Any, state: Any, s: Any) -> Any:
        grads, state = eqx.filter_grad(value, has_aux=True)(model, state)
        updates, s = opt.update(grads, s)
        return eqx.apply_updates(model, updates), state, s

    s = opt.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(STEPS):
        model, state, s = step(model, state, s)
    return eqx.filter(model, eqx.is_inexact_array), () if state is None else (state, None)


class Case(NamedTuple):
    """A layer in a dtype, and the loop of its library from the layer's initial values: (params, state)."""

    net: Callable[[Any], Layer]
    loop: Callable[..., tuple[Any, Any]]


def linen_case(make: Any, mode: Any) -> Case:
    return Case(
        lambda dtype: train.from_flax(make(dtype)),
        lambda dtype, params, state, key, x, y: linen_loop(make(dtype), params, state, x, y, mode),
    )


CASES = {
    "linen mlp": linen_case(lambda dtype: LinenMLP(0.0, dtype), {"train": True}),
    "linen cnn": linen_case(lambda dtype: LinenCNN(dtype), {"use_running_average": False}),
    "nnx mlp": Case(
        lambda dtype: train.from_flax(lambda rngs: NnxMLP(rngs, 0.0, dtype)),
        lambda dtype, params, state, key, x, y: nnx_loop(NnxMLP(nnx.Rngs(key), 0.0, dtype), x, y),
    ),
    "nnx cnn": Case(
        lambda dtype: train.from_flax(lambda rngs: NnxCNN(rngs, dtype)),
        lambda dtype, params, state, key, x, y: nnx_loop(NnxCNN(nnx.Rngs(key), dtype), x, y),
    ),
    "equinox mlp": Case(
        lambda dtype: train.from_equinox(lambda key: EquinoxMLP(key, 0.0, dtype)),
        lambda dtype, params, state, key, x, y: equinox_loop(EquinoxMLP(key, 0.0, dtype), None, x, y),
    ),
    "equinox cnn": Case(
        lambda dtype: train.from_equinox(eqx.nn.make_with_state(lambda key: EquinoxCNN(key, dtype))),
        lambda dtype, params, state, key, x, y: equinox_loop(
            *eqx.nn.make_with_state(lambda: EquinoxCNN(key, dtype))(), x, y
        ),
    ),
}


def points(name: str, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    x, y = classification(dtype=dtype)
    return (random(3, len(y), *IMAGE, dtype=dtype), y) if "cnn" in name else (x, y)


# nnx writes float64 statistics into its float32 ones.
@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")
@pytest.mark.parametrize("name", ["linen mlp", "equinox mlp", *slow("linen cnn", "nnx mlp", "nnx cnn", "equinox cnn")])
def test_fit_equals_a_loop_in_the_model_s_library(name: str) -> None:
    with float64():
        case, (x, y) = CASES[name], points(name, np.float64)
        net = case.net(jnp.float64)
        fitted = train.fit(net, LOSS, optim.adam(RATE), (x, y), key=KEY, epochs=STEPS, batch_size=len(y),
                           progress=False)  # fmt: skip
        init_key = jax.random.split(KEY)[0]
        params, state = net.init(init_key, x[0])
        expected = case.loop(jnp.float64, params, state, init_key, x, y)
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(fitted.params))
        assert_close(fitted.params, expected[0], rtol=1e-8, atol=1e-10)
        assert_close(
            fitted.state, expected[1], rtol=1e-6, atol=1e-6
        )  # statistics keep their float32, those of a loop do not
        moved = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), fitted.params, params)
        assert min(jax.tree.leaves(moved)) > 1e-3


RANDOM = {
    "linen": lambda: train.from_flax(LinenMLP()),
    "nnx": lambda: train.from_flax(NnxMLP),
    "equinox": lambda: train.from_equinox(EquinoxMLP),
}


@functools.cache
def random_net(name: str) -> Layer:
    return RANDOM[name]()


@pytest.mark.parametrize("name", RANDOM)
def test_dropout_follows_the_key_and_is_off_in_evaluation(name: str) -> None:
    net, (x, _) = random_net(name), classification()
    params, state = net.init(KEY, x[0])
    assert state == ()

    @jax.jit
    def run(key: Any) -> Any:
        return net.apply(params, state, x, key=key, train=True)[0]

    a, b, again = run(KEY), run(jax.random.key(1)), run(KEY)
    chex.assert_trees_all_equal(a, again)
    assert np.mean(np.isclose(a, b)) < 0.5
    assert not np.allclose(a[0] - a[1], b[0] - b[1])
    chex.assert_trees_all_equal(net.predict(params, state, x), net.apply(params, state, x, key=KEY)[0])
    with pytest.raises(ValueError, match="needs a random key, got None"):
        net.apply(params, state, x, train=True)
    assert jax.eval_shape(net.predict, params, state, x).shape == (len(x), K)


def test_the_keys_of_dropout_are_those_that_are_documented() -> None:
    (x, _), module = classification(), LinenMLP()
    params, _ = random_net("linen").init(KEY, x[0])
    chex.assert_trees_all_equal(params, module.init({"params": KEY, "dropout": KEY}, x[:1], train=False)["params"])
    found = random_net("linen").apply(params, (), x, key=KEY, train=True)[0]
    expected = module.apply({"params": params}, x, train=True, rngs={"dropout": KEY})
    chex.assert_trees_all_equal(found, expected)
    model = EquinoxMLP(KEY)
    net = train.from_equinox(model)
    found = net.apply(*net.init(KEY, x[0]), x, key=KEY, train=True)[0]
    chex.assert_trees_all_equal(found, jax.vmap(model)(x, jax.random.split(KEY, len(x))))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen", "nnx", "equinox"])
def test_runs_are_bit_identical_and_ensembles_and_sweeps_are_fits(name: str) -> None:
    net, data = random_net(name), classification()
    how: dict[str, Any] = {"epochs": 3, "batch_size": 10}
    keys = jax.random.split(KEY, 2)
    fits = [train.fit(net, LOSS, optim.adam(RATE), data, key=key, progress=False, **how) for key in (*keys, keys[0])]
    chex.assert_trees_all_equal(fits[0].params, fits[2].params)
    several, _ = train.ensemble(net, LOSS, optim.adam(RATE), data, keys=keys, **how)
    rates = np.array([1e-3, RATE, 1e-1], np.float32)
    swept = train.sweep(lambda s: optim.adam(s["rate"]), {"rate": rates}, net, LOSS, data, keys=keys, progress=False,
                        **how)  # fmt: skip
    assert swept.curves["loss"].shape == (6, 3)
    for i, fit in enumerate(fits[:2]):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], several.params), fit.params, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(swept.curves["loss"][2 + i], [r["loss"] for r in fit.history], rtol=1e-4)
    error = train.evaluate(net, fits[0].params, fits[0].state, *data, {"loss": LOSS})["loss"]
    np.testing.assert_allclose(error, LOSS(net.predict(fits[0].params, (), data[0]), data[1]).mean(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen cnn", "nnx cnn", "equinox cnn"])
def test_running_statistics_are_updated_in_training_alone(name: str) -> None:
    net, (x, y) = CASES[name].net(jnp.float32), points(name)
    params, state = net.init(KEY, x[0])
    _, new = jax.jit(functools.partial(net.apply, train=True))(params, state, x, key=KEY)
    _, same = net.apply(params, new, x, key=KEY)
    chex.assert_trees_all_equal(same, new)
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), new, state)
    assert min(jax.tree.leaves(moved)) > 0
    assert list(map(jnp.result_type, jax.tree.leaves(new))) == list(map(jnp.result_type, jax.tree.leaves(state)))
    with pytest.raises(ValueError, match="the network has running statistics"):
        train.per_example_vg(net, LOSS)(params, state, x, y, key=KEY)
    with pytest.raises(ValueError, match="per-example gradients are undefined in training mode"):
        backprop.record(net, LOSS)(params, state, x, y, key=KEY, train=True)


@pytest.mark.parametrize("name", [*RANDOM, *slow("linen cnn", "nnx cnn", "equinox cnn")])
def test_statistics_of_per_example_gradients(name: str) -> None:
    net = random_net(name) if name in RANDOM else CASES[name].net(jnp.float32)
    x, y = points(name)
    params, state = net.init(KEY, x[0])

    def loss(params: Any, x: Any, y: Any) -> Any:  # in evaluation mode
        return LOSS(net.predict(params, state, x[None]), y[None])[0]

    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(params, x, y)
    expected = np.sqrt(
        sum(np.square(np.asarray(g, np.float64)).reshape(len(y), -1).sum(1) for g in jax.tree.leaves(grads))
    )
    tape = jax.jit(backprop.record(net, LOSS))(params, state, x, y)
    np.testing.assert_allclose(per_example.norms(tape), expected, rtol=1e-4)
    np.testing.assert_allclose(per_example.norms(per_example.record(loss)(params, x, y)), expected, rtol=1e-4)
    (_, _, found), _ = jax.jit(train.per_example_vg(loss))(params, (), x, y)
    np.testing.assert_allclose(found.values, expected**2, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linen", "nnx", "equinox"])
def test_gradients_with_dropout_by_both_ways(name: str) -> None:
    net, (x, y) = random_net(name), classification()
    params, state = net.init(KEY, x[0])
    ours = jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True)(params, state, x, y, key=KEY)
    assert_close(backprop.value_and_grad(net, LOSS)(params, state, x, y, key=KEY), ours, rtol=1e-5, atol=1e-7)
    assert [row.rule for row in backprop.coverage(net).rows] == ["jax.vjp"]
    keys = jax.random.split(KEY, len(y))

    def loss(params: Any, x: Any, y: Any, key: Any) -> Any:
        return LOSS(net.apply(params, (), x[None], key=key, train=True)[0], y[None])[0]

    grads = jax.vmap(jax.grad(loss), (None, 0, 0, 0))(params, x, y, keys)
    (_, _, found), mean = train.per_example_vg(net, LOSS)(params, state, x, y, key=KEY)
    assert_close(mean, jax.tree.map(lambda g: g.mean(0), grads), rtol=1e-4, atol=1e-6)
    norms = sum(np.square(g).reshape(len(y), -1).sum(1) for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(found.values, norms, rtol=1e-4)


def test_instances_keep_their_parameters_and_functions_make_fresh_ones() -> None:
    x, other = np.ones(D, np.float32), jax.random.key(5)
    module, model = NnxMLP(nnx.Rngs(0)), EquinoxMLP(KEY)
    held = nnx.to_pure_dict(nnx.state(module, nnx.Param)), eqx.filter(model, eqx.is_inexact_array)
    for made, own in zip((train.from_flax(module), train.from_equinox(model)), held, strict=True):
        chex.assert_trees_all_equal(made.init(other, x)[0], own)
        # What a step donates are copies.
        step = train.make_step(jax.value_and_grad(train.mean_loss(made, LOSS), has_aux=True), optim.sgd(0.1))
        params, state = made.init(other, x)
        step(train.TrainState(params, state, optim.sgd(0.1).init(params)), x[None], np.zeros(1, int), key=KEY)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(own))
    for name in RANDOM:
        a, b = (random_net(name).init(key, x)[0] for key in (KEY, other))
        assert not any(
            np.array_equal(p, q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True) if p.ndim > 1
        )


def test_a_call_of_one_s_own() -> None:
    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x: Any, mask: Any, evaluate: bool) -> Any:
            return nn.Dropout(0.5, deterministic=evaluate)(nn.Dense(K)(x * mask))

    class Scaled(eqx.Module):
        out: Any

        def __call__(self, x: Any, scale: Any) -> Any:
            return scale * self.out(x)

    x = np.ones((2, D), np.float32)
    with pytest.raises(TypeError, match=r"Masked: __call__ needs arguments .* \['mask', 'evaluate'\]. Pass call="):
        train.from_flax(Masked())
    net = train.from_flax(Masked(), call=lambda module, x, train: module(x, 0.0, evaluate=not train))
    params, state = net.init(KEY, (D,))
    np.testing.assert_array_equal(net.predict(params, state, x), np.zeros((2, K)))
    net.apply(params, state, x, key=KEY, train=True)
    model = Scaled(eqx.nn.Linear(D, K, key=KEY))
    with pytest.raises(TypeError, match=r"Scaled: __call__ needs arguments .* \['scale'\]"):
        train.from_equinox(model)
    net = train.from_equinox(model, call=lambda model, x, key, train: model(x, 2.0))
    np.testing.assert_allclose(net.predict(*net.init(KEY, (D,)), x), 2 * jax.vmap(model.out)(x), rtol=1e-6)


def test_what_is_no_model_and_what_lacks_its_state_raise() -> None:
    with pytest.raises(TypeError, match=r"must be a flax module, or a function from nnx\.Rngs to one, got 3"):
        train.from_flax(3)
    with pytest.raises(TypeError, match="must be an instance, got the class LinenMLP"):
        train.from_flax(LinenMLP)
    with pytest.raises(TypeError, match="must return an nnx module, got "):
        train.from_flax(lambda rngs: 3)
    with pytest.raises(TypeError, match="must be an equinox module, or a function from a key to one, got 3"):
        train.from_equinox(3)
    with pytest.raises(TypeError, match="must return an equinox module, or it and its state, got 3"):
        train.from_equinox(lambda key: 3)
    model, state = eqx.nn.make_with_state(EquinoxCNN)(KEY)
    with pytest.raises(ValueError, match=r"EquinoxCNN is stateful: pass its state too, from_equinox\(model, state\)"):
        train.from_equinox(model)
    found = train.from_equinox(model, state).init(KEY, IMAGE)
    chex.assert_trees_all_equal(found, train.from_equinox(EquinoxCNN(KEY)).init(jax.random.key(1), IMAGE))
    with pytest.raises(TypeError, match=r"(?s)net must be a Layer.*by train\.from_flax, train\.from_equinox or"):
        train.mean_loss(model, LOSS)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: train.from_equinox(eqx.nn.MLP),
            "a key alone, got the class MLP: missing .*argument: '.*size'. Pass an",
        ),
        (lambda: train.from_equinox(lambda: EquinoxMLP(KEY)), "a key alone, got the function <lambda>: too many"),
        (lambda: train.from_flax(nnx.Linear), r"nnx\.Rngs alone, got the class Linear: missing .*argument: 'out_feat"),
        (lambda: train.from_flax(lambda a, b: a), r"nnx\.Rngs alone, got the function <lambda>: missing .* 'b'\. Pass"),
    ],
)
def test_a_class_or_function_that_needs_other_arguments_is_refused(make: Callable[[], Layer], text: str) -> None:
    with pytest.raises(TypeError, match=f"expected a module, or a function of {text}"):
        make()


def test_a_random_stream_that_is_not_named_is_told() -> None:
    class Noisy(nn.Module):
        always: bool = False

        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            return x + jax.random.normal(self.make_rng("noise"), x.shape) if train or self.always else nn.Dense(K)(x)

    x = np.ones((2, D), np.float32)
    text = r"needs the random stream 'noise', got rngs=\('dropout',\)\. Pass .* rngs=\('dropout', 'noise'\)"
    with pytest.raises(ValueError, match=f"from_flax: Noisy: {text}"):
        train.from_flax(Noisy()).apply({}, (), x, key=KEY, train=True)
    with pytest.raises(ValueError, match="Noisy: needs a random key, got None"):
        train.from_flax(Noisy()).apply({}, (), x, train=True)
    with pytest.raises(ValueError, match="needs the random stream 'noise' in evaluation mode, got no key"):
        train.from_flax(Noisy(True), rngs=("noise",)).predict({}, (), x)
    y, _ = train.from_flax(Noisy(), rngs=("dropout", "noise")).apply({}, (), x, key=KEY, train=True)
    assert not np.allclose(y, x)


def test_fit_refuses_a_model_of_several_outputs() -> None:
    class Heads(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(K)(x), x

    with pytest.raises(TypeError, match=r"fit: the network must return one array \(N, ...\), got tuple .* call=lambda"):
        train.fit(train.from_flax(Heads()), LOSS, optim.sgd(0.1), classification(), key=KEY, epochs=1, progress=False)


def test_boxed_parameters_of_linen_are_arrays_and_what_is_sown_is_no_state() -> None:
    class Boxed(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            kernel = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
            y = nn.Dense(K, kernel_init=kernel)(x)
            self.sow("intermediates", "y", y)
            return y

    net = train.from_flax(Boxed())
    params, state = net.init(KEY, (D,))
    assert (type(params["Dense_0"]["kernel"]).__name__, state) == ("ArrayImpl", ())
    assert net.apply(params, state, np.ones((2, D), np.float32), train=True)[0].shape == (2, K)


def test_a_collection_that_grows_raises() -> None:
    class Sowing(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            self.sow("penalties", "sum", x.sum())
            return x

    net = train.from_flax(Sowing())
    params, state = net.init(KEY, (D,))
    with pytest.raises(ValueError, match=r"Sowing: the collections \['penalties'\] must keep their structure"):
        net.apply(params, state, np.ones((2, D), np.float32), train=True)


def test_integer_arrays_of_equinox_models_are_not_optimized() -> None:
    class Permuted(eqx.Module):
        order: Any
        out: Any

        def __init__(self, key: Any) -> None:
            self.order, self.out = jax.random.permutation(key, D), eqx.nn.Linear(D, K, key=key)

        def __call__(self, x: Any) -> Any:
            return self.out(x[self.order])

    net, data = train.from_equinox(Permuted), classification()
    fitted = train.fit(net, LOSS, optim.adam(RATE), data, key=KEY, epochs=2, batch_size=25, progress=False)
    expected = Permuted(jax.random.split(KEY)[0])
    np.testing.assert_array_equal(fitted.state[1].order, expected.order)
    assert fitted.params.order is None
    assert not np.allclose(fitted.params.out.weight, expected.out.weight)


def test_summary_shows_a_model_as_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert models.summary(random_net("nnx"), (D,)) == 8 * (D + 1) + K * 9
    assert "NnxMLP   (3,)            83    144" in capsys.readouterr().out


@pytest.mark.slow
def test_a_race_on_a_model(tmp_path: Any) -> None:
    x, y = classification()
    problem = compare.problems.Problem("flax", random_net("linen"), LOSS, Dataset(x, y), None, 10, 2)
    race = compare.race("sgd,adam", problem, learning_rates="1e-2,1e-1", seeds=2, ways_on=(), progress=False)
    assert [result.optimizer for result in race.results] == ["sgd", "adam"]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flax.linen", None)
    with pytest.raises(ImportError, match=r"from_flax: needs flax. Install it: pip install flax"):
        train.from_flax(3)


def test_variables_that_nnx_writes_in_evaluation_stay_as_they_are() -> None:
    class Counted(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.calls = nnx.Variable(jnp.zeros(()))

        def __call__(self, x: Any) -> Any:
            self.calls[...] += 1
            return x * self.calls[...]

    net = train.from_flax(Counted)
    _, state = net.init(KEY, (D,))
    x = np.ones((2, D), np.float32)
    assert [float(net.apply({}, state, x, train=mode)[1]["calls"]) for mode in (True, False)] == [1, 0]


def test_models_of_the_other_library_are_named() -> None:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    model = eqx.nn.MLP(D, K, 8, 1, key=KEY)
    with pytest.raises(TypeError, match=r"from_flax: expected a module of that library.* got .* equinox\..*MLP"):
        train.from_flax(model)
    with pytest.raises(TypeError, match=r"from_equinox: expected a module of that library.*LinenMLP"):
        train.from_equinox(LinenMLP())
