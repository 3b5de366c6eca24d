"""Rules of recurrent layers against `jax.vjp` of the layers, with and without masks and carries, and broken ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, layers, models
from jaxnn.backprop import combinators, recurrent
from jaxnn.backprop.rule import GRADIENT
from jaxnn.layers import GRU, LSTM, RNN, Dense, LinearRecurrence, Reversed, Sequences, recurrence
from jaxnn.layers.sequences import values_of
from tests.backprop.checking import EXACT, relative, spread_out
from tests.backprop.mutants import CAUGHT, in_place_of
from tests.helpers import float64, random, strict

HOLES = np.array([[1, 1, 0, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
"""A mask of each kind: holes, padding before, padding after, nothing but padding."""


class Case(NamedTuple):
    """A layer on x (N, T, D), with a mask, or a random carry as its state."""

    layer: Any
    shape: tuple[int, ...] = (4, 5, 3)
    mask: Any = None
    stateful: bool = False


def varied(name: str, layer: Any) -> dict[str, Case]:
    return {
        name: Case(layer),
        f"{name}, one position, one feature": Case(layer, (2, 1, 1)),
        f"{name}, one example": Case(layer, (1, 7, 2)),
        f"{name}, masked": Case(layer, mask=HOLES),
        f"{name}, with a carry": Case(layer, mask=HOLES, stateful=True),
    }


CASES = {
    **varied("rnn", RNN(4)),
    **varied("rnn of relu", RNN(4, activation=activations.relu)),
    **varied("lstm", LSTM(4)),
    **varied("gru", GRU(4)),
    **varied("gru, reset before", GRU(4, reset_after=False)),
    **varied("linear recurrence", LinearRecurrence(4)),
    "rnn without bias": Case(RNN(1, b_init=None)),
    "lstm without bias": Case(LSTM(3, b_init=None)),
    "linear recurrence without bias": Case(LinearRecurrence(3, b_init=None)),
    "gru without biases": Case(GRU(3, b_init=None), mask=HOLES),
    "reversed": Case(Reversed(LSTM(3)), mask=HOLES),
    "reversed network": Case(Reversed(models.serial(GRU(3), Dense(2), RNN(2))), mask=HOLES),
    "two layers": Case(models.serial(LSTM(3), layers.Tanh, GRU(4)), mask=HOLES, stateful=True),
    "both directions": Case(models.parallel(LSTM(3), Reversed(LSTM(2))), mask=HOLES),
}
QUICK = {"rnn of relu, masked", "lstm", "lstm, with a carry", "gru, masked", "gru, reset before, masked", "reversed"}
QUICK |= {"linear recurrence", "linear recurrence, with a carry"}


def errors(cases: Mapping[str, Case], seed: int = 0) -> dict[str, float]:
    """How far values, state, and the gradients in x and the parameters by the rules are from those by `jax.vjp`."""

    def packed(values: Any, case: Case) -> Any:
        return values if case.mask is None else Sequences(values, jnp.asarray(case.mask))

    def both(case: Case, params: Any, state: Any, x: Any) -> Any:
        def apply(params: Any, x: Any) -> Any:
            y, new = case.layer.apply(params, state, packed(x, case), train=True)
            return values_of(y), new

        y, pull, new = jax.vjp(apply, params, x, has_aux=True)
        dy = jnp.asarray(random(seed + 99, *y.shape))
        own_y, own_state, cache = combinators.forward(case.layer, params, state, packed(x, case), train=True)
        dx, grads = combinators.backward(case.layer, params, cache, packed(dy, case), GRADIENT)
        return (values_of(own_y), own_state, grads, values_of(dx)), (y, new, *pull(dy))

    def arguments(case: Case) -> Any:
        x = random(seed, *case.shape)
        params, state = jax.eval_shape(lambda: case.layer.init(jax.random.key(0), case.shape[1:]))
        if case.stateful:
            state = jax.eval_shape(lambda params: models.begin(case.layer, params, (), case.shape[0]), params)
        return spread_out(params, seed + 7), spread_out(state, seed + 17), x

    with float64(), strict():
        every = jax.jit(lambda given: {name: both(cases[name], *of_one) for name, of_one in given.items()})
        found = every({name: arguments(case) for name, case in cases.items()})
        return {name: relative(*pair) for name, pair in found.items()}


def assert_exact(cases: Mapping[str, Case], **settings: Any) -> None:
    assert not {name: error for name, error in errors(cases, **settings).items() if not error <= EXACT}


def test_rules() -> None:
    assert_exact({name: CASES[name] for name in QUICK})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_every_rule(seed: int) -> None:
    assert_exact(CASES, seed=seed)


# Broken rules: each of them is caught by the check above.

LSTM_KIND, GRU_KIND = layers.lstm.KIND, layers.gru.KIND


def gates(order: tuple[int, ...]) -> Callable[[Any], Any]:
    """A step back whose deltas have their blocks of columns in another order."""

    def broken(right: Any) -> Any:
        def back(layer: Any, u: Any, dtype: Any) -> Any:
            def step(*now: Any) -> Any:
                earlier, deltas = right(layer, u, dtype)(*now)
                blocks = [recurrence.split(d, len(order)) for d in deltas]
                return earlier, tuple(jnp.concatenate([b[i] for i in order], -1) for b in blocks)

            return step

        return back

    return broken


def of_step(change: Callable[..., Any]) -> Callable[[Any], Any]:
    """A step back whose result is change(earlier, deltas, before, kept, d)."""

    def broken(right: Any) -> Any:
        return lambda *given: lambda *now: change(*right(*given)(*now), *now)

    return broken


def no_forget_path(earlier: Any, deltas: Any, *now: Any) -> Any:
    return earlier | {"c": jnp.zeros_like(earlier["c"])}, deltas


def no_recurrence(earlier: Any, deltas: Any, *now: Any) -> Any:
    return earlier | {"h": jnp.zeros_like(earlier["h"])}, deltas


def no_direct_path(earlier: Any, deltas: Any, before: Any, kept: Any, d: Any) -> Any:
    return {"h": earlier["h"] - d["h"] * recurrence.split(kept, 4)[1]}, deltas


def reset_forgotten(earlier: Any, deltas: Any, *now: Any) -> Any:
    return earlier, deltas[:1]


def of_history(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`_hidden` of a changed history."""
    return lambda right: lambda history, dtype: right(change(history), dtype)


