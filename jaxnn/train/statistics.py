"""The training loss, its gradient and statistics of per-example gradients, in one backward pass."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxnn import losses
from jaxnn.backprop import coupled_layers
from jaxnn.backprop.gradient import scaled
from jaxnn.checks import as_arrays, require_leading_axis
from jaxnn.layers import Layer
from jaxnn.losses.mean import combined_weights, require_one_each, weighted_mean
from jaxnn.numerics import accumulate
from jaxnn.per_example import SqNorms, Statistic, value_and_grad
from jaxnn.per_example.streaming.gradient import statistics_of
from jaxnn.per_example.streaming.statistic import Parameter
from jaxnn.placement import compiler_sharded, explicit_spec, rows_spec
from jaxnn.train.arguments import require_function
from jaxnn.types import Array, Key, Loss, Params, PyTree, Scalar, State
from jaxnn.varying import sum_like, vary, varying_axes

WHERE = "per_example_vg"
NORMS = SqNorms()
RESERVED = (
    "loss", "examples", "epoch", "seconds", "examples_per_second", "learning_rate", "loss_scale", "skipped_steps",
)  # fmt: skip
"""Names that the step's report, or a record of the history, has already."""


class Statistics(NamedTuple):
    """What a step finds out about the gradients of its examples.

    Attributes:
        values: what the statistics ask for; `make_step` passes it to `opt.update(..., statistics=values)`.
        means: the mean over the batch's examples of each statistic that is one number per example, by name, for the
            step's report and the history of `fit`.
    """

    values: PyTree
    means: dict[str, Array]


