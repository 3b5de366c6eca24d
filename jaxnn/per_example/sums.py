"""Weighted sums of per-example gradients: one product for each use of a parameter, no second backward pass."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxnn.checks import as_array
from jaxnn.numerics import EXACT, safe_sqrt
from jaxnn.per_example.clip import Clip, automatic, flat, psac
from jaxnn.per_example.forms import Explicit, Form, Pieces, explicit, forms, settled
from jaxnn.per_example.measures import sq_norm
from jaxnn.per_example.placing import PARAMS, ROWS, returns
from jaxnn.per_example.select import layers_of, require_independent, require_tape
from jaxnn.tape import Placed, Tape, Use, Whole, total, wide_total
from jaxnn.types import Array, Params, PyTree, Scalar


def tree_of(tape: Tape, leaves: list[Array]) -> PyTree:
    """One array for each parameter, as a pytree like `params`."""
    return jax.tree.unflatten(tape.structure, leaves)


@returns(PARAMS)
def weighted_grad(tape: Tape, weights: Array) -> Params:
    """sum_i w_i g_i = a' (w . delta), one matrix product for each use of a parameter.

    A pytree like `params` in their dtypes. An example of weight 0 adds nothing, even if its gradient is not finite, and
    the derivative with respect to its weight is 0.

    Args:
        tape: of N examples, from `record`.
        weights: (N,), any real numbers.

    Raises:
        ValueError: weights of another shape.

    Reference: Lee, J. & Kifer, D. (2021). Scaling up differentially private deep learning with fast per-example
        gradient clipping, section 4.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> weighted_grad(sample_tape(), jnp.array([1.0, 0.5]))["b"]
        Array([2.], dtype=float32)
    """
    require_independent("weighted_grad", tape, 1)
    weights = as_array("weighted_grad", "weights", weights)
    if jnp.shape(weights) != (tape.examples,):
        raise ValueError(
            f"weighted_grad: expected one weight for each of {tape.examples} examples, shape ({tape.examples},), "
            f"got shape {jnp.shape(weights)}."
        )
    pairs = zip(tape.uses, tape.leaves, strict=True)
    return tree_of(tape, [total(uses, leaf, weights, EXACT) for uses, leaf in pairs])


@returns(PARAMS)
def mean_grad(tape: Tape) -> Params:
    """1/N sum_i g_i, a pytree like `params`: the mean loss's gradient, exact also where layers couple the examples.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> mean_grad(sample_tape())["b"]
        Array([1.5], dtype=float32)
    """
    return tree_of(
        tape, [m.astype(leaf.dtype) for m, leaf in zip(wide_means("mean_grad", tape), tape.leaves, strict=True)]
    )


def wide_means(where: str, tape: Tape) -> list[Array]:
    """The mean gradient of each parameter in the accumulation dtype."""
    require_tape(where, tape)
    if tape.examples == 0:
        raise ValueError(f"{where}: the mean over an empty batch (N = 0) is undefined; pass at least one example.")
    rows = zip(tape.uses, tape.leaves, forms(tape), strict=True)
    sums = [wide_total(cheapest(uses, settled(form)), leaf, precision=EXACT) for uses, leaf, form in rows]
    return [found / tape.examples for found in sums]


@returns((PARAMS, ROWS))
def clipped_grad(tape: Tape, clip: Scalar | Clip) -> tuple[Params, Array]:
    """(sum_i c(|g_i|) g_i, |g_i|), c(n) = min(1, C / n) or any clip function.

    The norm is over all parameters. An example whose norm is not finite has factor 0 and adds nothing. Norms and sums
    are accumulated in float32 (float64) at the highest precision, so that half precision and TensorFloat-32 do not
    loosen the bound. Where the contributions of an example's positions cancel so far that its computed norm is too
    small (see `sq_norms`), it is clipped too little; `dp_sgd` clips by an upper bound on the norm that holds under
    rounding. The sum is not divided by N.

    Inside `jax.shard_map` norms and sums are of the device's own examples and parameters. If m devices have shards of
    the parameters and the same examples, each shard is clipped to C by its own norm, and an example's whole gradient
    only to C sqrt(m). A tape cannot detect this; `clipped_grad_of` and `private_grad` raise.

    Args:
        tape: of N examples, from `record`.
        clip: C >= 0, may be infinite, may be traced; or a function from norms (N,) to factors (N,): `flat(C)`,
            `automatic(C)`, `psac(C)`.

    Returns:
        (a pytree like `params`, in the parameters' dtypes; the norms before clipping (N,)).

    Raises:
        TypeError: `flat`, `automatic` or `psac` itself, without C.
        ValueError: C negative, if known; factors of another shape.

    Reference: Abadi, M., Chu, A., Goodfellow, I., McMahan, H. B., Mironov, I., Talwar, K. & Zhang, L. (2016). Deep
        learning with differential privacy, algorithm 1.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> sums, norms = clipped_grad(sample_tape(), jnp.sqrt(10.0))
        >>> sums["b"], norms.round(1)
        (Array([2.], dtype=float32), Array([2.4, 6.3], dtype=float32))
    """
    require_independent("clipped_grad", tape, 1)
    found = [settled(form) for form in forms(tape)]
    n = safe_sqrt(_summed(tape, [sq_norm(form) for form in found]))
    factors = factors_of(clip, n)
    pairs = zip(tape.uses, tape.leaves, found, strict=True)
    return tree_of(tape, [total(cheapest(uses, form), leaf, factors, EXACT) for uses, leaf, form in pairs]), n


@returns((PARAMS, ROWS))
def clipped_grad_by_layer(tape: Tape, clip: Scalar | Mapping[str, Scalar | Clip]) -> tuple[Params, dict[str, Array]]:
    """Per-layer clipping: for layer l, sum_i min(1, C_l / |g_il|) g_il.

    One number C means C_l = C / sqrt(L) for each of L layers: the norm of an example's whole gradient is at most C.

    Args:
        tape: of N examples, from `record`.
        clip: C, or a mapping from the path of each layer ("[0]") to its C_l or clip function.

    Returns:
        (a pytree like `params`, in the parameters' dtypes; {path of the layer: norms before clipping (N,)}).

    Raises:
        TypeError: one clip function for all layers.
        ValueError: paths that are not exactly those of the layers; C_l negative, if known.

    Reference: McMahan, H. B., Ramage, D., Talwar, K. & Zhang, L. (2018). Learning differentially private recurrent
        language models, section 2 (per-layer clipping).

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> sums, norms = clipped_grad_by_layer(sample_tape(), {"": jnp.sqrt(10.0)})
        >>> sums["b"]
        Array([2.], dtype=float32)
    """
    require_independent("clipped_grad_by_layer", tape, 1)
    if callable(clip):
        raise TypeError(
            "clipped_grad_by_layer: clip must be one number C or a mapping from layers, got a function. Pass it for "
            "each layer: {layer: function for layer in per_example.sq_norms_by_layer(tape)}."
        )
    places = layers_of(tape.paths)
    layers = dict.fromkeys(places)
    if not isinstance(clip, Mapping):
        clip = dict.fromkeys(layers, jnp.asarray(clip) / len(layers) ** 0.5) if layers else {}
    if set(clip) != set(layers):
        raise ValueError(f"clipped_grad_by_layer: expected a bound for each of {list(layers)}, got {list(clip)}.")
    found = [settled(form) for form in forms(tape)]
    n = {
        layer: safe_sqrt(_summed(tape, [sq_norm(f) for f, place in zip(found, places, strict=True) if place == layer]))
        for layer in layers
    }
    factors = {layer: factors_of(clip[layer], n[layer]) for layer in layers}
    rows = zip(tape.uses, tape.leaves, found, places, strict=True)
    sums = [total(cheapest(uses, form), leaf, factors[place], EXACT) for uses, leaf, form, place in rows]
    return tree_of(tape, sums), n


@returns(ROWS)
def materialize(tape: Tape) -> PyTree:
    """g_i, a pytree like `params` of arrays (N, *shape), float32 or float64: for small networks and tests.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> materialize(sample_tape())["w"][:, :, 0]
        Array([[1., 2.],
               [6., 0.]], dtype=float32)
    """
    require_independent("materialize", tape, 1)
    pairs = zip(forms(tape), tape.leaves, strict=True)
    return tree_of(tape, [explicit(form).reshape(tape.examples, *leaf.shape) for form, leaf in pairs])


def _summed(tape: Tape, values: list[Array]) -> Array:
    return sum(values[1:], values[0]) if values else jnp.zeros(tape.examples)


def factors_of(clip: Scalar | Clip, norms: Array) -> Array:
    """The clip factors; 0 for a norm that is not finite, which `tape.weighted` and `counted` turn into exact zeros."""
    if clip in (flat, automatic, psac):
        name = getattr(clip, "__name__", "")
        raise TypeError(f"clipped_grad: clip must be {name}(C), a function made with its bound, got {name} itself.")
    if not callable(clip) and jnp.ndim(clip) > 0:
        raise ValueError(
            f"clipped_grad: clip must be one number C or a function from norms to factors, got an array of shape "
            f"{jnp.shape(clip)}. A factor for each example is a weight: weighted_grad(tape, weights)."
        )
    factors = (clip if callable(clip) else flat(clip))(norms)
    if jnp.shape(factors) != norms.shape:
        raise ValueError(
            f"clipped_grad: the clip function must map norms {norms.shape} to factors {norms.shape}, "
            f"got shape {jnp.shape(factors)}."
        )
    return jnp.where(jnp.isfinite(norms), factors, jnp.zeros_like(factors))


def cheapest(uses: tuple[Use, ...], form: Form) -> tuple[Use, ...]:
    """The uses, or the gradients where `settled` has materialized them for the norms: summing them is cheaper."""
    if isinstance(form, Explicit):
        return (Whole(form.grads),)
    if isinstance(form, Pieces):
        whole = [Whole(part.grads) for part in form.parts if isinstance(part, Explicit)]
        if len(whole) == len(form.parts):
            return tuple(Placed(use, view) for use, view in zip(whole, form.views, strict=True))
    return uses
