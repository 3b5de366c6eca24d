"""Rules of recurrent layers: backpropagation through time.

A recurrence computes for t = 1, ..., T, with one set of parameters,

    a_t = x_t w + b,   g_t = h_(t-1) u,   h_t = f(a_t, g_t, h_(t-1))

and C depends on every h_t: unrolled, it is a feedforward network of T layers. dC/dh_t is the sum of dy_t, the cotangent
of the output h_t, and of what comes back from position t + 1. One loop from t = T to 1 computes it and the cotangents
of the pre-activations, da_t and dg_t, and with them

    dC/dh_(t-1) = dg_t u' + (what f passes on of h_(t-1) itself)
    dC/dx_t = da_t w'
    dC/dw = sum_t x_t' da_t,   dC/du = sum_t h_(t-1)' dg_t,   dC/db = sum_t da_t

The last two lines need no loop: each is one product over all examples and positions, on a tape one use with T
positions. The forward pass keeps the activations of the gates, so that no gate is computed again.

**RNN**, h_t = f(z_t), z = a + g: da = dg = f'(z) dh, where f' follows from h: 1 - h^2 for tanh, 1[h > 0] for ReLU.

**LSTM**, z = a + g = (z_i, z_f, z_g, z_o), da = dg = dz; i, f, o are sigmoid and g is tanh of these;
c_t = f c_(t-1) + i g, h_t = o tanh(c_t). The cell passes its cotangent on by the factor f alone, with neither u nor a
derivative of a sigmoid in it:

    dc_t     = dc (from t + 1) + dh o (1 - tanh(c_t)^2)
    dc_(t-1) = dc_t f
    dz_i = dc_t g i (1 - i),   dz_f = dc_t c_(t-1) f (1 - f),   dz_g = dc_t i (1 - g^2),   dz_o = dh tanh(c_t) o (1 - o)

**GRU**, r, z = sigmoid(a + g), n = tanh(a_n + r m), m = g_n + b_u, h_t = (1 - z) n + z h_(t-1):

    da_z = dh (h_(t-1) - n) z (1 - z),   da_n = dh (1 - z)(1 - n^2),   da_r = da_n m r (1 - r)
    dg = (da_r, da_z, da_n r),   dC/db_u = sum_t da_n r,   dh_(t-1) = dg u' + dh z

With the reset before the product, n = tanh(a_n + (r h_(t-1)) u_n), let q = da_n u_n': da_r = q h_(t-1) r (1 - r), and
dh_(t-1) = (da_r, da_z) (u_r, u_z)' + q r + dh z. Then u has two uses: h_(t-1) with its first two blocks of columns, and
r h_(t-1) with the last.

**Gated linear recurrence**, f = sigmoid(a_f), v = a_v, h_t = f_t h_(t-1) + (1 - f_t) v_t:

    dh_t = dy_t + f_(t+1) dh_(t+1)
    da_f = dh (h_(t-1) - v) f (1 - f),   da_v = dh (1 - f)

The first line is again a linear recurrence, read from the end: the adjoint of an associative scan is a reversed one.

**Padding**: at a masked position h_t = h_(t-1), so that dC/dh passes unchanged, da = dg = 0, and dy is dropped.

The incoming carry counts as a constant: with a carry as state this is truncated backpropagation through time.

References:
    Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning internal representations by error propagation,
        section "Recurrent nets".
    Werbos, P. J. (1990). Backpropagation through time: what it does and how to do it.
    Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory.
    Gers, F. A., Schmidhuber, J. & Cummins, F. (2000). Learning to forget: continual prediction with LSTM.
    Cho, K., van Merrienboer, B., Gulcehre, C., et al. (2014). Learning phrase representations using RNN encoder-decoder
        for statistical machine translation.
    Martin, E. & Cundy, C. (2018). Parallelizing linear recurrent neural nets over sequence length, section 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import activations
from jaxnn.backprop.combinators import backward, forward
from jaxnn.backprop.rule import USES, Collect, Rule, computed_once, register, rule_of
from jaxnn.layers import gru, linear_recurrence, lstm, recurrence, recurrent
from jaxnn.layers.base import Kind, Layer
from jaxnn.layers.recurrence import (
    Carry,
    History,
    beside_inputs,
    carry_in,
    held,
    recurrent_product,
    reversed_in_time,
    split,
    zero_carry,
)
from jaxnn.layers.sequences import mask_of, only, values_of, with_values
from jaxnn.numerics import accumulate, dot_general
from jaxnn.ops.views import Slice, View
from jaxnn.tape import Addition, Placed, Product
from jaxnn.types import Array, DType, Key, Params, PyTree, State

Deltas: TypeAlias = tuple[Array, ...]
"""(da, dg), the cotangents of x w + b and of h u, (T, N, G H); (dz,) where the two are one."""

StepBack: TypeAlias = Callable[[Carry, Any, Carry], tuple[Carry, Deltas]]
"""(carry before, what the step kept, cotangent of the carry after) -> (cotangent of the carry before, deltas)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unrolled:
    """The cache: the history of the forward pass, and the deltas once the loop back has computed them."""

    history: History
    deltas: Deltas | None = None