def per_example_vg(
    net: Layer | Callable[..., Array],
    loss: Loss | None = None,
    statistics: PyTree = NORMS,
    regularizer: Callable[[Params], Array] | None = None,
) -> Callable[..., Any]:
    """`jax.value_and_grad(mean_loss(net, loss, regularizer), has_aux=True)` with statistics of per-example gradients.

    C(params) = sum_i w_i loss_i / sum_i w_i + regularizer(params), in training mode, and what `statistics` ask for of
    g_i, the gradient of loss_i, in one backward pass (`per_example.value_and_grad`). There are two cases:

    | call | loss_i |
    |---|---|
    | `per_example_vg(net, loss, statistics)` | loss(net(x_i), y_i), a network and a loss of this library |
    | `per_example_vg(loss_of_one, statistics=statistics)` | `loss_of_one(params, x_i, y_i)`, any JAX function |

    The gradient is that of the MEAN; statistics are those of each example's own loss, not divided by N, and without the
    regularizer. With weights they are those of s_i g_i, s_i = w_i / (mean of the weights that are not 0), so that the
    gradient is the mean of s_i g_i over these examples: with weights 0 and 1 (padding) of g_i itself, and 0 for an
    example that is removed. The number of unmasked positions of a masking loss is a weight too, as in `mean_loss`.

    Each example has a key of its own, `jax.random.split(key, N)[i]`: dropout masks differ from those of `mean_loss`.
    `loss_of_one` gets it as `key=` if it has a parameter of this name, or `**kwargs`. Inside `jax.shard_map` value and
    statistics are the device's own, gradients of replicated parameters are summed over the devices, as by `jax.grad`.

    Args:
        net: a network without running statistics, or a loss of ONE example, `(params, x, y) -> ()`.
        loss: per-example loss, (outputs (N, ...), targets (N, ...)) -> (N,), of a network; None without one.
        statistics: as for `per_example.value_and_grad`: one, or a tuple or dict of them, whose keys are their names.
        regularizer: a function of the parameters, such as `losses.l2(1e-4)`; added to the mean.

    Returns:
        `vg(params, state, x, y, *, key=None, weights=None, loss_scale=None) -> ((value, state, statistics), grads)` for
        `make_step`, `make_epoch` and `fit(..., value_and_grad=vg)`; `statistics` is `Statistics(values, means)`, the
        state as it came. `loss_scale` multiplies the cotangents and grads, not the statistics; see `precision`.

    Raises:
        TypeError: no loss for a network, or one beside a loss of one example; a regularizer that is not a function; not
            a statistic.
        ValueError: a network whose examples are coupled (batch normalization), or with running statistics; a statistic
            named as something else in the report; when called: as `mean_loss`; a loss scale with a statistic whose
            `degree` is not known.

    Reference: Goodfellow, I. (2015). Efficient per-example gradient computations.

    Example:
        >>> from jaxnn import models, optim, train
        >>> net, opt = models.linear(3), optim.sgd(0.1)
        >>> vg = per_example_vg(net, losses.softmax_cross_entropy)
        >>> ts = train.init(net, opt, jax.random.key(0), (4,))
        >>> (value, state, found), grads = vg(ts.params, ts.state, jnp.ones((2, 4)), jnp.array([0, 2]))
        >>> found.values.shape, list(found.means)
        ((2,), ['sq_norms'])
        >>> ts, report = train.make_step(vg, opt)(ts, jnp.ones((2, 4)), jnp.array([0, 2]))
        >>> sorted(report)
        ['loss', 'sq_norms']
    """
    require_function(WHERE, "regularizer", regularizer, "losses.l2(1e-4)")
    flat, structure = statistics_of(statistics)
    names = names_of(statistics)
    of_one = _loss_of_net(net, loss) if isinstance(net, Layer) else _loss_of_user(net, loss)
    takes_key = isinstance(net, Layer) or _takes_key(net)
    slopes_of = None if regularizer is None else losses.regularizer_derivative_of(regularizer)

    def of_batch(
        params: Params, state: State, x: PyTree, y: PyTree, key: Key | None, weights: Array | None, scale: Array | None
    ) -> tuple[tuple[Array, Statistics], Params]:
        # With own parameters the gradients are per device, and are divided by the device's number of examples.
        own = vary(params, varying_axes(params, x, y, key, weights))
        n = require_leading_axis(WHERE, "x and y", (x, y))
        w = combined_weights(losses.example_weights(loss, y), weights)
        count, shares = _shares(n, w)
        keys = (jax.random.split(key, n),) if takes_key and key is not None else ()
        streamed = value_and_grad(lambda params, *example: of_one(params, state, *example), statistics)
        # Of scaled losses that of the mean, as in `mean_loss`: in float16 the sum would overflow N times as early.
        factor, divisor = (None, count) if scale is None else (scale / count, 1)
        (each, values), total = streamed(own, x, y, *keys, weights=_scaled_weights(n, shares, factor))
        value = weighted_mean(each, w)
        grads = jax.tree.map(lambda g: (accumulate(g) / divisor).astype(g.dtype), total)
        if regularizer is not None and slopes_of is not None:
            value = value + regularizer(own).astype(value.dtype)
            grads = jax.tree.map(jnp.add, grads, scaled(slopes_of(own), scale))
        values = values if factor is None else _unscaled(flat, structure, values, factor)
        rows = [by_example(statistic, params) for statistic in flat]
        means = _means(names, rows, structure.flatten_up_to(values), count)
        return (value, Statistics(values, means)), sum_like(grads, params)

    def vg(
        params: Params,
        state: State,
        x: PyTree,
        y: PyTree,
        *,
        key: Key | None = None,
        weights: Array | None = None,
        loss_scale: Array | None = None,
    ) -> tuple[tuple[Array, State, Statistics], Params]:
        x, y = as_arrays(WHERE, "x", x), as_arrays(WHERE, "y", y)
        if not isinstance(net, Layer):
            (value, found), grads = of_batch(params, state, x, y, key, weights, loss_scale)
            return (value, state, found), grads
        if jax.tree.leaves(state):
            raise ValueError(
                f"{WHERE}: the network has running statistics, whose update is not defined example by example. Pass a "
                "loss of one example in which they are constant: "
                "lambda params, x, y: loss(net.predict(params, state, x[None]), y[None])[0]."
            )
        # As in `mean_loss`: on Explicit axes the product of a batch with sharded weights is ambiguous.
        rows, everywhere = rows_spec(jax.tree.leaves(x)[0]), PartitionSpec()
        places = [rows if by_example(statistic, params) else everywhere for statistic in flat]
        found_like: Any = (jax.tree.unflatten(structure, places), everywhere)
        like = ((everywhere, Statistics(*found_like)), jax.tree.map(lambda p: explicit_spec(p) or everywhere, params))
        (value, found), grads = compiler_sharded(of_batch, like, params, state, x, y, key, weights, loss_scale)
        return (value, state, found), grads

    return vg


def _loss_of_net(net: Layer, loss: Loss | None) -> Callable[..., Array]:
    """The loss of one example of a network: (params, state, x, y, key) -> ()."""
    if loss is None:
        raise TypeError(f"{WHERE}: a network needs a loss, such as per_example_vg(net, losses.softmax_cross_entropy).")
    require_function(WHERE, "loss", loss, "losses.softmax_cross_entropy", optional=False)
    if coupled := coupled_layers(net, train=True):
        raise ValueError(
            f"{WHERE}: per-example gradients are undefined here: in {', '.join(coupled)} every example's loss depends "
            "on the whole batch. Use GroupNorm or LayerNorm."
        )

    def of_one(params: Params, state: State, x: Array, y: PyTree, key: Key | None = None) -> Array:
        outputs, _ = net.apply(params, state, x[None], key=key, train=True)
        each = loss(outputs, jax.tree.map(lambda y: y[None], y))
        require_one_each(each, 1)
        return each[0]

    return of_one


