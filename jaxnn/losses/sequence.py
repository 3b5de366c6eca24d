"""Connectionist temporal classification: the likelihood of a label sequence summed over all its alignments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxnn import checks
from jaxnn.losses.base import as_labels, concrete_array, poison
from jaxnn.losses.optax_form import floating
from jaxnn.placement import beside
from jaxnn.types import Array, ArrayLike, Scalar


def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: Scalar = -1e5,
) -> Array:
    """CTC loss: -log of the probability, summed over all alignments, that the frames spell the labels.

    An alignment assigns one class to each frame; it spells what remains after repeats are merged and blanks removed.
    Its probability is the product of the frames' softmax probabilities.

    Args:
        logits: (B, T, K), floating; K classes, including the blank.
        logit_paddings: (B, T), 1 for padded frames, else 0.
        labels: (B, N), integers in [0, K), not the blank; padded ones may be any integers.
        label_paddings: (B, N), 1 for padded labels, else 0; in each row zeros come first.
        blank_id: class of the blank.
        log_epsilon: replaces log 0, as -inf would give NaN derivatives; labels without an alignment have loss about
            -log_epsilon.

    Returns:
        (B,), in nats, float32 (float64 for float64 logits). NaN for a sequence with traced labels out of range, equal
        to the blank, or padded before the last label.

    Raises:
        ValueError: shapes do not match, no frame, blank_id not in [0, K), or concrete labels or paddings that
            would give NaN if traced.
        TypeError: logits are not floating, labels are not integers.

    Example:
        >>> ctc_loss(jnp.zeros((1, 2, 2)), jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1)))
        Array([0.2876...], dtype=float32)

    Reference: Graves et al. 2006, "Connectionist temporal classification: labelling unsegmented sequence data with
    recurrent neural networks", equations 6 to 8.
    """
    return ctc_loss_with_forward_probs(
        logits, logit_paddings, labels, label_paddings, blank_id=blank_id, log_epsilon=log_epsilon
    )[0]


def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: Scalar = -1e5,
) -> tuple[Array, Array, Array]:
    """`ctc_loss`, and the forward variables that it is computed from.

    With e_n(t) the probability that frames 0 ... t spell the first n + 1 labels and end in the last of them, b_n(t)
    that they spell the first n and end in a blank (b_0(-1) = 1), y the softmax and l the labels:
    e_n(t) = y_{l_n}(t) (e_n(t-1) + b_n(t-1) + [l_n != l_{n-1}] e_{n-1}(t-1)) and
    b_n(t) = y_blank(t) (b_n(t-1) + e_{n-1}(t-1)). Padded frames change nothing.

    Args:
        logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon: as for `ctc_loss`, which also lists the
            errors.

    Returns:
        The loss (B,); log b (T, B, N + 1) and log e (T, B, N), in optax's convention: at the last frame, log b holds
        log(b_n + e_{n-1}) instead.

    Example:
        >>> frames, no, labels = jnp.zeros((1, 2, 2)), jnp.zeros((1, 2)), jnp.array([[1]])
        >>> [x.shape for x in ctc_loss_with_forward_probs(frames, no, labels, jnp.zeros((1, 1)))]
        [(1,), (2, 1, 2), (2, 1, 1)]

    Reference: Graves et al. 2006, "Connectionist temporal classification: labelling unsegmented sequence data with
    recurrent neural networks", section 4.1.
    """
    z = floating("ctc_loss", "logits", logits)
    frame_pad = beside(checks.as_array("ctc_loss", "logit_paddings", logit_paddings), z)
    label_pad = beside(checks.as_array("ctc_loss", "label_paddings", label_paddings), z)
    raw = beside(checks.as_array("ctc_loss", "labels", labels), z)
    _require_shapes(z, frame_pad, raw.shape, label_pad, blank_id)
    index, valid, lengths = _labels(raw, label_pad, z.shape[-1], blank_id)
    least = jnp.asarray(log_epsilon, z.dtype)
    # A floor for log 0: -inf would meet -inf in logaddexp, and the derivative would be NaN.
    log_y = jnp.maximum(jax.nn.log_softmax(z, axis=-1), least)
    blank = jnp.transpose(log_y[:, :, blank_id : blank_id + 1], (1, 0, 2))
    where = jnp.broadcast_to(index[:, None, :], (*z.shape[:2], index.shape[1]))
    emit = jnp.transpose(jnp.take_along_axis(log_y, where, axis=2, mode="clip"), (1, 0, 2))
    repeated = jnp.pad(index[:, :-1] == index[:, 1:], ((0, 0), (0, int(index.shape[1] > 0))))
    no_repeat = jnp.where(repeated, least, jnp.zeros_like(least))  # log of 1, or of 0 where the next label repeats
    repeat = jnp.where(repeated, jnp.zeros_like(least), least)

    def arrive(to: Array, step: Array) -> Array:
        return jnp.concatenate([to[:, :1], jnp.logaddexp(to[:, 1:], step)], axis=1)

    def frame(carry: tuple[Array, Array], x: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        b, e = carry
        log_emit, log_blank, padded = x
        start = arrive(b, e + no_repeat)
        new_e = log_emit + jnp.logaddexp(start[:, :-1], e)
        new_b = arrive(start + log_blank, e + log_blank + repeat)
        new = jnp.where(padded, b, new_b), jnp.where(padded, e, new_e)
        return new, new

    shape = index.shape[0], index.shape[1]
    b0 = jnp.full((shape[0], shape[1] + 1), least).at[:, 0].set(0)
    # Derived from the logits, so that the carry varies over the same mesh axes (`shard_map`).
    anchor = jnp.zeros_like(z[:, 0, :1])
    pads = jnp.transpose(frame_pad.astype(bool), (1, 0))[:, :, None]
    (b, e), (log_b, log_e) = jax.lax.scan(frame, (b0 + anchor, jnp.full(shape, least) + anchor), (emit, blank, pads))
    last = arrive(b, e)
    log_b = jnp.concatenate([log_b[:-1], last[None]], axis=0)
    end = jax.lax.broadcasted_iota(jnp.int32, last.shape, 1) == lengths[:, None]
    return poison(-jnp.sum(jnp.where(end, last, jnp.zeros_like(last)), axis=1), valid), log_b, log_e


def _require_shapes(z: Array, frame_pad: Array, labels: tuple[int, ...], label_pad: Array, blank_id: int) -> None:
    if z.ndim != 3 or z.shape[1] == 0:
        raise ValueError(f"ctc_loss: logits must have shape (B, T, K) with at least one frame, got {z.shape}.")
    if frame_pad.shape != z.shape[:2]:
        raise ValueError(f"ctc_loss: logit_paddings must have shape (B, T) = {z.shape[:2]}, got {frame_pad.shape}.")
    if len(labels) != 2 or labels[0] != z.shape[0] or label_pad.shape != labels:
        raise ValueError(
            f"ctc_loss: labels and label_paddings must have shape (B, N) with B = {z.shape[0]}, got {labels} and "
            f"{label_pad.shape}."
        )
    if not 0 <= blank_id < z.shape[2]:
        raise ValueError(f"ctc_loss: blank_id must lie in [0, {z.shape[2]}), got {blank_id}.")


def _labels(labels: Array, paddings: Array, classes: int, blank_id: int) -> tuple[Array, Array, Array]:
    """Labels (B, N) with padding clipped to a class, which sequences are valid (B,), and their lengths (B,)."""
    given, padded = concrete_array(labels), concrete_array(paddings)
    if padded is not None:
        on = padded.astype(bool)
        if (on[:, :-1] & ~on[:, 1:]).any():
            raise ValueError("ctc_loss: label_paddings must be zeros first and then ones in each row.")
        if given is not None and ((given == blank_id) & ~on).any():
            raise ValueError(f"ctc_loss: labels contain the blank, {blank_id}. Pad them, or choose another blank_id.")
    pad = paddings.astype(bool)
    unpadded = jnp.where(pad, jnp.asarray(blank_id, labels.dtype), labels)
    index, known = as_labels("ctc_loss", unpadded, labels.shape, classes)
    after = jnp.pad(pad[:, 1:], ((0, 0), (0, int(pad.shape[1] > 0))), constant_values=True)
    valid = jnp.all((pad | known & (index != blank_id)) & ~(pad & ~after), axis=1)
    # Padded labels do not change the loss, only the forward variables there: keep them, as optax does.
    index = jnp.where(pad, jnp.clip(labels.astype(index.dtype), 0, classes - 1), index)
    return index, valid, jnp.sum(~pad, axis=1, dtype=jnp.int32)