@dataclasses.dataclass(frozen=True)
class _ThroughTime(Rule):
    """A rule whose `input_grad` and `uses` read the deltas of one loop back in time.

    Attributes:
        in_time: the uses with T as the first axis of their arrays, N as the second.
    """

    in_time: Callable[..., dict[str, Any]] = lambda *leaf: {}

    def backward(self, layer: Layer, params: Params, cache: Unrolled, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        once: Any = dataclasses.replace(cache, deltas=_deltas(layer, params, cache, dy))
        return self.input_grad(layer, params, once, dy), collect(self)(layer, params, once, dy)

    def param_grad(self, layer: Layer, params: Params, cache: Unrolled, dy: Array) -> Params:
        # A sum over examples and positions: in the loop's own order, no array is transposed.
        return Rule.param_grad(dataclasses.replace(self, uses=self.in_time), layer, params, cache, dy)


def _rule(forward: Callable[..., Any], in_time: Callable[..., dict[str, Any]]) -> _ThroughTime:
    def uses(layer: Layer, params: Params, cache: Unrolled, dy: Any) -> PyTree:
        return jax.tree.map(_by_examples, in_time(layer, params, cache, dy))

    return _ThroughTime(forward, _input_grad, uses, in_time=in_time)


def _by_examples(x: Array) -> Array:
    """(T, N, D) as (N, T, D)."""
    return jnp.swapaxes(x, 0, 1)


def _deltas(layer: Layer, params: Params, cache: Unrolled, dy: Any) -> Deltas:
    """Those of the cache, or of a loop back."""
    if cache.deltas is not None:
        return cache.deltas
    if layer.kind is linear_recurrence.KIND:
        return _linear_deltas(cache.history, values_of(dy))
    u = beside_inputs(params["u"], cache.history.x)
    back = STEPS_BACK[layer.kind](layer, u, values_of(dy).dtype)
    return _swept(back, cache.history, values_of(dy), u)


def _swept(back: StepBack, history: History, dy: Array, u: Array) -> Deltas:
    """The loop from the last position to the first."""
    dy = only(history.mask, jnp.swapaxes(dy, 0, 1))
    last = {name: zero_carry(jax.eval_shape(lambda h: h[0], h), dy, u) for name, h in history.before.items()}

    def at(later: Carry, now: tuple[Array, Carry, Any, Array | None]) -> tuple[Carry, Deltas]:
        dh, before, kept, counts = now
        d = later | {"h": later["h"] + accumulate(dh)}
        nothing = jax.tree.map(jnp.zeros_like, d)
        earlier, deltas = back(before, kept, held(counts, d, nothing))
        if counts is not None:
            earlier = jax.tree.map(jnp.add, earlier, held(counts, nothing, d))
        return earlier, deltas

    return lax.scan(at, last, (dy, history.before, history.kept, history.mask), reverse=True)[1]


def _input_grad(layer: Layer, params: Params, cache: Unrolled, dy: Any) -> Any:
    da, x = _deltas(layer, params, cache, dy)[0], cache.history.x
    dx = dot_general(da, params["w"].astype(da.dtype), (((2,), (1,)), ((), ())))
    return with_values(dy, _by_examples(dx).astype(x.dtype))


def _uses(layer: Layer, params: Params, cache: Unrolled, dy: Any) -> dict[str, Any]:
    deltas, x = _deltas(layer, params, cache, dy), cache.history.x
    uses: dict[str, Any] = {
        "w": (Product(x, deltas[0]),),
        "u": (Product(_hidden(cache.history, deltas[-1].dtype), deltas[-1]),),
    }
    return uses | ({"b": (Addition(deltas[0]),)} if "b" in params else {})


def _hidden(history: History, dtype: DType) -> Array:
    """h_(t-1) (T, N, H), 0 where masked."""
    return only(history.mask, history.before["h"].astype(dtype))


def _forward(unrolled: Callable[..., tuple[Array, Carry, History]], *settings: str) -> Callable[..., Any]:
    """The forward pass of a rule: that of the layer, which keeps the history."""

    def forward(
        layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
    ) -> tuple[Any, State, Unrolled]:
        first, chosen = carry_in(state), {name: layer.options[name] for name in settings}
        y, carry, history = unrolled(params, values_of(x), first, mask_of(x), **chosen)
        return with_values(x, y), state if first is None else carry, Unrolled(history)

    return forward


def _rnn_back(layer: Layer, u: Array, dtype: DType) -> StepBack:
    # Transposed outside the loop: inside it, on a CPU the product would take twice the time.
    u_t = u.T

    def back(before: Carry, h: Array, d: Carry) -> tuple[Carry, Deltas]:
        dz = (d["h"] * SLOPES[layer.options["activation"]](h)).astype(dtype)
        return {"h": recurrent_product(u_t, dz)}, (dz,)

    return back


SLOPES = {activations.tanh: lambda h: (1 + h) * (1 - h), activations.relu: activations.relu_derivative}
"""f' at z as a function of h = f(z)."""


def _lstm_back(layer: Layer, u: Array, dtype: DType) -> StepBack:
    u_t = u.T

    def back(before: Carry, gates: Array, d: Carry) -> tuple[Carry, Deltas]:
        i, f, g, o = split(gates, 4)
        t = jnp.tanh(f * before["c"] + i * g)
        dc = d["c"] + d["h"] * o * (1 + t) * (1 - t)
        of_gates = (
            dc * g * i * (1 - i),
            dc * before["c"] * f * (1 - f),
            dc * i * (1 + g) * (1 - g),
            d["h"] * t * o * (1 - o),
        )
        dz = jnp.concatenate(of_gates, axis=-1).astype(dtype)
        return {"h": recurrent_product(u_t, dz), "c": dc * f}, (dz,)

    return back


def _gru_back(layer: Layer, u: Array, dtype: DType) -> StepBack:
    if not layer.options["reset_after"]:
        return _gru_back_reset_before(u, dtype)
    u_t = u.T

    def back(before: Carry, kept: Array, d: Carry) -> tuple[Carry, Deltas]:
        (r, z, n, m), h, dh = split(kept, 4), before["h"], d["h"]
        da_n, da_z = dh * (1 - z) * (1 + n) * (1 - n), dh * (h - n) * z * (1 - z)
        da_r = da_n * m * r * (1 - r)
        da = jnp.concatenate([da_r, da_z, da_n], axis=-1).astype(dtype)
        dg = jnp.concatenate([da_r, da_z, da_n * r], axis=-1).astype(dtype)
        return {"h": recurrent_product(u_t, dg) + dh * z}, (da, dg)

    return back


def _gru_back_reset_before(u: Array, dtype: DType) -> StepBack:
    gates = 2 * u.shape[0]
    gates_t, u_n_t = u[:, :gates].T, u[:, gates:].T

    def back(before: Carry, kept: Array, d: Carry) -> tuple[Carry, Deltas]:
        (r, z, n), h, dh = split(kept, 3), before["h"], d["h"]
        da_n, da_z = (dh * (1 - z) * (1 + n) * (1 - n)).astype(dtype), dh * (h - n) * z * (1 - z)
        q = recurrent_product(u_n_t, da_n)
        d_gates = jnp.concatenate([q * h * r * (1 - r), da_z], axis=-1).astype(dtype)
        da = jnp.concatenate([d_gates, da_n], axis=-1)
        return {"h": recurrent_product(gates_t, d_gates) + q * r + dh * z}, (da,)

    return back


def _gru_uses(layer: Layer, params: Params, cache: Unrolled, dy: Any) -> dict[str, Any]:
    uses, hidden = _uses(layer, params, cache, dy), params["u"].shape[0]
    h, dg, gates = uses["u"][0].a, uses["u"][0].delta, 2 * hidden
    if layer.options["reset_after"]:
        return uses | ({"b_u": (Addition(dg[..., gates:]),)} if "b_u" in params else {})
    reset = (cache.history.kept[..., :hidden] * accumulate(h)).astype(h.dtype)
    first, last = (_columns(params["u"], *ends) for ends in ((0, gates), (gates, 3 * hidden)))
    products = Product(h, dg[..., :gates]), Product(reset, dg[..., gates:])
    return uses | {"u": (Placed(products[0], first), Placed(products[1], last))}


def _linear_deltas(history: History, dy: Array) -> Deltas:
    (f, v), mask = history.kept, history.mask
    dh = accumulate(only(mask, jnp.swapaxes(dy, 0, 1)))
    later = _of_the_next(linear_recurrence.held_factor(f, mask))
    dh = only(mask, lax.associative_scan(linear_recurrence.composed, (later, dh), reverse=True)[1])
    da = jnp.concatenate([dh * (history.before["h"] - v) * f * (1 - f), dh * (1 - f)], axis=-1).astype(dy.dtype)
    return (computed_once(da),)


def _of_the_next(f: Array) -> Array:
    """f_(t+1) at t; 0 at the last."""
    return jnp.concatenate([f[1:], jnp.zeros_like(f[:1])])


def _linear_uses(layer: Layer, params: Params, cache: Unrolled, dy: Any) -> dict[str, Any]:
    da, x = _deltas(layer, params, cache, dy)[0], cache.history.x
    return {"w": (Product(x, da),)} | ({"b": (Addition(da),)} if "b" in params else {})


def _columns(u: Array, begin: int, end: int) -> View:
    """The view of a block of columns."""
    return View(u.shape).then(Slice((0, begin), (u.shape[0], end), (1, 1)))


STEPS_BACK: dict[Kind, Callable[[Layer, Array, DType], StepBack]] = {
    recurrent.KIND: _rnn_back,
    lstm.KIND: _lstm_back,
    gru.KIND: _gru_back,
}

RNN = register(recurrent.KIND, _rule(_forward(recurrent.unrolled, "activation"), _uses))
"""dz_t = f'(z_t) (dy_t + dz_(t+1) u')."""

LSTM = register(lstm.KIND, _rule(_forward(lstm.unrolled), _uses))
"""dc_t = dc_(t+1) f_(t+1) + dh_t o_t (1 - tanh(c_t)^2); dh_t = dy_t + dz_(t+1) u'."""

GRU = register(gru.KIND, _rule(_forward(gru.unrolled, "reset_after"), _gru_uses))
"""dh_t = dy_t + dg_(t+1) u' + dh_(t+1) z_(t+1)."""

LINEAR_RECURRENCE = register(linear_recurrence.KIND, _rule(_forward(linear_recurrence.unrolled), _linear_uses))
"""dh_t = dy_t + f_(t+1) dh_(t+1)."""


def _reversed_forward(
    layer: Layer, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State, Any]:
    y, state, cache = forward(layer.parts[0], params[0], state, reversed_in_time(x), key=key, train=train)
    return reversed_in_time(y), state, cache


@dataclasses.dataclass(frozen=True)
class _Reversed(Rule):
    """The rule of the layer inside, between two reversals."""

    def backward(self, layer: Layer, params: Params, cache: Any, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        dx, found = backward(layer.parts[0], params[0], cache, reversed_in_time(dy), collect)
        return reversed_in_time(dx), (found,)


def _reversed_input_grad(layer: Layer, params: Params, cache: Any, dy: Any) -> Any:
    return REVERSED.backward(layer, params, cache, dy, lambda rule: lambda *leaf: ())[0]


def _reversed_uses(layer: Layer, params: Params, cache: Any, dy: Any) -> PyTree:
    return REVERSED.backward(layer, params, cache, dy, USES)[1]


def _reversed_couples(layer: Layer, train: bool) -> bool:
    return rule_of(layer.parts[0]).couples(layer.parts[0], train)


REVERSED = register(
    recurrence.REVERSED, _Reversed(_reversed_forward, _reversed_input_grad, _reversed_uses, _reversed_couples)
)
"""dC/dx = reversed(dC/d reversed(x))."""
