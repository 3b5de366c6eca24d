"""Recurrent layers: torch and NumPy, padding, carries, dtypes, errors."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, backprop, layers, losses, models
from jaxnn.layers import GRU, LSTM, RNN, Dense, Dropout, LinearRecurrence, Reversed, Sequences, tied
from tests.helpers import assert_close, float64, random, strict

N, T, D, H = 3, 6, 4, 5
LAYERS = {
    "rnn": RNN(H),
    "rnn of relu": RNN(H, activation=activations.relu),
    "lstm": LSTM(H),
    "gru": GRU(H),
    "gru, reset before": GRU(H, reset_after=False),
    "linear recurrence": LinearRecurrence(H),
}
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1]], bool)
X = random(0, N, T, D)


def drawn(layer: Any, dtype: Any = np.float64, features: int = D) -> Any:
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), (T, features))[0])
    return {name: random(i, *p.shape, dtype=dtype) / 2 for i, (name, p) in enumerate(sorted(params.items()))}


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def transcription(name: str, p: Any, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The equations in NumPy, one example and one position at a time."""
    y = np.zeros((*x.shape[:2], H))
    for n in range(len(x)):
        h = c = np.zeros(H)
        for t in range(x.shape[1]):
            if mask is not None and not mask[n, t]:
                continue
            a = x[n, t] @ p["w"] + p["b"]
            if name.startswith("rnn"):
                z = a + h @ p["u"]
                h = np.tanh(z) if name == "rnn" else np.maximum(z, 0)
            elif name.startswith("linear"):
                f, v = np.split(a, 2)
                h = sigmoid(f) * h + (1 - sigmoid(f)) * v
            elif name == "lstm":
                i, f, g, o = np.split(a + h @ p["u"], 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                (a_r, a_z, a_n), (u_r, u_z, u_n) = np.split(a, 3), np.split(p["u"], 3, axis=1)
                r, z = sigmoid(a_r + h @ u_r), sigmoid(a_z + h @ u_z)
                n_t = np.tanh(a_n + (r * (h @ u_n + p["b_u"]) if name == "gru" else (r * h) @ u_n))
                h = (1 - z) * n_t + z * h
            y[n, t] = h
    return y


@functools.cache
def outputs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each layer, in float64, without and with the mask; one program."""

    def both(layer: Any, params: Any, x: Any) -> Any:
        masked = layer.predict(params, (), Sequences(x, jnp.asarray(MASK)))
        return layer.predict(params, (), x), masked.values

    with float64(), strict():
        every = jax.jit(lambda params, x: {name: both(LAYERS[name], params[name], x) for name in LAYERS})
        return every({name: drawn(layer) for name, layer in LAYERS.items()}, X)


def check(name: str, found: Any) -> None:
    params = drawn(LAYERS[name])
    for y, mask in zip(found, (None, MASK), strict=True):
        assert_close(y, transcription(name, params, X, mask), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", LAYERS)
def test_equations_also_where_masked(name: str) -> None:
    check(name, outputs()[name])


def test_other_recurrences_are_caught() -> None:
    for name, other in [("gru", "gru, reset before"), ("rnn", "rnn of relu")]:
        with pytest.raises(AssertionError):
            check(name, outputs()[other])
    plain, masked = outputs()["lstm"]
    for broken in [(masked, plain), (plain, plain), (plain, np.where(MASK[..., None], plain, 0))]:
        with pytest.raises(AssertionError):
            check("lstm", broken)


def torch_params(name: str, theirs: Any) -> dict[str, np.ndarray]:
    """torch's parameters of a layer as ours: the transposed matrices, and the sum of the biases where they add."""
    p = {n: v.detach().numpy() for n, v in theirs.named_parameters()}
    w, u, b, b_h = (p[f"{kind}_l0"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    if name != "gru":
        return {"w": w.T, "u": u.T, "b": b + b_h}
    return {"w": w.T, "u": u.T, "b": b + np.where(np.arange(3 * H) < 2 * H, b_h, 0), "b_u": b_h[2 * H :]}


@pytest.mark.parametrize(("wide", "tolerance"), [(True, 1e-12), (False, 1e-6)])
def test_torch_agrees_in_outputs_carry_and_gradients(wide: bool, tolerance: float) -> None:
    torch = pytest.importorskip("torch")
    dtype = np.float64 if wide else np.float32
    x, dy = random(0, N, T, D, dtype=dtype), random(1, N, T, H, dtype=dtype)
    classes = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    made = {name: make(D, H, batch_first=True, dtype=torch.tensor(x).dtype) for name, make in classes.items()}
    made["rnn of relu"] = torch.nn.RNN(D, H, nonlinearity="relu", batch_first=True, dtype=torch.tensor(x).dtype)
    carries = {name: {n: random(2, N, H, dtype=dtype) for n in LAYERS[name].kind.carry} for name in made}

    def of(name: str, params: Any, x: Any) -> Any:
        (y, carry), pull = jax.vjp(lambda p, x: LAYERS[name].apply(p, carries[name], x), params, x)
        return y, carry, pull((jnp.asarray(dy), jax.tree.map(jnp.zeros_like, carry)))

    params = {name: torch_params(name, theirs) for name, theirs in made.items()}
    with float64() if wide else strict():
        found = jax.jit(lambda params, x: {name: of(name, params[name], x) for name in params})(params, x)
    for name, theirs in made.items():
        inputs = torch.tensor(x, requires_grad=True)
        first = [torch.tensor(carries[name][n])[None] for n in LAYERS[name].kind.carry]
        y, last = theirs(inputs, tuple(first) if name == "lstm" else first[0])
        (y * torch.tensor(dy)).sum().backward()
        last = last if name == "lstm" else (last,)
        grads = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
        own_y, own_carry, (own_grads, dx) = found[name]
        assert_close(own_y, y.detach().numpy(), rtol=tolerance, atol=tolerance)
        for n, value in zip(LAYERS[name].kind.carry, last, strict=True):
            assert_close(own_carry[n], value[0].detach().numpy(), rtol=tolerance, atol=tolerance)
        for ours, grad in [
            (own_grads["w"].T, grads["weight_ih_l0"]), (own_grads["u"].T, grads["weight_hh_l0"]),
            (own_grads["b"], grads["bias_ih_l0"]), (dx, inputs.grad.numpy()),
        ]:  # fmt: skip
            assert_close(ours, grad, rtol=10 * tolerance, atol=10 * tolerance)
        if name == "gru":
            assert_close(own_grads["b_u"], grads["bias_hh_l0"][2 * H :], rtol=10 * tolerance, atol=10 * tolerance)


NET = models.serial(
    models.parallel(LSTM(3), Reversed(GRU(2))),
    Dense(3),
    RNN(2),
    LinearRecurrence(3),
    GRU(3, reset_after=False),
    layers.LastPosition,
)


@pytest.mark.slow
def test_what_stands_at_masked_positions_changes_no_bit() -> None:
    params = jax.tree.map(
        lambda p: random(p.size, *p.shape, dtype=np.float32),
        jax.eval_shape(lambda: NET.init(jax.random.key(0), (T, D))[0]),
    )
    mask = MASK.copy()
    mask[2] = False  # all padding

    @jax.jit
    def both(values: Any) -> Any:
        def loss(params: Any, values: Any) -> Any:
            y, _ = NET.apply(params, (), Sequences(values, jnp.asarray(mask)))
            return jnp.sum(jnp.sin(y))

        x = Sequences(values, jnp.asarray(mask))
        y, _, cache = backprop.combinators.forward(NET, params, (), x)
        own = backprop.combinators.backward(NET, params, cache, jnp.cos(y), backprop.rule.GRADIENT)
        return loss(params, values), jax.grad(loss, (0, 1))(params, values), (own[0].values, own[1])

    clean = both(np.where(mask[..., None], X, 0).astype(np.float32))
    for rubbish in (np.nan, np.inf, 7.0):
        found = both(np.where(mask[..., None], X, rubbish).astype(np.float32))
        jax.tree.map(np.testing.assert_array_equal, found, clean)
    assert not np.any(np.asarray(clean[1][1])[~mask])
    assert not np.any(np.asarray(clean[2][0])[~mask])
    assert_close(clean[2][1], clean[1][0], rtol=1e-4, atol=1e-4)


def test_padding_is_as_the_sequence_alone() -> None:
    """Each example, cut to its positions, gives the same outputs and the same carry."""
    net = models.serial(LSTM(3), models.parallel(GRU(2), Reversed(RNN(2))))
    with float64():
        params = jax.tree.map(
            lambda p: random(p.size, *p.shape), jax.eval_shape(lambda: net.init(jax.random.key(0), (T, D))[0])
        )
        apply = jax.jit(net.apply)
        together, state = apply(params, models.begin(net, params, (), N), Sequences(X, MASK))
        for n in range(N):
            alone, own = apply(params, models.begin(net, params, (), 1), X[n : n + 1, MASK[n]])
            assert_close(together.values[n : n + 1, MASK[n]], alone, rtol=1e-13, atol=1e-15)
            assert_close(jax.tree.map(lambda s, n=n: s[n : n + 1], state), own, rtol=1e-13, atol=1e-15)


def test_position_by_position_is_the_whole_sequence() -> None:
    """With a carry as state, T calls of one position are one call of T; with `()` each starts from zeros."""
    embed = layers.Embedding(7, 4)
    net = models.serial(embed, LSTM(4), Dropout(0.5), models.residual(GRU(4)), LinearRecurrence(4), RNN(4), tied(embed))
    tokens = np.random.default_rng(0).integers(0, 7, (N, T)).astype(np.int32)
    example = jax.ShapeDtypeStruct((T,), jnp.int32)
    params, state = jax.jit(lambda key: net.init(key, example))(jax.random.key(0))
    assert state == ()
    step = jax.jit(net.apply)
    whole, last = step(params, models.begin(net, params, (), N), tokens)
    carry, found = models.begin(net, params, (), N), []
    for t in range(T):
        y, carry = step(params, carry, tokens[:, t : t + 1])
        found.append(y)
    assert_close(np.concatenate(found, 1), whole, rtol=1e-5, atol=1e-6)
    assert_close(carry, last, rtol=1e-5, atol=1e-6)
    forgetful, nothing = step(params, (), tokens[:, 1:2])
    assert nothing == ()
    assert np.abs(np.asarray(forgetful) - whole[:, 1:2]).max() > 1e-3


def test_the_start_of_a_network() -> None:
    normed = models.serial(layers.BatchNorm(), LSTM(2), Reversed(GRU(2)))
    params, state = normed.init(jax.random.key(0), (T, D))
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    found = models.begin(normed, half, state, 4)
    assert jax.tree.map(lambda s: (s.shape, s.dtype.name), found) == (
        {"mean": ((4,), "float32"), "var": ((4,), "float32")},
        {"h": ((4, 2), "float32"), "c": ((4, 2), "float32")},
        (),
    )
    mlp, lstm = models.mlp([3, 2]), LSTM(3)
    assert models.begin(mlp, mlp.init(jax.random.key(0), (3,))[0], (), 4) == ()
    twice = models.serial(lstm, tied(lstm))
    carries = models.begin(twice, twice.init(jax.random.key(0), (T, 3))[0], (), 4)
    assert jax.tree.map(jnp.shape, carries) == ({"h": (4, 3), "c": (4, 3)},) * 2
    _, new = normed.apply(params, found, jnp.ones((4, T, D)), train=True)
    assert jax.tree.structure(new) == jax.tree.structure(found)


def test_training_goes_on_from_the_carry_and_takes_it_as_a_constant() -> None:
    """Truncated backpropagation through time: the rule's gradient is that of jax.grad with a constant carry."""
    net = models.serial(LSTM(3), Dense(2))
    params, _ = net.init(jax.random.key(0), (T, D))
    x, y = X.astype(np.float32), np.zeros((N, T, 2), np.float32)
    step = jax.jit(backprop.value_and_grad(net, losses.mse))
    (_, carry), _ = step(params, models.begin(net, params, (), N), x, y)
    (value, again), grads = step(params, carry, x, y)
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, carry)

    def loss(params: Any, state: Any) -> Any:
        return jnp.mean(losses.mse(net.apply(params, state, x)[0], y))

    expected, (own, into) = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, carry)
    assert_close((value, grads), (expected, own), rtol=1e-5, atol=1e-7)
    assert np.abs(into[0]["c"]).max() > 0  # through apply itself the carry has a gradient
    (fresh, _), _ = step(params, (), x, y)
    assert abs(fresh - value) > 1e-6


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes(dtype: Any) -> None:
    """Parameters, outputs and gradients in the dtype of x, carries in float32; half precision is close to float64."""
    x = X.astype(dtype)

    def everything(layer: Any, params: Any, x: Any) -> Any:
        x = Sequences(x, jnp.asarray(MASK))
        y, state, cache = backprop.combinators.forward(layer, params, models.begin(layer, params, (), N), x)
        dx, grads = backprop.combinators.backward(layer, params, cache, y, backprop.rule.GRADIENT)
        return y.values, state, dx.values, grads

    every = jax.jit(lambda params, x: {name: everything(layer, params[name], x) for name, layer in LAYERS.items()})
    params = {name: jax.tree.map(lambda p: p.astype(dtype), drawn(layer)) for name, layer in LAYERS.items()}
    with strict():
        found = every(params, x)
    with float64():
        wide = every(*jax.tree.map(lambda a: np.asarray(a, np.float64), (params, x)))
    eps = 20 * float(jnp.finfo(dtype).eps)
    for name, (y, state, dx, grads) in found.items():
        assert y.dtype == dx.dtype == dtype
        assert {s.dtype for s in state.values()} == {jnp.dtype(jnp.float32)}
        assert {g.dtype for g in grads.values()} == {jnp.dtype(dtype)}
        for got, expected in zip(jax.tree.leaves(found[name]), jax.tree.leaves(wide[name]), strict=True):
            assert_close(got, expected, rtol=eps, atol=eps * np.abs(expected).max())


@pytest.mark.parametrize("name", LAYERS)
def test_strict_vmap_over_parameters_and_inits(name: str) -> None:
    layer = LAYERS[name]
    x = X.astype(np.float32)
    with strict():
        keys = jax.random.split(jax.random.key(0), 2)
        params = jax.jit(jax.vmap(lambda key: layer.init(key, (T, D))[0]))(keys)
        many = jax.jit(jax.vmap(layer.predict, (0, None, None)))(params, (), x)
        one = jax.jit(layer.predict)(jax.tree.map(lambda p: p[1], params), (), x)
    assert_close(many[1], one, rtol=1e-5, atol=1e-6)
    if "u" in params:
        u = np.asarray(params["u"][0])
        for block in np.split(u, u.shape[1] // H, axis=1):  # orthogonal block by block
            assert_close(block.T @ block, np.eye(H), rtol=0, atol=1e-5)
    bias = np.zeros_like(params["b"][0])
    if name == "lstm":
        bias[H : 2 * H] = 1
    if name == "linear recurrence":
        bias[:H] = 1
    assert_close(params["b"][0], bias, rtol=0)


LINEAR = (layers.linear_recurrence, LinearRecurrence(H))


@pytest.mark.slow
def test_modules_are_the_layers() -> None:
    key, x = jax.random.key(1), X.astype(np.float32)
    for module, layer in [(layers.recurrent, RNN(H)), (layers.lstm, LSTM(H)), (layers.gru, GRU(H)), LINEAR]:
        params = module.init(key, D, H)
        assert_close(layer.init(key, (T, D))[0], params, rtol=0)
        assert_close(module.apply(params, x)[0], layer.predict(params, (), x), rtol=0)


def test_messages() -> None:
    layer = LSTM(H)
    params, _ = layer.init(jax.random.key(0), (T, D))
    for raised, words, call in [
        (ValueError, r"lstm: an example must have shape \(T, D\)", lambda: layer.init(jax.random.key(0), (D,))),
        (ValueError, r"x must have shape \(N, T, 4\)", lambda: layer.predict(params, (), jnp.ones((N, D)))),
        (ValueError, r"x must have shape", lambda: layer.predict(params, (), jnp.ones((N, 0, D)))),
        (TypeError, "Embedding in front", lambda: layer.predict(params, (), jnp.ones((N, T, D), jnp.int32))),
        (ValueError, r"models.begin\(net, params, state, 3\)", lambda: layer.apply(params, {"h": jnp.ones((N, H))}, X)),
        (
            ValueError,
            r"models.begin\(net, params, state, 3\)",
            lambda: layer.apply(params, models.begin(layer, params, (), 2), X),
        ),
        (ValueError, r"models.begin", lambda: layer.apply(params, (1,), X)),
        (ValueError, "the mask must have shape", lambda: layer.predict(params, (), Sequences(X, MASK[:, :2]))),
        (ValueError, "u must have shape", lambda: layer.predict(params | {"u": params["u"][:, :3]}, (), X)),
        (ValueError, "params must be a dict with 'w'", lambda: layer.predict((), (), X)),
        (ValueError, "activation must be", lambda: RNN(3, activation=jnp.sin)),
        (ValueError, "hidden", lambda: GRU(0)),
        (TypeError, "Reversed: net must be a Layer", lambda: Reversed(LSTM)),
        (ValueError, r"Reversed: x must have shape \(N, T", lambda: Reversed(layers.Relu).predict(((),), (), X[0, 0])),
    ]:
        with pytest.raises(raised, match=words):
            call()
