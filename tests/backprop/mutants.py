"""Broken rules. Each is caught by the check that the tests hold the right rule against; a check that let one pass would
show nothing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import activations, backprop, layers, losses, models, ops
from jaxnn.backprop import checkpoint, combinators, fused, gradient, norms, pointwise
from jaxnn.backprop.rule import RULES
from jaxnn.layers import Activation, Conv, Dense, Dropout, Embedding, Softmax, parametric, pooling
from jaxnn.tape import Addition, Product, Scaling
from jaxnn.tape import uses as tape_uses
from tests.backprop.checking import EXACT, gradient_error, rule_error
from tests.helpers import random

CAUGHT = 1e-4
"""What a check must find of a mutant, where it finds at most EXACT of the right rule."""


class Mutant(NamedTuple):
    """A broken variant: `check` gives the error of what is there, `breaks` puts the broken one in its place."""

    name: str
    check: Callable[[], float]
    breaks: Callable[[pytest.MonkeyPatch], None]
    tolerance: float = EXACT


def in_place_of(owner: Any, name: str, broken: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Put broken(the right one) in place of an attribute."""
    return lambda patch: patch.setattr(owner, name, broken(getattr(owner, name)))


def in_place_of_rule(kind: Any, **fields: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Put a rule with other functions in place of a kind's; each is made from the right rule."""
    right = RULES[kind]
    other = dataclasses.replace(right, **{name: make(right) for name, make in fields.items()})
    return lambda patch: patch.setitem(RULES, kind, other)


def input_grad(broken: Callable[..., Any]) -> dict[str, Any]:
    """The field of a rule: broken(the right input_grad, layer, params, cache, dy)."""
    return {"input_grad": lambda right: functools.partial(broken, right.input_grad)}


def uses(**broken: Callable[[Any], Any]) -> dict[str, Any]:
    """The field of a rule: the uses of some parameters changed."""

    def make(right: Any) -> Any:
        def changed(layer: Any, params: Any, cache: Any, dy: Any) -> Any:
            found = right.uses(layer, params, cache, dy)
            return found | {name: (change(*found[name]),) for name, change in broken.items()}

        return changed

    return {"uses": make}


def of_rule(layer: Any, x: np.ndarray, **settings: Any) -> Callable[[], float]:
    return functools.partial(rule_error, layer, x, **settings)


def of_gradient(net: Any, loss: Any, x: Any, y: Any, **settings: Any) -> Callable[[], float]:
    return functools.partial(gradient_error, net, loss, x, y, **settings)


def replaced(**fields: Any) -> Callable[[Any], Any]:
    return lambda use: dataclasses.replace(use, **fields)


def no_bias(use: Addition) -> Addition:
    return Addition(0 * use.delta)


DENSE = of_rule(Dense(3), random(0, 5, 3))
DENSE_AT_POSITIONS = of_rule(Dense(3), random(0, 5, 4, 3))
PADDED = of_rule(Conv(2, 3, padding=((2, 0), (0, 1))), random(0, 2, 5, 4, 2))
SAME = of_rule(Conv(2, 2, padding="SAME"), random(0, 2, 4, 4, 2))
STRIDED = of_rule(Conv(2, 3, stride=2, dilation=2), random(0, 2, 9, 9, 2))
GROUPED = of_rule(Conv(4, 3, groups=2), random(0, 2, 5, 4, 4))
WORDS = of_rule(Embedding(3, 2), np.array([[0, 1, 1], [2, 2, 0]]))
DROPOUT = of_rule(Dropout(0.4), random(0, 6, 5), key=jax.random.key(3))
BATCH, LAYER, GROUP, RMS = (
    of_rule(layer, 1 + random(0, 3, 2, 4))
    for layer in (layers.BatchNorm(), layers.LayerNorm(), layers.GroupNorm(2), layers.RMSNorm())
)
BATCH_IN_EVALUATION = of_rule(layers.BatchNorm(), 1 + random(0, 3, 2, 4), train=False)
LARGE_EPS = of_rule(layers.LayerNorm(eps=0.5), random(0, 5, 4))
TIES = np.round(random(0, 3, 4, 4, 2))
MAX_POOL, GLOBAL_MAX = of_rule(layers.MaxPool(2), TIES), of_rule(layers.GlobalMaxPool, TIES)
AVERAGE_POOL = of_rule(layers.AveragePool(2), TIES)
PADDED_POOL = of_rule(layers.AveragePool(3, padding="SAME", count_padding=False), TIES)
RELU = of_rule(layers.Relu, np.array([[-1.0, 0.0, 1.0]]))
SIGMOID = of_rule(layers.Sigmoid, random(0, 3, 4))
SOFTMAX, LOG_SOFTMAX = of_rule(Softmax, random(0, 3, 4)), of_rule(Activation(activations.log_softmax), random(0, 3, 4))
PRELU = of_rule(layers.PRelu(), random(0, 3, 2, 4))
SWISH = of_rule(layers.Swish(start=0.7, shared=True), random(0, 3, 2, 4))
RESIDUAL = of_rule(models.residual(Dense(3), layers.Tanh), random(0, 5, 3))
PARALLEL = of_rule(models.parallel(Dense(2), Dense(2)), random(0, 5, 3))

X, LABELS = random(0, 4, 3), np.array([0, 2, 1, 1])
CE = losses.softmax_cross_entropy
MEAN = of_gradient(Dense(3), CE, X, LABELS)
WEIGHTED = of_gradient(Dense(3), CE, X, LABELS, call={"weights": np.array([0.5, 0.0, 2.0, 1.0])})
PENALIZED = of_gradient(Dense(3), CE, X, LABELS, regularizer=losses.l2(0.5))
SMOOTHED = of_gradient(Dense(3), functools.partial(CE, label_smoothing=0.3), X, LABELS)
SOFT = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.1, 0.1, 0.2], [1.0, 0.0, 0.0]])  # one does not sum to 1
FUSED_SOFTMAX = of_gradient(models.serial(Dense(3), Softmax), losses.cross_entropy, X, SOFT)
FUSED_SIGMOID = of_gradient(models.serial(Dense(3), layers.Sigmoid), losses.binary_cross_entropy, X, SOFT)
RECOMPUTED = of_gradient(
    models.serial(Dense(8), Dropout(0.5), Dense(3)), CE, X, LABELS, remat_every=2, call={"key": jax.random.key(0)}
)
WITH_STATISTICS = of_gradient(models.serial(Dense(3), layers.BatchNorm()), CE, X, LABELS)


