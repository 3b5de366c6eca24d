"""Gradients of decoders of this library and of flax, in bfloat16: programs for accelerators (device_registry.py).

`decoder` has the sizes of `wide transformer` (device_networks.py), `small decoder` is what the tests compile. Both nets
have learned positions, layer norms before each part, GELU, biases, and an output matrix of their own; parameters are
bfloat16. Attention of ours runs over blocks of queries with float32 scores, that of flax over all scores in bfloat16.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.device_networks import LOSS, half
from benchmarks.device_registry import I32, TARGETS, Case, program, shaped
from jaxnn import activations, backprop, initializers, layers, models, train

SIZES: dict[str, dict[str, int]] = {
    "decoder": {"batch": 16, "vocabulary": 32_768, "length": 1024, "width": 768, "heads": 12, "layers": 4},
    "small decoder": {"batch": 4, "vocabulary": 512, "length": 1024, "width": 128, "heads": 4, "layers": 3},
}
"""Of 113 million and of 0.9 million parameters."""


@functools.cache
def ours(name: str, stacked: bool = False) -> tuple[layers.Layer, tuple[Any, ...]]:
    """(net, its arguments)."""
    size = SIZES[name]
    width, heads = size["width"], size["heads"]
    hidden = layers.Dense(4 * width), layers.Activation(activations.gelu_tanh), layers.Dense(width)
    net = models.transformer(
        size["vocabulary"],
        width=width,
        depth=size["layers"],
        attention=layers.Attention(heads, causal=True, b_init=initializers.zeros),
        mlp=models.serial(*hidden),
        norm=layers.LayerNorm(),
        positions=layers.LearnedPositions(size["length"]),
        head=layers.Dense(size["vocabulary"], b_init=None),
        stacked=stacked,
    )
    words = shaped((size["length"],), I32)
    params, state = jax.eval_shape(lambda: net.init(jax.random.key(0), words))
    tokens = shaped((size["batch"], size["length"]), I32)
    return net, (half(params), state, tokens, tokens)


def of_flax(name: str) -> Case:
    from benchmarks.flax_gpt import Gpt, shapes

    size = dict(SIZES[name])
    batch = size.pop("batch")
    model = Gpt(**size, scanned=False)

    def mean_loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y))

    return Case(jax.value_and_grad(mean_loss), half(shapes(model, batch)))


for _name in SIZES:
    _by_jax, _by_flax = f"{_name} gradient by jax.grad", f"{_name} gradient by flax"
    _quick = TARGETS if _name == "small decoder" else ()

    for _which, _stacked in {"": False, ", stacked": True}.items():

        @program(f"{_name} gradient by backprop{_which}", rivals=(_by_flax, _by_jax), quick=_quick)
        def _(name: str = _name, stacked: bool = _stacked) -> Case:
            net, args = ours(name, stacked)
            return Case(backprop.value_and_grad(net, LOSS), args)

    @program(_by_jax, rivals=(_by_flax,), quick=_quick)
    def _(name: str = _name) -> Case:
        net, args = ours(name)
        return Case(jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True), args)

    program(_by_flax, quick=_quick)(functools.partial(of_flax, _name))
