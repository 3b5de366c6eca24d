"""Dice losses of segmentations: one minus the overlap of predicted and true regions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn.losses.base import float_info, poison, require_within_unit
from jaxnn.losses.optax_form import Axis, axes_of, fitted, floating
from jaxnn.types import Array, ArrayLike, Scalar


def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: Scalar = 1.0,
    alpha: Scalar = 0.5,
    beta: Scalar = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: Axis = None,
) -> Array:
    """Soft Dice (Tversky) loss of each class: 1 - (I + smooth) / (I + alpha (P - I) + beta (T - I) + smooth).

    I = sum p t, P = sum p and T = sum t over the positions, p the predicted probability of the class and t its target:
    P - I are false positives, T - I false negatives. A class whose denominator is 0 (nothing predicted, nothing
    present, smooth = 0) has loss 0.

    Args:
        predictions: logits (N, ..., K), floating; for one class one of the arguments may lack the last axis.
        targets: t in [0, 1] (not checked), one-hot for several classes, same shape.
        class_weights: (K,), factors of the classes' losses; None for 1.
        smooth, alpha, beta: as in the equation, >= 0; alpha = beta = 1/2 is Dice's coefficient. May be traced.
        apply_softmax: convert logits to probabilities, by softmax, or sigmoid for one class; False for predictions
            that are probabilities.
        reduction: over the classes, "mean", "sum" or "none".
        ignore_background: leave out class 0, if there are others.
        axis: the positions; None for all axes but the first and the last.

    Returns:
        (N,), or (N, K) for the reduction "none" (K - 1 without the background); float32 (float64 for float64
        predictions). With apply_softmax=False, NaN for traced predictions that are not probabilities.

    Raises:
        ValueError: shapes do not match, an unknown reduction, or concrete predictions with apply_softmax=False that are
            not probabilities (for several classes: that do not sum to 1).
        TypeError: predictions are not floating.

    Example:
        >>> dice_loss(jnp.zeros((1, 4, 1)), jnp.ones((1, 4, 1)))
        Array([0.25], dtype=float32)

    Reference: Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep
    networks", equation 3. The Dice loss of Milletari et al. 2016, "V-Net", squares p and t in P and T.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'dice_loss: reduction must be "mean", "sum" or "none", got {reduction!r}.')
    x, t = _pair("dice_loss", predictions, targets)
    p = _probabilities(x, predictions, apply_softmax)
    axes = tuple(range(1, x.ndim - 1)) if axis is None else axes_of("dice_loss", axis, x.ndim)
    s, a, b = (jnp.asarray(v, x.dtype) for v in (smooth, alpha, beta))
    overlap, predicted, true = (jnp.sum(v, axis=axes) for v in (p * t, p, t))
    below = overlap + a * (predicted - overlap) + b * (true - overlap) + s
    void = below == 0
    loss = jnp.where(void, jnp.zeros_like(below), 1 - (overlap + s) / jnp.where(void, jnp.ones_like(below), below))
    if class_weights is not None:
        weights = checks.as_array("dice_loss", "class_weights", class_weights).astype(x.dtype)
        if weights.shape != loss.shape[-1:]:
            raise ValueError(f"dice_loss: class_weights must have shape {loss.shape[-1:]}, got {weights.shape}.")
        loss = loss * jnp.broadcast_to(weights, loss.shape)
    if ignore_background and x.shape[-1] > 1:
        loss = loss[..., 1:]
    if reduction == "none":
        return loss
    return jnp.mean(loss, axis=-1) if reduction == "mean" else jnp.sum(loss, axis=-1)


