"""A last linear layer and softmax cross-entropy, differentiated together a chunk of classes at a time.

    z = a w + b,   C = cross-entropy(softmax(z), labels),   delta = dC/dz = share (softmax(z) - q)
    dC/da = delta w',   dC/dw = a' delta,   dC/db = sum of delta

as for the layer and the loss apart (`linear`, `losses.softmax`), but neither z nor delta of all V classes is in memory:
a first loop over chunks of classes finds the log-sum-exp of z, with which a second one forms each chunk of delta
(`losses.logits`). Logits are not rounded to half precision.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnn import losses
from jaxnn.backprop.combinators import SERIAL_RULE
from jaxnn.backprop.rule import AtLogits, Collect, Rule, keep_input, register, rule_of
from jaxnn.backprop.sequences import ENCODED
from jaxnn.checks import require_positive_int
from jaxnn.layers import dense, tying
from jaxnn.layers.base import Kind, Layer
from jaxnn.layers.padding import VALUES, Values
from jaxnn.layers.sequences import no_context, with_values
from jaxnn.losses.chunked import Head, mean_over_positions, position_shares, prepare
from jaxnn.losses.logits import gradients, log_sums
from jaxnn.models.ties import filled
from jaxnn.tape import Addition, SoftmaxProduct
from jaxnn.types import Array, Key, Loss, Params, PyTree, State


class Matrix(NamedTuple):
    """How a layer multiplies: the axis of its matrix that counts outputs, and the names of matrix and bias among its
    parameters, which are no others; the bias may be absent."""

    class_axis: int
    w: str = "w"
    b: str = "b"


MATRICES: dict[Kind, Matrix] = {dense.KIND: Matrix(1), tying.UNEMBEDDING: Matrix(0)}
"""The kinds of layers that may be last: a dense layer, and the table (V, D) of an embedding tied to the output."""

INPUTS, PASSED = Kind("inputs of the last layer"), Kind("values after the last layer")


class _Inputs(Rule):
    """Of the identity in place of the last layer: it gets, as `AtLogits`, what the last layer's rule would return."""

    def backward(self, layer: Layer, params: Params, x: Any, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        return with_values(no_context(x), dy.delta), dy.params


class _Passed(Rule):
    """Of what stands in place of `Values` after it: it hands on what the rule before it is to get."""

    def backward(self, layer: Layer, params: Params, x: Any, dy: Any, collect: Collect) -> tuple[Any, PyTree]:
        return dy, ()


register(INPUTS, _Inputs(keep_input, lambda layer, params, x, dy: dy))
register(PASSED, _Passed(keep_input, lambda layer, params, x, dy: dy))


def _as_it_is(
    params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
) -> tuple[Any, State]:
    return x, state


INPUTS_LAYER = dataclasses.replace(Values, kind=INPUTS, apply=_as_it_is)
PASSED_LAYER = dataclasses.replace(Values, kind=PASSED)


class Forward(NamedTuple):
    """The losses (N,), the last layer with its targets, the log-sum-exp of each position (N, ...)."""

    losses: Array
    head: Head
    sums: Array


@dataclasses.dataclass(frozen=True)
class Chunks:
    """A network whose last layer and loss are differentiated together.

    Attributes:
        net: the network without its last layer, on the parameters of the whole network.
        last: the last layer.
        settings: those of the loss.
        chunk: the most classes in a chunk.
        masked: whether `Values` follow the last layer: at padding a = 0, and logits are 0.
    """

    net: Layer
    last: Layer
    settings: dict[str, Any]
    chunk: int
    masked: bool = False

    def forward(self, params: Params, a: Array, y: Array) -> Forward:
        """The loss of a, the inputs of the last layer."""
        matrix, own = MATRICES[self.last.kind], self._own(params)
        if self.masked and matrix.b in own:
            raise ValueError(
                "class_chunk: logits at padding are 0, but the last layer has a bias, which would be added there. "
                "Initialise it with b_init=None."
            )
        settings = {"label_smoothing": 0.0, "ignore_index": None} | self.settings
        head = prepare("class_chunk", a, own[matrix.w], y, own.get(matrix.b), matrix.class_axis, self.chunk, **settings)
        each, sums = log_sums(head.logits, head.labels, head.smoothing)
        return Forward(mean_over_positions(head, each), head, sums)

    def gradient(self, params: Params, found: Forward, shares: Array) -> AtLogits:
        """The cotangent of a and the gradient of the last layer; `shares` (N, ...) are the cotangents of the losses of
        the positions."""
        head = found.head
        of_a, *of_own = gradients(head.logits, head.labels, found.sums, head.smoothing, shares)
        own, matrix = self._own(params), MATRICES[self.last.kind]
        pairs = zip((matrix.w, matrix.b), of_own, strict=True)
        grads = {name: g.astype(own[name].dtype) for name, g in pairs if g is not None}
        return AtLogits(of_a.astype(head.logits.a.dtype), grads)

    def uses(self, found: Forward) -> AtLogits:
        """The cotangent of a and the uses of the last layer, of the summed loss."""
        head, n = found.head, found.losses.shape[0]
        a, w, b = head.logits.a, head.logits.w, head.logits.b

        def of_each(x: Array) -> Array:  # (N, T)
            return x.reshape(n, -1)

        labels, sums, shares = map(of_each, (head.labels, found.sums, position_shares(head)))
        rows = a.reshape(n, -1, a.shape[-1])
        own_b = None if b is None else jnp.broadcast_to(b[None], (n, b.shape[0]))
        smoothing = None if head.smoothing is None else jnp.broadcast_to(head.smoothing, (n,))
        use = SoftmaxProduct(rows, labels, sums, shares, w, own_b, smoothing, head.logits.class_axis, head.logits.size)
        of_a, _, of_b = gradients(use.logits, labels, sums, smoothing, shares, of_matrix=False)
        matrix = MATRICES[self.last.kind]
        found_uses: dict[str, PyTree] = {matrix.w: (use,)}
        if of_b is not None:
            found_uses[matrix.b] = (Addition(of_b[:, None]),)
        return AtLogits(of_a.reshape(a.shape).astype(a.dtype), found_uses)

    def _own(self, params: Params) -> dict[str, Array]:
        """The parameters of the last layer."""
        net = self.net
        while net.parts:
            place = _last_place(net)
            net, params = net.parts[place], filled(net, params)[place]
        return params


def chunks_of(where: str, net: Layer, loss: Loss, class_chunk: int | None) -> Chunks | None:
    """The network with its last layer taken apart; None without `class_chunk`.

    ValueError: the last layer or the loss is another; TypeError: not an int.
    """
    if class_chunk is None:
        return None
    chunk = require_positive_int(where, "class_chunk", class_chunk)
    settings: dict[str, Any] = {}
    function: Any = loss
    while isinstance(function, functools.partial) and not function.args:
        settings, function = {**function.keywords, **settings}, function.func
    if function is not losses.softmax_cross_entropy:
        raise ValueError(
            f"{where}: class_chunk needs losses.softmax_cross_entropy, with settings bound by functools.partial, got "
            f"{loss!r}. Leave it out for other losses."
        )
    return Chunks(*_taken_apart(where, net), settings, chunk, _is_masked(net))


def _is_masked(net: Layer) -> bool:
    return bool(net.parts) and (net.parts[-1].kind is VALUES or _is_masked(net.parts[-1]))


def _taken_apart(where: str, net: Layer) -> tuple[Layer, Layer]:
    """(the network with the identity in place of its last layer, its last layer)."""
    if net.kind in MATRICES:
        return INPUTS_LAYER, net
    if not net.parts or rule_of(net) not in (SERIAL_RULE, ENCODED):
        known = " or ".join(sorted(kind.name for kind in MATRICES))
        raise ValueError(
            f"{where}: class_chunk needs a network whose last layer is {known}, got {net!r:.80}. The "
            "logits are the outputs of the network: leave out a last activation."
        )
    place = _last_place(net)
    rest, last = _taken_apart(where, net.parts[place])
    after = [PASSED_LAYER] * (len(net.parts) - 1 - place)
    return dataclasses.replace(net, parts=(*net.parts[:place], rest, *after)), last


def _last_place(net: Layer) -> int:
    """The index of the part with the last layer: the last part, or the one before `Values`."""
    last = len(net.parts) - 1
    return last - 1 if last > 0 and net.parts[last].kind in (VALUES, PASSED) else last