def _takes_key(of_one: Callable[..., Any]) -> bool:
    """Whether it has a parameter `key`, or takes any by name."""
    params = inspect.signature(of_one).parameters
    return "key" in params or any(p.kind is p.VAR_KEYWORD for p in params.values())


def _loss_of_user(of_one: Callable[..., Array], loss: Any) -> Callable[..., Array]:
    """The loss of one example, as (params, state, x, y, key) -> ()."""
    require_function(WHERE, "the first argument", of_one, "a network or a loss of one example", optional=False)
    if loss is not None:
        raise TypeError(
            f"{WHERE}: a loss of one example takes no second loss, got {loss!r}. Statistics are the argument "
            "`statistics`: per_example_vg(loss_of_one, statistics=per_example.SqNorms())."
        )

    def with_state(params: Params, state: State, x: PyTree, y: PyTree, *key: Key) -> Array:
        return of_one(params, x, y, **({"key": key[0]} if key else {}))

    return with_state


def _shares(n: int, weights: Array | None) -> tuple[Scalar, Array | None]:
    """(K, s): the number of examples that count, s_i = w_i K / sum w (N,); (n, None) without weights."""
    if weights is None:
        return n, None
    w = accumulate(weights)
    total, count = jnp.sum(w), jnp.maximum(jnp.sum((w != 0).astype(w.dtype)), 1)
    # For weights 0 and 1 exactly these; for padding alone 0.
    return count, w * (count / jnp.where(total == 0, jnp.ones_like(total), total))


def _scaled_weights(n: int, shares: Array | None, scale: Array | None) -> Array | None:
    """The weights of the examples' losses, which multiply their cotangents, times a scale."""
    if scale is None:
        return shares
    return jnp.full(n, scale) if shares is None else shares * scale


def _unscaled(flat: Sequence[Statistic], structure: Any, values: PyTree, scale: Array) -> PyTree:
    """Statistics of gradients from those of gradients times a scale."""

    def unscaled(statistic: Statistic, value: PyTree) -> PyTree:
        if statistic.degree is None:
            raise ValueError(
                f"{WHERE}: a loss scale needs to know how {type(statistic).__name__} changes with the scale of the "
                "gradients. Set its attribute `degree`: 1 for what is linear in them or a norm, 2 for squares."
            )
        factor = scale**statistic.degree
        return jax.tree.map(lambda x: x / factor, value)

    found = [unscaled(statistic, value) for statistic, value in zip(flat, structure.flatten_up_to(values), strict=True)]
    return jax.tree.unflatten(structure, found)


def is_reserved(name: str) -> bool:
    """Whether the report of a step or epoch, or a record of the history, has another value of that name."""
    return name in RESERVED or name.startswith("validation_")


def names_of(statistics: PyTree) -> list[str]:
    """The name of each statistic: its key in a dict, else its class's, numbered where several are alike.

    Example:
        >>> from jaxnn.per_example import Margin
        >>> names_of((SqNorms(), Margin())), names_of({"mine": SqNorms()})
        (['sq_norms', 'margin'], ['mine'])
    """
    names: list[str] = []
    for path, statistic in jax.tree_util.tree_leaves_with_path(statistics, is_leaf=lambda x: isinstance(x, Statistic)):
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        name = " ".join(map(str, keys)) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(statistic).__name__).lower()
        if is_reserved(name):
            raise ValueError(f"{WHERE}: a statistic cannot be named {name!r}, which the report of a step or epoch has.")
        names.append(name)
    return [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names)]


def by_example(statistic: Statistic, params: Params) -> bool:
    """Whether its value is one of each example, (N, ...), not a sum over them."""
    places = jax.tree_util.tree_leaves_with_path(params)
    found = tuple(Parameter(jax.tree_util.keystr(path), jnp.shape(p), jnp.result_type(p)) for path, p in places)
    parts = [statistic.prepare(param, found) for param in found]
    return all(part is None or part.shape is not None for part in parts)


def _means(names: list[str], rows: list[bool], values: list[PyTree], count: Scalar) -> dict[str, Array]:
    """The mean of each array (N,) of a statistic by example, or of a dict of these."""
    found: dict[str, Array] = {}
    for name, of_examples, value in zip(names, rows, values, strict=True):
        if of_examples:
            arrays = (
                {f"{name} {k or '(top)'}": x for k, x in value.items()} if isinstance(value, dict) else {name: value}
            )
            found |= {k: jnp.sum(x) / count for k, x in arrays.items() if jnp.ndim(x) == 1}
    return found