def one_step_off(history: Any) -> Any:
    return dataclasses.replace(history, before={"h": jnp.roll(history.before["h"], -1, 0)})


def without_mask(history: Any) -> Any:
    return dataclasses.replace(history, mask=None)


def unmasked(right: Any) -> Any:
    return lambda back, history, *rest: right(back, without_mask(history), *rest)


def forwards(right: Any) -> Any:
    """The loop from the first position to the last."""

    def swept(back: Any, history: Any, dy: Any, u: Any) -> Any:
        turned = jax.tree.map(lambda x: jnp.flip(x, 0), history)
        return jax.tree.map(lambda d: jnp.flip(d, 0), right(back, turned, jnp.flip(dy, 1), u))

    return swept


def steps_back(kind: Any, broken: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(recurrent.STEPS_BACK, kind, broken(recurrent.STEPS_BACK[kind]))


def not_turned(rule: Any, layer: Any, params: Any, cache: Any, dy: Any, collect: Any) -> Any:
    dx, found = combinators.backward(layer.parts[0], params[0], cache, dy, collect)
    return dx, (found,)


MUTANTS: dict[str, tuple[Case, Callable[[pytest.MonkeyPatch], None]]] = {
    "lstm: order of the gates": (Case(LSTM(3)), steps_back(LSTM_KIND, gates((0, 2, 1, 3)))),
    "gru: order of the gates": (Case(GRU(3)), steps_back(GRU_KIND, gates((1, 0, 2)))),
    "lstm: no forget path": (Case(LSTM(3)), steps_back(LSTM_KIND, of_step(no_forget_path))),
    "lstm: nothing through u": (Case(LSTM(3)), steps_back(LSTM_KIND, of_step(no_recurrence))),
    "gru: no direct path": (Case(GRU(3)), steps_back(GRU_KIND, of_step(no_direct_path))),
    "gru: reset forgotten in u": (Case(GRU(3)), steps_back(GRU_KIND, of_step(reset_forgotten))),
    "rnn: h_t for h_(t-1)": (Case(RNN(3)), in_place_of(recurrent, "_hidden", of_history(one_step_off))),
    "lstm: mask ignored": (Case(LSTM(3), mask=HOLES), in_place_of(recurrent, "_swept", unmasked)),
    "gru: mask ignored": (Case(GRU(3), mask=HOLES), in_place_of(recurrent, "_swept", unmasked)),
    "rnn: loop in the wrong direction": (Case(RNN(3)), in_place_of(recurrent, "_swept", forwards)),
    "linear recurrence: f_t for f_(t+1)": (
        Case(LinearRecurrence(3)),
        in_place_of(recurrent, "_of_the_next", lambda right: lambda f: f),
    ),
    "linear recurrence: mask ignored": (
        Case(LinearRecurrence(3), mask=HOLES),
        in_place_of(recurrent, "_linear_deltas", lambda right: lambda h, dy: right(without_mask(h), dy)),
    ),
    "linear recurrence: scan in the wrong direction": (
        Case(LinearRecurrence(3)),
        in_place_of(recurrent.lax, "associative_scan", lambda right: lambda f, x, reverse=False: right(f, x)),
    ),
    "reversed: cotangent not reversed": (
        Case(Reversed(RNN(3))),
        lambda patch: patch.setattr(recurrent._Reversed, "backward", not_turned),
    ),
    "rnn: slope of relu": (
        Case(RNN(3)),
        lambda patch: patch.setitem(recurrent.SLOPES, activations.tanh, lambda h: (h > 0).astype(h.dtype)),
    ),
}
of_the_right_one = functools.cache(lambda name: errors({"": MUTANTS[name][0]})[""])


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_rules_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, breaks = MUTANTS[name]
    assert of_the_right_one(name) <= EXACT
    breaks(monkeypatch)
    assert errors({"": case})[""] > CAUGHT