def reversed_in_space(x: Any) -> Any:
    return jnp.flip(x, range(1, x.ndim - 1))


def last_of_ties(kind: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """The right rule of the reversed image."""
    right = RULES[kind]

    def broken(layer: Any, params: Any, x: Any, dy: Any) -> Any:
        _, _, cache = right.forward(layer, params, (), reversed_in_space(x), key=None, train=True)
        return reversed_in_space(right.input_grad(layer, params, cache, reversed_in_space(dy)))

    return in_place_of_rule(kind, forward=lambda _: backprop.keep_input, input_grad=lambda _: broken)


def to_every_maximum(layer: Any, params: Any, x: Any, dy: Any) -> Any:
    """For windows of 2 by 2."""

    def spread(y: Any) -> Any:
        return jnp.repeat(jnp.repeat(y, 2, 1), 2, 2)

    return jnp.where(x == spread(layer.apply((), (), x)[0]), spread(dy), 0.0)


def swapped_pads(right: Any, layer: Any, params: Any, x: Any, dy: Any) -> Any:
    pads = tuple(pair[::-1] for pair in layer.options["padding"])
    return right(with_options(layer, padding=pads), params, x, dy)


def with_options(layer: Any, **options: Any) -> Any:
    return dataclasses.replace(layer, options={**layer.options, **options})


def without_eps(right: Any) -> Any:
    def forward(layer: Any, params: Any, state: Any, x: Any, **mode: Any) -> Any:
        y, state, moments = right.forward(layer, params, state, x, **mode)
        inverse = (moments.inverse**-2 - layer.options["eps"]) ** -0.5
        return y, state, dataclasses.replace(moments, inverse=inverse)

    return forward


def with_old_statistics(right: Any) -> Any:
    def forward(layer: Any, params: Any, state: Any, x: Any, **mode: Any) -> Any:
        y, _, cache = right.forward(layer, params, state, x, **mode)
        return y, state, cache

    return forward


def table_with(function: Any, other: Any) -> Callable[[Any], Any]:
    return lambda right: {**right, function: other}


DENSE_KIND, CONV_KIND, DROPOUT_KIND = layers.dense.KIND, layers.conv.KIND, layers.dropout.KIND
BATCH_KIND, LAYER_KIND = layers.batch_norm.KIND, layers.layer_norm.KIND
NO_MEAN = in_place_of(norms, "_unstandardize", lambda right: lambda *a, **_: right(*a, centred=False))


def of_parametric(field: str, **fields: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Put a form with other functions in place of the layer's, in one function of the rule."""

    def make(rule: Any) -> Any:
        def broken(layer: Any, *rest: Any) -> Any:
            form = layer.options["form"]._replace(**fields)
            return getattr(rule, field)(dataclasses.replace(layer, options={**layer.options, "form": form}), *rest)

        return broken

    return in_place_of_rule(parametric.KIND, **{field: make})


MUTANTS = [
    Mutant("prelu: slope 1 everywhere", PRELU, of_parametric("input_grad", input_slope=lambda z, p: jnp.ones_like(z))),
    Mutant(
        "prelu: slope on the other side",
        PRELU,
        of_parametric("input_grad", input_slope=lambda z, p: jnp.where(z > 0, p, jnp.ones_like(z))),
    ),
    Mutant("prelu: the parameter's derivative everywhere", PRELU, of_parametric("uses", param_slope=lambda z, p: z)),
    Mutant(
        "swish: product rule forgotten",
        SWISH,
        of_parametric("input_grad", input_slope=lambda z, beta: jax.nn.sigmoid(beta * z)),
    ),
    Mutant(
        "swish: beta forgotten inside",
        SWISH,
        of_parametric("input_grad", input_slope=lambda z, beta: parametric.SWISH.input_slope(z, jnp.ones_like(z))),
    ),
    Mutant(
        "swish: z for z^2",
        SWISH,
        of_parametric("uses", param_slope=lambda z, beta: z * jax.nn.sigmoid(beta * z) * jax.nn.sigmoid(-beta * z)),
    ),
    Mutant(
        "dense: weight not transposed",
        DENSE,
        in_place_of_rule(DENSE_KIND, **input_grad(lambda right, layer, params, x, dy: dy @ params["w"])),
    ),
    Mutant(
        "dense: weight gradient transposed",
        DENSE,
        in_place_of_rule(DENSE_KIND, **uses(w=lambda use: Product(use.delta, use.a))),
    ),
    Mutant("dense: bias term dropped", DENSE, in_place_of_rule(DENSE_KIND, **uses(b=no_bias))),
    Mutant(
        "dense: bias of one position",
        DENSE_AT_POSITIONS,
        in_place_of_rule(DENSE_KIND, **uses(b=lambda use: Addition(use.delta[:, :1]))),
    ),
    Mutant(
        "dense: one position forgotten",
        DENSE_AT_POSITIONS,
        in_place_of_rule(DENSE_KIND, **uses(w=lambda use: Product(use.a[:, 1:], use.delta[:, 1:]))),
    ),
    Mutant(
        "conv: kernel not flipped",
        PADDED,
        in_place_of(ops.conv, "_flip_and_transpose", lambda right: lambda w, g: jnp.flip(right(w, g), (0, 1))),
    ),
    Mutant(
        "conv: channels not swapped",
        PADDED,
        in_place_of(ops.conv, "_flip_and_transpose", lambda right: lambda w, g: jnp.flip(w, (0, 1))),
    ),
    Mutant(
        "conv: groups mixed up",
        GROUPED,
        in_place_of(ops.conv, "_flip_and_transpose", lambda right: lambda w, g: jnp.roll(right(w, g), 2, -1)),
    ),
    Mutant("conv: padding swapped going down", PADDED, in_place_of_rule(CONV_KIND, **input_grad(swapped_pads))),
    Mutant(
        "conv: padding swapped for the weights",
        PADDED,
        in_place_of_rule(CONV_KIND, **uses(w=replaced(padding=((0, 2), (1, 0))))),
    ),
    Mutant(
        "conv: odd padding of SAME before",
        SAME,
        in_place_of_rule(CONV_KIND, **uses(w=replaced(padding=((1, 0), (1, 0))))),
    ),
    Mutant("conv: stride forgotten", STRIDED, in_place_of_rule(CONV_KIND, **uses(w=replaced(stride=1)))),
    Mutant("conv: dilation forgotten", STRIDED, in_place_of_rule(CONV_KIND, **uses(w=replaced(dilation=1)))),
    Mutant(
        "conv: mean over positions for the bias",
        PADDED,
        in_place_of_rule(CONV_KIND, **uses(b=lambda use: Addition(use.delta / use.delta.shape[1]))),
    ),
    Mutant(
        "embedding: last use of a row instead of all",
        WORDS,
        in_place_of(
            tape_uses,
            "take_rows_weight_grad",
            lambda right: lambda i, dy, rows: jnp.zeros((rows, dy.shape[-1]), dy.dtype).at[i].set(dy),
        ),
    ),
    Mutant(
        "dropout: not rescaled",
        DROPOUT,
        in_place_of_rule(DROPOUT_KIND, **input_grad(lambda right, layer, *rest: right(layer, *rest) * 0.6)),
    ),
    Mutant(
        "dropout: not masked",
        DROPOUT,
        in_place_of_rule(DROPOUT_KIND, **input_grad(lambda right, layer, params, kept, dy: dy / 0.6)),
    ),
    Mutant("batch norm: without the mean's term", BATCH, NO_MEAN),
    Mutant("layer norm: without the mean's term", LAYER, NO_MEAN),
    Mutant("group norm: without the mean's term", GROUP, NO_MEAN),
    Mutant(
        "RMS norm: with a mean's term",
        RMS,
        in_place_of(norms, "_unstandardize", lambda right: lambda *a, **_: right(*a, centred=True)),
    ),
    Mutant(
        "layer norm: without the variance's term",
        LAYER,
        in_place_of(
            norms,
            "_unstandardize",
            lambda right: lambda xhat, inverse, e, axes: inverse * (e - jnp.mean(e, tuple(axes), keepdims=True)),
        ),
    ),
    Mutant(
        "group norm: means over channels only",
        GROUP,
        in_place_of(norms, "_unstandardize", lambda right: lambda xhat, inv, e, axes: right(xhat, inv, e, axes[-1:])),
    ),
    Mutant("layer norm: scale forgotten", LAYER, in_place_of(norms, "_scaled", lambda right: lambda params, dy: dy)),
    Mutant("layer norm: eps forgotten", LARGE_EPS, in_place_of_rule(LAYER_KIND, forward=without_eps)),
    Mutant(
        "layer norm: scale sees values that are not centred",
        LAYER,
        in_place_of_rule(LAYER_KIND, **uses(scale=lambda use: Scaling(use.a + 1, use.delta))),
    ),
    Mutant("layer norm: shift dropped", LAYER, in_place_of_rule(LAYER_KIND, **uses(shift=no_bias))),
    Mutant(
        "batch norm: in evaluation as in training",
        BATCH_IN_EVALUATION,
        in_place_of_rule(
            BATCH_KIND,
            **input_grad(
                lambda right, layer, p, moments, dy: right(layer, p, dataclasses.replace(moments, constant=False), dy)
            ),
        ),
    ),
    Mutant(
        "batch norm: running statistics left as they were",
        WITH_STATISTICS,
        in_place_of_rule(BATCH_KIND, forward=with_old_statistics),
    ),
    Mutant("max pool: ties go to the last", MAX_POOL, last_of_ties(pooling.MAX_POOL)),
    Mutant(
        "max pool: ties go to all",
        MAX_POOL,
        in_place_of_rule(
            pooling.MAX_POOL, forward=lambda _: backprop.keep_input, input_grad=lambda _: to_every_maximum
        ),
    ),
    Mutant("global max pool: ties go to the last", GLOBAL_MAX, last_of_ties(pooling.GLOBAL_MAX_POOL)),
    Mutant(
        "average pool: not divided",
        AVERAGE_POOL,
        in_place_of_rule(pooling.AVERAGE_POOL, **input_grad(lambda right, *rest: 4 * right(*rest))),
    ),
    Mutant(
        "average pool: padding counted",
        PADDED_POOL,
        in_place_of_rule(
            pooling.AVERAGE_POOL,
            **input_grad(lambda right, layer, *rest: right(with_options(layer, count_padding=True), *rest)),
        ),
    ),
    Mutant(
        "relu: derivative 1 at 0",
        RELU,
        in_place_of(pointwise, "DERIVATIVES", table_with(activations.relu, lambda z: (z >= 0).astype(z.dtype))),
    ),
    Mutant(
        "sigmoid: derivative at a instead of z",
        SIGMOID,
        in_place_of(
            pointwise,
            "DERIVATIVES",
            table_with(activations.sigmoid, lambda z: activations.sigmoid_derivative(activations.sigmoid(z))),
        ),
    ),
    Mutant(
        "softmax: without p p'",
        SOFTMAX,
        in_place_of(
            pointwise, "VECTOR_VJPS", table_with(activations.softmax, lambda z, dy: activations.softmax(z) * dy)
        ),
    ),
    Mutant(
        "log-softmax: without the sum",
        LOG_SOFTMAX,
        in_place_of(
            pointwise,
            "VECTOR_VJPS",
            table_with(activations.log_softmax, lambda z, dy: dy - activations.softmax(z) * dy),
        ),
    ),
    Mutant(
        "residual: shortcut forgotten",
        RESIDUAL,
        in_place_of(combinators._Combined, "__call__", lambda right: lambda self, dy: [dy, 0 * dy]),
    ),
    Mutant(
        "parallel: slices exchanged",
        PARALLEL,
        in_place_of(combinators, "_slices", lambda right: lambda outputs, dy: right(outputs, dy)[::-1]),
    ),
    Mutant(
        "parallel: only one branch hands back its error",
        PARALLEL,
        in_place_of(combinators, "added", lambda right: lambda one, other: one),
    ),
    Mutant("1/N twice", MEAN, in_place_of(gradient, "_shares", lambda right: lambda d, w: right(d, w) / len(d))),
    Mutant("1/N forgotten", MEAN, in_place_of(gradient, "_shares", lambda right: lambda d, w: right(d, w) * len(d))),
    Mutant(
        "weights divided by N instead of their sum",
        WEIGHTED,
        in_place_of(gradient, "_shares", lambda right: lambda d, w: right(d * w[:, None], None)),
    ),
    Mutant(
        "weights forgotten",
        WEIGHTED,
        in_place_of(gradient, "_shares", lambda right: lambda d, w: right(d, None)),
    ),
    Mutant(
        "penalty: factor 2 missing",
        PENALIZED,
        in_place_of(
            losses,
            "regularizer_derivative_of",
            lambda right: lambda penalty: lambda params: jax.tree.map(lambda g: g / 2, right(penalty)(params)),
        ),
    ),
    Mutant(
        "loss: settings forgotten",
        SMOOTHED,
        in_place_of(losses, "derivative_of", lambda right: lambda loss: right(loss.func)),
    ),
    Mutant(
        "softmax and cross-entropy: y - d where d does not sum to 1",
        FUSED_SOFTMAX,
        in_place_of(
            fused,
            "FUSED",
            table_with((activations.softmax, losses.cross_entropy), lambda z, d: activations.softmax(z) - d),
        ),
    ),
    Mutant(
        "sigmoid and cross-entropy: the sigmoid's derivative once more",
        FUSED_SIGMOID,
        in_place_of(
            fused,
            "FUSED",
            table_with(
                (activations.sigmoid, losses.binary_cross_entropy),
                lambda z, d: (activations.sigmoid(z) - d) * activations.sigmoid_derivative(z),
            ),
        ),
    ),
    Mutant(
        "checkpoint: other masks the second time",
        RECOMPUTED,
        in_place_of(checkpoint, "_like", lambda right: lambda data, key: jax.random.fold_in(right(data, key), 1)),
    ),
]

QUICK = ["dense: weight not transposed", "conv: kernel not flipped", "1/N twice", "layer norm: without the mean's term"]
