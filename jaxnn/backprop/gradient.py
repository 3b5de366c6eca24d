"""The gradient of the training loss by the hand-written rules, and the tape of one backward pass."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxnn import losses
from jaxnn.backprop.checkpoint import checkpointed
from jaxnn.backprop.combinators import place_of
from jaxnn.backprop.fused import output_error
from jaxnn.backprop.heads import chunks_of
from jaxnn.backprop.rule import GRADIENT, USES, rule_of
from jaxnn.checks import as_arrays, require_function
from jaxnn.layers.base import Layer, as_batch, require_net
from jaxnn.layers.sequences import require_array, values_of
from jaxnn.losses.chunked import position_shares
from jaxnn.losses.mean import combined_weights, require_one_each, weighted_mean
from jaxnn.numerics import accumulate
from jaxnn.placement import compiler_sharded, explicit_mesh, explicit_spec, placed_shape, rows_spec
from jaxnn.tape import Tape, Use, whole
from jaxnn.types import Array, Key, Loss, Params, PyTree, State
from jaxnn.varying import sum_like, vary, varying_axes

ValueAndGrad: TypeAlias = Callable[..., tuple[tuple[Array, State], Params]]
"""(params, state, x, y, *, key=None, weights=None, loss_scale=None) -> ((value, state), grads)."""


def value_and_grad(
    net: Layer,
    loss: Loss,
    regularizer: Callable[[Params], Array] | None = None,
    *,
    remat_every: int | None = None,
    class_chunk: int | None = None,
) -> ValueAndGrad:
    """A function of the training loss and its gradient, as `jax.value_and_grad(train.mean_loss(...), has_aux=True)`.

    C(params) = sum_i w_i loss(net(x_i), y_i) / sum_i w_i + regularizer(params), in training mode; w_i are the weights,
    1 by default, times `losses.example_weights`. One forward pass and one backward pass through the layers' rules,
    which starts from the hand-written derivative of the loss (`jaxnn.losses`) times w_i / sum w. The gradient is that
    of `jax.grad` up to rounding, except where a fused loss (see `loss`) saturates. `coverage(net, loss)` lists what is
    written by hand and what falls back to `jax.vjp`. Inside `jax.shard_map`, with its default checks, gradients of
    replicated parameters are summed over the devices, as by `jax.grad`; the value is the device's own.

    Args:
        net: a network.
        loss: per-example loss, (outputs (N, ...), targets (N, ...)) -> (N,). A last softmax or sigmoid and the
            cross-entropy of its probabilities are differentiated in one step, y - d: exact also where y has rounded to
            0 or 1, where `jax.grad` returns about 0.
        regularizer: a function of the parameters, such as `losses.l2(1e-4)`; added to the mean.
        remat_every: k, to store only the input of every k-th part of a serial and recompute the parts between in the
            backward pass: equal results, less memory. None stores all activations.
        class_chunk: the most classes of which the logits are formed at once, where the last layer is dense or a tied
            embedding and the loss `softmax_cross_entropy` of labels: equal results up to rounding, without the logits
            (N, ..., V) in memory. For large vocabularies, e.g. 2048; see `losses.chunked_softmax_cross_entropy`. None
            forms all.

    Returns:
        `vg(params, state, x, y, *, key=None, weights=None, loss_scale=None) -> ((value, state), grads)`: value a
        scalar, state with updated running statistics, grads a pytree like `params`, in their dtypes, times `loss_scale`
        if there is one (see `train.precision`). For `train.make_step`, `make_epoch`.

    Raises:
        TypeError: net is not a Layer, loss or regularizer not a function, `remat_every` or `class_chunk` not an int.
        ValueError: `remat_every` < 1, or with a network that is not a serial; `class_chunk` < 1, or with another last
            layer or loss; when called, parameters of another
            network, a loss that does not return one value per example, weights not of shape (N,), or N = 0.

    Reference: Rumelhart, D. E., Hinton, G. E. & Williams, R. J. (1986). Learning representations by back-propagating
        errors.

    Example:
        >>> from jaxnn import models
        >>> net = models.linear(3)
        >>> params, state = net.init(jax.random.key(0), (4,))
        >>> vg = value_and_grad(net, losses.softmax_cross_entropy)
        >>> (value, state), grads = vg(params, state, jnp.ones((2, 4)), jnp.array([0, 2]))
        >>> grads[1]["w"].shape
        (4, 3)
    """
    require_net("value_and_grad", net)
    require_function("value_and_grad", "loss", loss, "losses.softmax_cross_entropy", optional=False)
    require_function("value_and_grad", "regularizer", regularizer, "losses.l2(1e-4)")
    error_of, chunks = output_error(net, loss), chunks_of("value_and_grad", net, loss, class_chunk)
    inner = net if chunks is None else chunks.net
    saving = None if remat_every is None else checkpointed(inner, remat_every)
    slopes_of = None if regularizer is None else losses.regularizer_derivative_of(regularizer)

    def of_batch(
        params: Params, state: State, x: Array, y: Array, key: Key | None, weights: Array | None, scale: Array | None
    ) -> tuple[tuple[Array, State], Params]:
        rule = rule_of(inner) if saving is None else saving
        replicated, params = params, own_params(params, x, y, key, weights)
        outputs, new_state, cache = rule.forward(inner, params, state, x, key=key, train=True)
        require_array("value_and_grad", outputs)
        w = combined_weights(losses.example_weights(loss, y), weights)
        error: Any
        if chunks is None:
            value = weighted_mean(loss(outputs, y), w)
            # Rounded to the outputs' dtype once, after it was multiplied: in float16 it might underflow before.
            each = jax.tree.map(accumulate, error_of(accumulate(outputs), y, cache))
            error = jax.tree.map(lambda delta: scaled(_shares(delta, w), scale).astype(outputs.dtype), each)
        else:
            found = chunks.forward(params, outputs, y)
            value = weighted_mean(found.losses, w)
            error = chunks.gradient(params, found, scaled(_shares(position_shares(found.head), w), scale))
        grads = rule.backward(inner, params, cache, error, GRADIENT)[1]
        if regularizer is not None and slopes_of is not None:
            value = value + regularizer(params).astype(value.dtype)
            grads = jax.tree.map(jnp.add, grads, scaled(slopes_of(params), scale))
        return (value, new_state), sum_like(grads, replicated)

    def vg(
        params: Params,
        state: State,
        x: Array,
        y: Array,
        *,
        key: Key | None = None,
        weights: Array | None = None,
        loss_scale: Array | None = None,
    ) -> tuple[tuple[Array, State], Params]:
        x, y = as_batch("value_and_grad", "x", x), as_arrays("value_and_grad", "y", y)
        everywhere = PartitionSpec()
        results = ((everywhere, everywhere), jax.tree.map(lambda p: explicit_spec(p) or everywhere, params))
        return compiler_sharded(of_batch, results, params, state, x, y, key, weights, loss_scale)

    return vg


def scaled(grads: Params, scale: Array | None) -> Params:
    """Gradients or cotangents times a loss scale, in their own dtypes; None is 1."""
    return grads if scale is None else jax.tree.map(lambda g: (accumulate(g) * scale).astype(g.dtype), grads)


def own_params(params: Params, *batch: PyTree) -> Params:
    """The parameters cast to vary over the mesh axes of the batch, inside `jax.shard_map`."""
    # Otherwise the `jax.vjp` of a layer without a rule would sum gradients over the devices, and `sum_like` again.
    return vary(params, varying_axes(params, batch))


def _shares(delta: Array, weights: Array | None) -> Array:
    """(w_i / sum w) delta_i, from the cotangents of the sum to those of the mean; exactly 0 where w_i is 0."""
    if weights is None:
        return delta / delta.shape[0]
    wide = accumulate(delta)
    w = weights.astype(wide.dtype)
    total = jnp.sum(w)
    # A batch of padding alone has sum w = 0: its gradient is 0, not NaN.
    share = (w / jnp.where(total == 0, jnp.ones_like(total), total)).reshape(-1, *(1,) * (delta.ndim - 1))
    return jnp.where(share == 0, jnp.zeros((), wide.dtype), share * wide)


def record(net: Layer, loss: Loss, *, class_chunk: int | None = None) -> Callable[..., Tape]:
    """A function that records a backward pass of the SUMMED loss: (a, delta) of each use, for `per_example`.

    Args:
        net: a network.
        loss: per-example loss, (outputs (N, ...), targets (N, ...)) -> (N,).
        class_chunk: as for `value_and_grad`: no logits are stored, and no cotangents of logits. The tape's `outputs`
            are then the losses.

    Returns:
        `recorded(params, state, x, y, *, key=None, train=False) -> Tape`. With train=True the network is in training
        mode: dropout needs the key, and batch normalization leaves per-example gradients undefined. `value_and_grad` is
        always in training mode: for its gradient of a network with dropout, pass train=True and the same key; of a loss
        with `ignore_index`, weight the examples by `losses.example_weights`. Regularizers are not part of an example's
        loss: add their gradient to the mean.

    Raises:
        TypeError: net is not a Layer, loss not a function, or `class_chunk` not an int.
        ValueError: `class_chunk` < 1, or with another last layer or loss; when called, parameters of another network, a
            loss that does not return one value per example, or a rule whose uses do not match the parameters.

    Reference: Goodfellow, I. (2015). Efficient per-example gradient computations, section 4.

    Example:
        >>> from jaxnn import models
        >>> net = models.linear(3)
        >>> params, state = net.init(jax.random.key(0), (4,))
        >>> tape = record(net, losses.softmax_cross_entropy)(params, state, jnp.ones((2, 4)), jnp.array([0, 2]))
        >>> tape.losses.shape, tape.paths
        ((2,), ("[1]['b']", "[1]['w']"))
    """
    require_net("record", net)
    require_function("record", "loss", loss, "losses.softmax_cross_entropy", optional=False)
    error_of, chunks = output_error(net, loss), chunks_of("record", net, loss, class_chunk)
    inner = net if chunks is None else chunks.net

    def of_batch(
        params: Params, state: State, x: Array, y: Array, key: Key | None, *, train: bool, explicit: bool
    ) -> Tape:
        rule = rule_of(inner)
        params = own_params(params, x, y, key)
        outputs, _, cache = rule.forward(inner, params, state, x, key=key, train=train)
        require_array("record", outputs)
        error: Any
        if chunks is None:
            each, error = loss(outputs, y), error_of(outputs, y, cache)
            require_one_each(each, outputs.shape[0])
        else:
            found = chunks.forward(params, outputs, y)
            outputs = each = found.losses
            error = chunks.uses(found)
        uses = rule.backward(inner, params, cache, error, USES)[1]
        if explicit:  # types say how all arrays are sharded: by examples, so none that the examples share
            uses = jax.tree.map(whole, uses, is_leaf=lambda use: isinstance(use, Use))
        return tape_of(params, each, outputs, uses, coupled_layers(net, train))

    def recorded(
        params: Params, state: State, x: Array, y: Array, *, key: Key | None = None, train: bool = False
    ) -> Tape:
        x, y = as_batch("record", "x", x), as_arrays("record", "y", y)
        args = params, state, x, y, key
        run = functools.partial(of_batch, train=train, explicit=explicit_mesh(args) is not None)
        tape = compiler_sharded(run, rows_spec(values_of(x)), *args)
        return dataclasses.replace(tape, leaves=tuple(placed_shape(p) for p in jax.tree.leaves(params)))

    return recorded


def tape_of(params: Params, each: Array, outputs: Array, uses: PyTree, coupled: tuple[str, ...]) -> Tape:
    """The tape of losses `each` (N,), outputs (N, ...) and `uses`, a pytree like `params` of tuples of uses."""
    structure: Any
    places, structure = jax.tree.flatten_with_path(params)
    return Tape(
        each,
        outputs,
        tuple(structure.flatten_up_to(uses)),
        tuple(jax.tree_util.keystr(path) for path, _ in places),
        structure,
        tuple(jax.ShapeDtypeStruct(p.shape, p.dtype) for _, p in places),
        coupled,
    )


def coupled_layers(net: Layer, train: bool, place: str = "") -> tuple[str, ...]:
    """The layers that couple the examples in this mode, by kind and path of the parameters; `place` is the path of net.

    Example:
        >>> from jaxnn.layers import BatchNorm, Dense
        >>> from jaxnn.models import serial
        >>> coupled_layers(serial(Dense(3), BatchNorm()), train=True)
        ('batch_norm at [1]',)
    """
    places = [(part, place_of(net, place, i)) for i, part in enumerate(net.parts)]
    inside = tuple(name for part, path in places for name in coupled_layers(part, train, path))
    if inside or not rule_of(net).couples(net, train):
        return inside
    return (f"{net.kind.name} at {place or 'the top'}",)


__all__ = ["coupled_layers", "own_params", "record", "scaled", "tape_of", "value_and_grad"]
