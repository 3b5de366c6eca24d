"""Networks of threshold units built by hand, their size, and two ways to recode them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn import activations, tree
from jaxnn.checks import require_between
from jaxnn.layers import Activation, Layer, Sigmoid, Tanh, dense
from jaxnn.models import parallel, serial
from jaxnn.models.combinators import PARALLEL, SERIAL
from jaxnn.types import Array, ArrayLike, Params, Scalar

THRESHOLD = Activation(activations.heaviside, at_zero=1.0)
"""The unit step that fires at its threshold: 1 if z >= 0, else 0 (McCulloch & Pitts 1943)."""

SIGN = Activation(activations.perceptron_sign)
"""The perceptron's sign: +1 if z >= 0, else -1 (Rosenblatt 1958)."""


class Network(NamedTuple):
    """A `serial` net and constructed parameters: `net, params = gates.xor()`.

    The net has no state: `net.predict(params, (), x)`, or for short `network(x)`. The parameters have the structure of
    `net.init`, so that training may start from them; see `soften`.

    Attributes:
        net: a Layer.
        params: its parameters, with weights (D_in, D_out) and biases (D_out,) of each dense layer.

    Example:
        >>> from jaxnn.classic import gates
        >>> network = gates.xor()
        >>> network([[0, 1], [1, 1]])
        Array([[1.],
               [0.]], dtype=float32)
        >>> network.units, network.layers, network.parameters
        (3, 2, 9)
    """

    net: Layer
    params: Params

    def __call__(self, x: ArrayLike) -> Array:
        """The outputs (N, K) at inputs (N, D), cast to the default float dtype. ValueError for other than two axes."""
        rows = jnp.asarray(x, float)
        if rows.ndim != 2:
            raise ValueError(
                f"network: expected inputs (N, D), got shape {rows.shape}. Pass one input as [x], and one "
                "number per input as x[:, None]."
            )
        return _predict(self.net, self.params, rows)

    @property
    def units(self) -> int:
        """The number of units, hidden and output: one per bias."""
        named = jax.tree.leaves_with_path(self.params)
        return sum(leaf.size for path, leaf in named if path[-1] == jax.tree_util.DictKey("b"))

    @property
    def layers(self) -> int:
        """The number of layers of units, hidden and output."""
        return _depth(self.net)

    @property
    def parameters(self) -> int:
        """The number of weights and biases."""
        return tree.size(self.params)


def dense_params(w: ArrayLike, b: ArrayLike) -> dict[str, Array]:
    """Parameters of a dense layer from weights (D_in, D_out) and biases (D_out,), in the default dtype."""
    return {"w": jnp.asarray(w, float), "b": jnp.asarray(b, float)}


def bipolar(network: Network) -> Network:
    """The same Boolean function on -1 and +1 in place of 0 and 1, by sign units.

    With x = (1 + s) / 2, w.x + b >= 0 is w.s + (2 b + sum_i w_i) >= 0: only the biases change.

    Args:
        network: of threshold units, with inputs and outputs 0 and 1.

    Returns:
        Network: inputs and outputs -1 and +1.

    Raises:
        TypeError: not a Network.
        ValueError: a layer is not followed by 0/1 thresholds: it is softened, linear, or already bipolar.

    Example:
        >>> from jaxnn.classic import gates
        >>> bipolar(gates.xor())([[-1, 1], [1, 1]])
        Array([[ 1.],
               [-1.]], dtype=float32)
    """

    if (kinds := _after_dense("bipolar", network)) != {THRESHOLD}:
        raise ValueError(
            "bipolar: every layer of the network must end in thresholds with outputs 0 and 1, got "
            f"{', '.join(sorted('no activation' if kind is None else repr(kind) for kind in kinds))}. Recode first, "
            "soften afterwards."
        )

    def recoded(params: Params) -> Params:
        return {"w": params["w"], "b": 2 * params["b"] + params["w"].sum(0)}

    return Network(*_replaced(*network, {THRESHOLD: SIGN}, recoded))


def soften(network: Network, sharpness: Scalar = 10.0) -> Network:
    """The same network with sigmoids in place of thresholds, so that gradients can train it.

    The derivative of a threshold is 0 wherever it exists. sigmoid(k z) tends to the threshold as k grows: the weights
    and biases in front of each threshold are multiplied by k. The signs of `bipolar` become tanh(k z).

    To train `net, params = soften(...)` pass `start=train.TrainState(params, (), opt.init(params))` to `train.fit`.

    Args:
        network: of threshold or sign units; a linear output layer is unchanged.
        sharpness: k >= 0; may be traced.

    Raises:
        TypeError: not a Network.
        ValueError: no threshold or sign unit in the network, or a negative or infinite sharpness.

    Example:
        >>> from jaxnn.classic import gates
        >>> soften(gates.xor(), 20.0)([[0, 1], [1, 1]]).round(3)
        Array([[1.],
               [0.]], dtype=float32)
    """
    require_between("soften", "sharpness", sharpness, 0, math.inf, open_high=True)
    smooth = {THRESHOLD: Sigmoid, SIGN: Tanh}
    if not _after_dense("soften", network) & smooth.keys():
        raise ValueError("soften: the network has no thresholds. If it is already softened, soften the original.")

    def scaled(params: Params) -> Params:
        return jax.tree.map(lambda p: sharpness * p, params)

    return Network(*_replaced(*network, smooth, scaled))


@partial(jax.jit, static_argnums=0)
def _predict(net: Layer, params: Params, x: Array) -> Array:
    return net.predict(params, (), x)


def _after_dense(where: str, network: Network) -> set[Layer | None]:
    """The activations after the dense layers, None where there is none."""
    if not isinstance(network, Network):
        raise TypeError(f"{where}: expected a Network, net and params together, got {type(network).__name__}.")

    def found(net: Layer) -> set[Layer | None]:
        followers: list[set[Layer | None]] = [found(part) for part in net.parts]
        for part, after in zip(net.parts, [*net.parts[1:], None], strict=False):
            followers.append({after} if part.kind is dense.KIND else set())
        return set().union(*followers)

    return found(network.net)


def _replaced(
    net: Layer, params: Params, steps: Mapping[Layer, Layer], change: Callable[[Params], Params]
) -> tuple[Layer, Params]:
    """`net` with other activations, and `change` applied to the parameters of the dense layer in front of each."""
    if net.kind is PARALLEL:
        made = [_replaced(part, p, steps, change) for part, p in zip(net.parts, params, strict=True)]
        return parallel(*(part for part, _ in made)), tuple(p for _, p in made)
    if net.kind is not SERIAL:
        return net, params
    parts: list[Layer] = []
    new: list[Any] = []
    for part, p, after in zip(net.parts, params, (*net.parts[1:], None), strict=True):
        part, p = _replaced(part, p, steps, change)
        parts.append(steps.get(part, part))
        new.append(change(p) if after in steps else p)
    return serial(*parts), tuple(new)


def _depth(net: Layer) -> int:
    if net.kind is dense.KIND:
        return 1
    depths = [_depth(part) for part in net.parts]
    return max(depths, default=0) if net.kind is PARALLEL else sum(depths)
