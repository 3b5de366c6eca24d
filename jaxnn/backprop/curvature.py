"""Tapes of several output cotangents of one forward pass, for curvature and the neural tangent kernel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxnn import losses
from jaxnn.backprop.combinators import forward
from jaxnn.backprop.gradient import coupled_layers, own_params, tape_of
from jaxnn.backprop.rule import USES, rule_of
from jaxnn.checks import as_arrays, require_function, require_positive_int
from jaxnn.layers.base import Layer, as_batch, require_net
from jaxnn.layers.sequences import require_array, values_of
from jaxnn.losses.mean import require_one_each
from jaxnn.placement import compiler_sharded, placed_shape, rows_spec
from jaxnn.tape import Columns, Tape, errors_of, with_errors
from jaxnn.types import Array, Key, Loss, Params, PyTree, State

Parts: TypeAlias = tuple[Tape, PyTree]
"""A tape without its deltas, and the deltas (C, N, ...) of each use."""


def ggn_record(net: Layer, loss: Loss, *, samples: int | None = None) -> Callable[..., Columns]:
    """A function that records the generalized Gauss-Newton matrix: a forward pass, and a backward pass for each column.

    G = 1/N sum_i J_i' H_i J_i, J_i the Jacobian of example i's outputs with respect to the parameters, H_i = S_i S_i'
    the Hessian of its loss with respect to its outputs (`losses.hessian_root_of`). Exact by default: the columns of S_i
    are pulled back, C = the number of outputs of an example. With `samples`, that many random cotangents with second
    moment H_i, each divided by sqrt(samples), take their place (`losses.sampled_error_of`; for the first five losses of
    the table in `losses.roots`, those of labels sampled from the model): unbiased, and cheaper for many outputs. Where
    a loss is not convex in the outputs, negative eigenvalues of H_i are set to 0, so that G is positive semi-definite.

    Args:
        net: a network, applied in evaluation mode.
        loss: per-example loss, (outputs (N, ...), targets (N, ...)) -> (N,).
        samples: number of random cotangents; None for the exact columns.

    Returns:
        `recorded(params, state, x, y, *, key=None) -> Columns`, for `per_example.diag_ggn`, `kfac_expand`, `trace`;
        `samples` requires the key. Inside `jax.shard_map` the columns are of the device's own examples; pass each
        device its own key there: `jax.random.fold_in(key, jax.lax.axis_index("data"))`.

    Raises:
        TypeError: net is not a Layer, loss not a function, or samples not an int.
        ValueError: samples < 1; from `recorded`, samples without a key, parameters of another network, or a loss that
            does not return one value per example.

    References:
        Schraudolph, N. N. (2002). Fast curvature matrix-vector products for second-order gradient descent.
        Dangel, F., Kunstner, F. & Hennig, P. (2020). BackPACK: packing more into backprop, section 2.3, appendix A.2.

    Example:
        >>> from jaxnn import models
        >>> net = models.linear(3)
        >>> params, state = net.init(jax.random.key(0), (4,))
        >>> record = jax.jit(ggn_record(net, losses.softmax_cross_entropy))
        >>> columns = record(params, state, jnp.ones((2, 4)), jnp.array([0, 2]))
        >>> columns.count
        3
    """
    require_net("ggn_record", net)
    require_function("ggn_record", "loss", loss, "losses.softmax_cross_entropy", optional=False)
    if samples is not None:
        samples = require_positive_int("ggn_record", "samples", samples)
    root, sampled = losses.hessian_root_of(loss), losses.sampled_error_of(loss)

    def errors(outputs: Array, y: Array, key: Key | None) -> Array:
        if samples is None:
            return root(outputs, y)
        if key is None:
            raise ValueError(
                f"ggn_record: samples={samples} draws random cotangents and needs a key: pass key=jax.random.key(0)."
            )
        drawn = jax.vmap(lambda k: sampled(k, outputs, y))(jax.random.split(key, samples))
        return drawn / jnp.sqrt(jnp.asarray(samples, drawn.dtype))

    def of_batch(params: Params, state: State, x: Array, y: Array, key: Key | None) -> Parts:
        params = own_params(params, x, y, key)
        outputs, _, cache = forward(net, params, state, x)
        require_array("ggn_record", outputs)
        each = loss(outputs, y)
        require_one_each(each, outputs.shape[0])
        sent = errors(outputs, y, key).astype(outputs.dtype)
        return _parts(net, params, cache, each, outputs, sent)

    def recorded(params: Params, state: State, x: Array, y: Array, *, key: Key | None = None) -> Columns:
        x, y = as_batch("ggn_record", "x", x), as_arrays("ggn_record", "y", y)
        tape = _taped(of_batch, params, state, x, y, key)
        return Columns(tape, samples or math.prod(tape.outputs.shape[1:]), losses.is_likelihood(loss))

    return recorded


def output_record(net: Layer) -> Callable[..., Columns]:
    """A function that records the gradient g_ic of each output c of each example i, for `per_example.ntk`.

    Args:
        net: a network, applied in evaluation mode.

    Returns:
        `recorded(params, state, x) -> Columns`, C = the number of outputs of an example; the tape's losses are 0.

    Raises:
        TypeError: net is not a Layer.
        ValueError: from `recorded`, parameters of another network.

    Reference: Jacot, A., Gabriel, F. & Hongler, C. (2018). Neural tangent kernel: convergence and generalization in
        neural networks, section 4.

    Example:
        >>> from jaxnn import models
        >>> net = models.linear(3)
        >>> params, state = net.init(jax.random.key(0), (4,))
        >>> output_record(net)(params, state, jnp.ones((2, 4))).count
        3
    """
    require_net("output_record", net)

    def of_batch(params: Params, state: State, x: Array) -> Parts:
        params = own_params(params, x)
        outputs, _, cache = forward(net, params, state, x)
        require_array("output_record", outputs)
        n, *shape = outputs.shape
        one = jnp.eye(math.prod(shape), dtype=outputs.dtype).reshape(-1, 1, *shape)
        sent = jnp.broadcast_to(one, (one.shape[0], *outputs.shape))
        return _parts(net, params, cache, jnp.zeros(n, outputs.dtype), outputs, sent)

    def recorded(params: Params, state: State, x: Array) -> Columns:
        tape = _taped(of_batch, params, state, as_batch("output_record", "x", x))
        return Columns(tape, math.prod(tape.outputs.shape[1:]))

    return recorded


def _parts(net: Layer, params: Params, cache: Any, each: Array, outputs: Array, sent: Array) -> Parts:
    """One backward pass per cotangent, under vmap; a tape without deltas is the same for all."""

    def of_one(error: Array) -> Parts:
        uses = rule_of(net).backward(net, params, cache, error, USES)[1]
        tape = tape_of(params, each, outputs, uses, coupled_layers(net, False))
        found = errors_of(tape)
        return with_errors(tape, jax.tree.map(lambda _: None, found)), found

    return jax.vmap(of_one, out_axes=(None, 0))(sent)


def _taped(of_batch: Callable[..., Parts], params: Params, state: State, x: Array, *rest: Any) -> Tape:
    """The tape of all cotangents; on a mesh with Explicit axes its rows are sharded as the examples."""
    rows = rows_spec(values_of(x))
    tape, found = compiler_sharded(of_batch, (rows, PartitionSpec(None, *rows)), params, state, x, *rest)
    return dataclasses.replace(with_errors(tape, found), leaves=tuple(placed_shape(p) for p in jax.tree.leaves(params)))
