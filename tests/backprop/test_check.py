"""The public checks against finite differences: they pass every right rule and catch every broken one."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, backprop, layers, losses, models
from jaxnn.backprop import check as checks
from jaxnn.backprop.rule import RULES
from jaxnn.layers import Activation, Dense, Kind, stateless
from jaxnn.models import combinators, ties, transformer
from jaxnn.tape import Addition, Scaling
from jaxnn.train import mean_loss
from tests.backprop.checking import drawn, rule_error
from tests.backprop.mutants import DENSE, LAYER, MUTANTS, QUICK, Mutant, in_place_of_rule, uses
from tests.backprop.sequence_mutants import SEQUENCE_MUTANTS, SEQUENCE_QUICK
from tests.helpers import float64, random, slow

KEY = jax.random.key(3)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])

OF_ANOTHER_EXAMPLE = [
    Mutant(
        "dense: bias gradients of the examples exchanged",
        DENSE,
        in_place_of_rule(layers.dense.KIND, **uses(b=lambda use: Addition(use.delta[::-1]))),
    ),
    Mutant(
        "layer norm: scale gradients of the examples exchanged",
        LAYER,
        in_place_of_rule(
            layers.layer_norm.KIND, **uses(scale=lambda use: Scaling(jnp.flip(use.a, 0), jnp.flip(use.delta, 0)))
        ),
    ),
]
"""Rules whose total is right: only statistics of single examples are wrong."""

BEYOND_DIFFERENCES = {
    "relu: derivative 1 at 0", "max pool: ties go to the last", "max pool: ties go to all",
    "global max pool: ties go to the last", "batch norm: running statistics left as they were",
    "stack: uses of the blocks exchanged", *(mutant.name for mutant in OF_ANOTHER_EXAMPLE),
}  # fmt: skip
"""Conventions at kinks, states, and single examples: what differences of the total cannot tell."""


AT_ONCE = 8
"""Mutants in one program: many small ones compile more, and large ones compile slower than their size."""


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a, dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def checks_of(check: Any, dtype: Any) -> list[backprop.Check]:
    """The public checks of what a mutant's `check` is of: a layer's rule, or the gradient of a training loss."""
    assert isinstance(check, functools.partial)
    settings = dict(check.keywords)
    if check.func is rule_error:
        layer, x = check.args
        return [backprop.check_rule(layer, cast(x, dtype), **{"key": KEY, **settings})]
    net, loss, x, y = check.args
    params, state = cast(drawn(net, x), dtype)
    x, y, call = cast((x, y, settings.pop("call", {})), dtype)
    regularizer = settings.pop("regularizer", None)
    own, whole = backprop.value_and_grad(net, loss, regularizer, **settings), mean_loss(net, loss, regularizer)
    grads = own(params, state, x, y, **call)[1]
    return [
        backprop.check_gradient(lambda p: whole(p, state, x, y, **call)[0], params, grads),
        backprop.check_rule(net, x, key=KEY),
    ]


def outcomes(mutants: list[Mutant], dtype: Any) -> tuple[Mapping[Any, Any], Mapping[str, Any]]:
    """The checks of the right rules and, by name, of the broken ones, in one program."""

    def everything() -> Any:
        right, broken = {}, {}
        with pytest.MonkeyPatch.context() as patch:
            # What a rule is held against does not depend on the rule: one for each layer.
            found: dict[Any, Any] = {}
            make = checks._reference

            def once(where: str, layer: Any, *rest: Any) -> Any:
                if id(layer) not in found:
                    found[id(layer)] = make(where, layer, *rest)
                return found[id(layer)]

            patch.setattr(checks, "_reference", once)
            for mutant in mutants:
                if id(mutant.check) not in right:
                    right[id(mutant.check)] = checks_of(mutant.check, dtype)
                with pytest.MonkeyPatch.context() as inner:
                    mutant.breaks(inner)
                    broken[mutant.name] = checks_of(mutant.check, dtype)
        return {str(key): value for key, value in right.items()}, broken

    with float64():
        return jax.device_get(jax.jit(everything)())


def judge(mutants: list[Mutant], dtype: Any) -> None:
    for i in range(0, len(mutants), AT_ONCE):
        right, broken = outcomes(mutants[i : i + AT_ONCE], dtype)
        for each in right.values():
            assert all(check.passed for check in each), each
        missed = {name: each for name, each in broken.items() if all(check.passed for check in each)}
        assert not missed
        unseen = {name for name, each in broken.items() if all(seen_by_differences(check).passed for check in each)}
        assert unseen <= BEYOND_DIFFERENCES


def seen_by_differences(check: backprop.Check) -> backprop.Check:
    """A check without what it takes from `jax.vjp`."""
    found = [dataclasses.replace(one, known=None) for one in check.compared if one.found is not None]
    return dataclasses.replace(check, compared=tuple(found))


@pytest.mark.parametrize("dtype", [np.float32, *slow(np.float64)])
def test_right_rules_pass_and_broken_ones_are_caught(dtype: Any) -> None:
    judge([m for m in MUTANTS if m.name in QUICK], dtype)


@pytest.mark.slow
@BOTH
def test_all_right_rules_pass_and_all_broken_ones_are_caught(dtype: Any) -> None:
    judge([m for m in (*MUTANTS, *OF_ANOTHER_EXAMPLE) if m.name not in QUICK], dtype)


@pytest.mark.slow
@BOTH
def test_right_rules_of_sequences_pass_and_broken_ones_are_caught(dtype: Any) -> None:
    judge([m for m in SEQUENCE_MUTANTS if dtype is np.float64 or m.name in SEQUENCE_QUICK], dtype)


IMAGE, WORDS = random(1, 2, 5, 4, 2), random(2, 3, 4, 2)
OTHERS: list[tuple[layers.Layer, np.ndarray]] = [
    (layers.DepthwiseConv(2), IMAGE),
    (layers.Flatten, IMAGE),
    (layers.GlobalAveragePool, IMAGE),
    (layers.ConvTranspose(3, 2, stride=2), IMAGE),
    (layers.Reshape(4, -1), IMAGE),
    (layers.Upsample(2), IMAGE),
    (layers.RNN(3), WORDS),
    (layers.LSTM(3), WORDS),
    (layers.GRU(3), WORDS),
    (layers.GRU(3, reset_after=False), WORDS),
    (layers.LinearRecurrence(3), WORDS),
    (layers.Reversed(layers.LSTM(2)), WORDS),
    (models.serial(layers.Conv(2, 2), layers.Relu, layers.MaxPool(2), layers.Flatten, Dense(2)), IMAGE),
    (models.parallel(*map(Activation, sorted(activations.DERIVATIVES, key=lambda f: f.__name__))), random(0, 2, 4)),
]
"""Layers of the kinds that no mutant breaks, and every element-wise activation."""


@pytest.mark.slow
@BOTH
def test_the_other_rules_of_the_library_pass(dtype: Any) -> None:
    def everything() -> list[backprop.Check]:
        return [backprop.check_rule(layer, cast(x, dtype), key=KEY) for layer, x in OTHERS]

    with float64():
        found = jax.device_get(jax.jit(everything)())
    for (layer, _), check in zip(OTHERS, found, strict=True):
        assert check.passed, f"{layer}\n{check}"


def test_no_kind_of_layer_is_left_out() -> None:
    modules = [getattr(layers, name) for name in dir(layers)] + [combinators, ties, transformer]
    kinds = {k for m in modules if isinstance(m, ModuleType) for k in vars(m).values() if isinstance(k, Kind)}
    mutants = [m.check for m in (*MUTANTS, *SEQUENCE_MUTANTS) if isinstance(m.check, functools.partial)]
    checked = [*(check.args[0] for check in mutants), *dict(OTHERS)]
    assert {kind for kind in kinds if kind in RULES} <= {kind for layer in checked for kind in kinds_in(layer)}


def kinds_in(layer: layers.Layer) -> set[Kind]:
    """The kinds of a layer and of all its parts."""
    return {layer.kind}.union(*(kinds_in(part) for part in layer.parts))


GAIN = stateless(Kind("gain"), lambda params, x: x * params["s"], lambda key, example: {"s": jnp.ones(())})


def gain_rule(factor: float = 1.0, order: int = 1) -> backprop.Rule:
    """The rule of y = s x for factor 1; with order -1 the uses of the examples are exchanged."""

    def input_grad(layer: Any, params: Any, x: Any, dy: Any) -> Any:
        return factor * dy * params["s"]

    def uses_of(layer: Any, params: Any, x: Any, dy: Any) -> Any:
        return {"s": (Scaling(x[::order, :, None], dy[::order, :, None]),)}

    return backprop.Rule(backprop.keep_input, input_grad, uses_of)


def verdicts(check: backprop.Check) -> dict[str, str]:
    return {row.name: row.verdict for row in check.rows}


def test_a_rule_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(0, 3, 2, dtype=np.float32)

    def found(x: Any) -> Any:
        for rule in (gain_rule(), gain_rule(factor=1.01), gain_rule(order=-1)):
            monkeypatch.setitem(RULES, GAIN.kind, rule)
            yield backprop.check_rule(GAIN, x, key=KEY)

    right = dict.fromkeys(("output", "input", "['s']", "['s'] of each example"), "right")
    assert [verdicts(check) for check in jax.jit(lambda x: list(found(x)))(x)] == [
        right, right | {"input": "WRONG"}, right | {"['s'] of each example": "WRONG"},
    ]  # fmt: skip


def test_a_rule_of_other_shapes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(layer: Any, params: Any, state: Any, x: Any, *, key: Any, train: bool) -> Any:
        return *layer.apply(params, state, x), x.astype(jnp.float32)

    rule = dataclasses.replace(gain_rule(), forward=wide, input_grad=lambda layer, params, x, dy: x[:1])
    monkeypatch.setitem(RULES, GAIN.kind, rule)
    with pytest.raises(ValueError, match=r"dx and gradients of gain must be like its input .* \(3, 2\).* \(1, 2\)"):
        backprop.check_rule(GAIN, jnp.ones((3, 2)), key=KEY)
    rule = dataclasses.replace(rule, input_grad=lambda layer, params, x, dy: x)
    monkeypatch.setitem(RULES, GAIN.kind, rule)
    with pytest.raises(TypeError, match="of dtypes bfloat16, float32, got float32, float32"):
        backprop.check_rule(GAIN, jnp.ones((3, 2), jnp.bfloat16), key=KEY)


@pytest.mark.parametrize(("slope", "verdict"), [(-1.0, "right"), (0.3, "right"), (1.0, "right"), (1.1, "WRONG")])
def test_a_gradient_at_a_kink_may_lie_between_both_sides(slope: float, verdict: str) -> None:
    check = backprop.check_gradient(jnp.abs, 0.0, jnp.asarray(slope))
    assert verdicts(check) == {"x": verdict}
    assert check.rows[0].kinks == 1


def test_a_custom_derivative_is_checked() -> None:
    @jax.custom_vjp
    def square(x: Any) -> Any:
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, dy: (3 * x * dy,))
    check = backprop.check_gradient(lambda x: jnp.sum(square(x)), jnp.array([1.0, 2.0]))
    assert check.rows[0].worst == ((1,), 6.0, pytest.approx(4.0, rel=1e-4))
    assert re.search(r"x +2 +0 +0.33 +WRONG at \(1,\): 6, expected 4", str(check))


def test_what_cannot_be_decided_does_not_pass() -> None:
    jump = backprop.check_gradient(lambda x: jnp.where(x > 0, 1.0, 0.0), 0.0)
    assert verdicts(jump) == {"x": "undecided"}
    assert not jump.passed
    nan = backprop.check_gradient(lambda x: x**2, 1.0, jnp.nan)
    assert verdicts(nan) == {"x": "WRONG"}


def test_of_a_large_array_a_sample_is_compared() -> None:
    x = random(0, 40, 50, dtype=np.float32)
    check = backprop.check_gradient(lambda x: jnp.sum(x**2), x, entries=30)
    assert (check.rows[0].entries, check.passed) == (30, True)
    wrong = backprop.check_gradient(lambda x: jnp.sum(x**2), x, 3 * x, entries=30)
    index, claimed, _ = wrong.rows[0].worst
    assert claimed == pytest.approx(3 * x[index])


@jax.jit
def assorted(x: Any, half: Any, words: Any, at_kinks: Any) -> Any:
    params = {"w": jnp.ones((4, 2)), "b": jnp.zeros(2)}
    net = models.serial(layers.Embedding(5, 3), layers.Flatten, Dense(2))
    return {
        "half": backprop.check_rule(layers.LayerNorm(), half, key=KEY),
        "own": backprop.check_rule(Dense(2), x, key=KEY, params=params, state=()),
        "words": backprop.check_rule(net, words, key=KEY),
        "kinks": backprop.check_rule(layers.Relu, at_kinks, key=KEY),
        "nothing": backprop.check_rule(stateless(Kind("f"), lambda params, x: x.astype(jnp.float32)), words, key=KEY),
        "by vjp": backprop.check_rule(stateless(Kind("none"), lambda params, x: jnp.sin(x)), x, key=KEY),
    }


@pytest.mark.slow
def test_half_precision_own_parameters_integers_kinks_and_no_rule() -> None:
    x, words = random(0, 3, 4), np.array([[0, 4], [1, 1]], np.int32)
    found = assorted(x.astype(np.float32), jnp.asarray(x, jnp.bfloat16), words, np.float32([[-1, 0], [0, 2]]))
    assert all(check.passed for check in found.values()), found
    assert [row.name for row in found["words"].rows if "example" not in row.name] == [
        "output", "[0]['w']", "[2]['b']", "[2]['w']",
    ]  # fmt: skip
    assert {row.name: row.kinks for row in found["kinks"].rows} == {"output": 0, "input": 2}


def test_errors() -> None:
    with pytest.raises(TypeError, match="net must be a Layer"):
        backprop.check_rule(jnp.sin, jnp.ones((2, 3)), key=KEY)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key must be a typed key"):
        backprop.check_rule(Dense(2), jnp.ones((2, 3)), key=0)
    with pytest.raises(ValueError, match="entries must be at least 1, got 0"):
        backprop.check_rule(Dense(2), jnp.ones((2, 3)), key=KEY, entries=0)
    with pytest.raises(ValueError, match="tolerance must be a finite number > 0, got -1"):
        backprop.check_gradient(jnp.sin, 1.0, tolerance=-1.0)
    with pytest.raises(ValueError, match=r"gradient must be a pytree like x, of shapes \(\), got \(1,\)"):
        backprop.check_gradient(jnp.sin, 1.0, jnp.ones(1))
    with pytest.raises(TypeError, match="x must have a floating dtype, got int32"):
        backprop.check_gradient(jnp.sin, 1)
    with pytest.raises(ValueError, match="f must return one number"):
        backprop.check_gradient(jnp.sin, jnp.ones(2), jnp.ones(2))


def test_a_training_loss() -> None:
    net = models.mlp([3, 4, 2])
    params, state = net.init(jax.random.key(0), (3,))
    x, y = random(0, 5, 3, dtype=np.float32), np.array([0, 1, 1, 0, 1])
    loss = mean_loss(net, losses.softmax_cross_entropy)
    grads = backprop.value_and_grad(net, losses.softmax_cross_entropy)(params, state, x, y)[1]

    def both(params: Any, grads: Any) -> Any:
        def f(p: Any) -> Any:
            return loss(p, state, x, y)[0]

        scaled = jax.tree.map(lambda g: 1.01 * g, grads)
        return backprop.check_gradient(f, params, grads), backprop.check_gradient(f, params, scaled)

    right, wrong = jax.jit(both)(params, grads)
    assert (right.passed, wrong.passed) == (True, False), f"{right}\n{wrong}"


def test_a_right_gradient_beside_a_large_constant() -> None:
    def f(x: Any) -> Any:
        return 1e5 + jnp.sum(x**2)

    x = jnp.array([1.0, -2.0])
    assert not any(row.verdict == "WRONG" for row in jax.jit(lambda x: backprop.check_gradient(f, x))(x).rows)


@pytest.mark.parametrize(
    ("f", "x", "error", "text"),
    [
        (lambda x: x**2, np.ones(3, np.float32), ValueError, r"one number, got shape \(3,\)"),
        (lambda x: jnp.ones(()), (), ValueError, "at least one array"),
        (lambda x: 1, np.ones(3, np.float32), TypeError, "the value of f must have a floating dtype"),
    ],
)
def test_functions_without_a_gradient_are_named(f: Any, x: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        backprop.check_gradient(f, x)