def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: Scalar = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> Array:
    """Dice loss with classes weighted by 1 / (n_k^2 + 1e-7), n_k the sum of the targets; the mean over N and K.

    The weights are counted over the whole batch, scaled to sum to K, and multiply the losses of the classes (in the
    reference, numerator and denominator of one quotient). A class absent from the targets has nearly all the weight:
    exclude it, or use `dice_loss` with `class_weights`.

    Args:
        predictions: logits (N, ..., K), floating.
        targets: one-hot (N, ..., K).
        smooth, apply_softmax, ignore_background: as for `dice_loss`, which also lists the errors.

    Returns:
        Scalar, float32 (float64 for float64 predictions).

    Example:
        >>> multiclass_generalized_dice_loss(jnp.zeros((1, 4, 2)), jnp.eye(2)[jnp.array([[0, 0, 1, 1]])])
        Array(0.333..., dtype=float32)

    Reference: Sudre et al. 2017, "Generalised Dice overlap as a deep learning loss function for highly unbalanced
    segmentations".
    """
    x = floating("multiclass_generalized_dice_loss", "predictions", predictions)
    t = checks.as_array("multiclass_generalized_dice_loss", "targets", targets).astype(x.dtype)
    checks.require_same_shape("multiclass_generalized_dice_loss", predictions=x, targets=t)
    weights = 1 / (jnp.square(jnp.sum(t, axis=tuple(range(t.ndim - 1)))) + 1e-7)
    weights = weights / jnp.sum(weights) * x.shape[-1]
    each = dice_loss(
        predictions,
        t,
        class_weights=weights,
        smooth=smooth,
        apply_softmax=apply_softmax,
        reduction="none",
        ignore_background=ignore_background,
    )
    return jnp.mean(each)


def binary_dice_loss(
    predictions: ArrayLike, targets: ArrayLike, *, smooth: Scalar = 1.0, apply_sigmoid: bool = True
) -> Array:
    """`dice_loss` of one class, with or without a last axis of size 1.

    Args:
        predictions: logits (N, ...) or (N, ..., 1), floating; probabilities in [0, 1] with apply_sigmoid=False.
        targets: in [0, 1], same shape.
        smooth: as for `dice_loss`, which also lists the errors.
        apply_sigmoid: convert logits to probabilities.

    Returns:
        (N,), float32 (float64 for float64 predictions).

    Example:
        >>> binary_dice_loss(jnp.full((1, 4), 0.5), jnp.ones((1, 4)), apply_sigmoid=False)
        Array([0.25], dtype=float32)

    Reference: as for `dice_loss`.
    """
    p, d = checks.as_array("dice_loss", "predictions", predictions), checks.as_array("dice_loss", "targets", targets)
    if p.ndim == d.ndim and p.shape[-1:] != (1,):
        p, d = p[..., None], d[..., None]
    return dice_loss(p, d, smooth=smooth, apply_softmax=apply_sigmoid)


def _pair(where: str, predictions: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    x, t = floating(where, "predictions", predictions), checks.as_array(where, "targets", targets)
    if x.ndim == t.ndim - 1:
        x = x[..., None]
    if t.ndim == x.ndim - 1:
        t = t[..., None]
    if x.shape != t.shape or x.ndim == 0:
        raise ValueError(f"{where}: predictions and targets must have the same shape, got {x.shape} and {t.shape}.")
    return x, fitted(where, x, "targets", t)


def _probabilities(x: Array, raw: ArrayLike, apply_softmax: bool) -> Array:
    if apply_softmax:
        return jax.nn.sigmoid(x) if x.shape[-1] == 1 else jax.nn.softmax(x, axis=-1)
    p = require_within_unit("dice_loss", "predictions", raw, x, "For logits leave apply_softmax at True.")
    if x.shape[-1] == 1:
        return p
    total = jnp.sum(p, axis=-1, keepdims=True)
    # The rounding of a float32 sum over many classes is below 1e-5, that of half-precision probabilities below 4 eps.
    dtype = checks.as_array("dice_loss", "predictions", raw).dtype
    right = jnp.abs(total - 1) <= max(1e-5, 4 * float(float_info(dtype).eps))
    if not isinstance(right, jax.core.Tracer) and not bool(jnp.all(right)):
        raise ValueError(
            "dice_loss: with apply_softmax=False predictions must sum to 1 over the classes, got sums from "
            f"{jnp.min(total):.6f} to {jnp.max(total):.6f}. Logits: apply_softmax=True."
        )
    return poison(p, jnp.broadcast_to(right, p.shape))
