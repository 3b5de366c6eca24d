"""Bad arguments: the kind of error, and what its message says was got, was expected and helps."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import losses
from tests.losses.cases import CASES


def f(*shape: int) -> np.ndarray:
    return np.full(shape, 0.5, np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


ONE = {c.name: c for c in CASES}
SUFFIXES = ["", "_grad"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", sorted(set(ONE) - {"entropy", "softmax_cross_entropy", "multiclass_hinge"}))
def test_no_silent_broadcast(name: str, suffix: str) -> None:
    options = ONE[name].options
    with pytest.raises(ValueError, match=rf"^{name}{suffix}: .*\(4, 1\).*|^{name}{suffix}: .*shape.*"):
        getattr(losses, name + suffix)(f(4, 1), np.ones(4, np.float32), **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", sorted(ONE))
def test_integer_outputs(name: str, suffix: str) -> None:
    arguments = [np.ones((2, 4), np.int32)] + [f(2, 4)] * (name != "entropy")
    with pytest.raises(TypeError, match=rf"^{name}{suffix}: .*floating dtype, got int32.*astype"):
        getattr(losses, name + suffix)(*arguments, **ONE[name].options)


@pytest.mark.parametrize("name", sorted(ONE))
def test_outputs_without_an_example_axis(name: str) -> None:
    arguments = [np.float32(0.5)] + [np.float32(1)] * (name != "entropy")
    with pytest.raises(ValueError, match=rf"^{name}: outputs must have an example axis.*scalar.*outputs\[None\]"):
        getattr(losses, name)(*arguments, **ONE[name].options)


BAD: list[tuple[str, type[Exception], str, Any]] = [
    ("no outputs", ValueError, "mse: every example needs at least one output, got outputs of shape (3, 0)",
     lambda: losses.mse(f(3, 0), f(3, 0))),
    ("complex targets", TypeError, "mse: targets must be real, got complex64",
     lambda: losses.mse(f(3), f(3).astype(np.complex64))),
    ("delta 0", ValueError, "huber: delta must be a number > 0, got 0.0", lambda: losses.huber(f(2), f(2), delta=0.0)),
    ("delta < 0", ValueError, "huber_grad: delta must be a number > 0, got -1",
     lambda: losses.huber_grad(f(2), f(2), delta=-1)),
    ("delta an array", ValueError, "huber: delta must be one number, got an array of shape (2,)",
     lambda: losses.huber(f(2), f(2), delta=f(2))),
    ("delta None", TypeError, "huber: delta must be a real number, got None",
     lambda: losses.huber(f(2), f(2), delta=None)),
    ("delta nan", ValueError, "huber: delta must be a number > 0, got nan",
     lambda: losses.huber(f(2), f(2), delta=np.nan)),
    ("cosine of scalars", ValueError, "cosine_distance: outputs must be vectors on the last axis, (N, ..., D), got "
     "shape (3,)", lambda: losses.cosine_distance(f(3), f(3))),
    ("signs as BCE targets", ValueError, "targets must lie in [0, 1], got -1. Labels -1 and +1 become 0 and 1 by "
     "(y + 1) / 2", lambda: losses.sigmoid_binary_cross_entropy(f(2), i(1, -1))),
    ("nan target", ValueError, "targets must lie in [0, 1], got nan",
     lambda: losses.sigmoid_binary_cross_entropy(f(1), np.array([np.nan]))),
    ("logits as probabilities", ValueError, "binary_cross_entropy: outputs must lie in [0, 1], got 5. For logits use "
     "the loss that takes them: sigmoid_binary_cross_entropy", lambda: losses.binary_cross_entropy(f(2) + 4.5, f(2))),
    ("logits as distribution", ValueError, "cross_entropy: outputs must lie in [0, 1], got -2",
     lambda: losses.cross_entropy(f(1, 2) - 2.5, f(1, 2))),
    ("no classes", ValueError, "kl_divergence: outputs must have shape (N, ..., K), outcomes on the last axis",
     lambda: losses.kl_divergence(f(2), f(2))),
    ("no classes for entropy", ValueError, "entropy: outputs must have shape (N, ..., K)",
     lambda: losses.entropy(f(2))),
    ("entropy of logits", ValueError, "entropy: outputs must lie in [0, 1], got 3.5",
     lambda: losses.entropy(f(1, 2) + 3)),
    ("kl target", ValueError, "kl_divergence: targets must lie in [0, 1], got 2.5",
     lambda: losses.kl_divergence(f(1, 2), f(1, 2) + 2)),
    ("label K", ValueError, "softmax_cross_entropy: labels must lie in [0, 3), got 3 at index (1,). Labels count from "
     "0: subtract 1", lambda: losses.softmax_cross_entropy(f(2, 3), i(0, 3))),
    ("label -1", ValueError, "labels must lie in [0, 3), got -1 at index (0,). To leave such positions out of a "
     "softmax cross-entropy pass ignore_index=-1", lambda: losses.softmax_cross_entropy(f(2, 3), i(-1, 0))),
    ("label -2 beside ignored -1", ValueError, "got -2 at index (1, 0)",
     lambda: losses.softmax_cross_entropy(f(2, 1, 3), i(-1, -2)[:, None], ignore_index=-1)),
    ("label in gradient", ValueError, "softmax_cross_entropy_grad: labels must lie in [0, 3), got 7",
     lambda: losses.softmax_cross_entropy_grad(f(2, 3), i(7, 0))),
    ("float labels", TypeError, "softmax_cross_entropy: labels must have an integer dtype, got float32. Convert class "
     "indices: labels.astype(jnp.int32)", lambda: losses.softmax_cross_entropy(f(2, 3), f(2))),
    ("bool labels", TypeError, "labels must have an integer dtype, got bool",
     lambda: losses.softmax_cross_entropy(f(2, 3), np.array([True, False]))),
    ("int distributions", TypeError, "must have a floating dtype, got int32. Convert labels with "
     "jax.nn.one_hot", lambda: losses.softmax_cross_entropy(f(2, 2), np.eye(2, dtype=np.int32))),
    ("column of labels", ValueError, "for logits (2, 3) targets must be integer labels (2,) or distributions (2, 3), "
     "got (2, 1). labels.squeeze(-1)", lambda: losses.softmax_cross_entropy(f(2, 3), i(0, 1)[:, None])),
    ("labels of other examples", ValueError, "targets must be integer labels (2,)",
     lambda: losses.softmax_cross_entropy(f(2, 3), i(0, 1, 2))),
    ("logits without classes", ValueError, "logits must have shape (N, ..., K), classes on the last axis, got (2,)",
     lambda: losses.softmax_cross_entropy(f(2), i(0, 1))),
    ("smoothing 1", ValueError, "label_smoothing must lie in [0, 1), got 1",
     lambda: losses.softmax_cross_entropy(f(2, 3), i(0, 1), label_smoothing=1.0)),
    ("smoothing < 0", ValueError, "label_smoothing must lie in [0, 1), got -0.1",
     lambda: losses.softmax_cross_entropy(f(2, 3), i(0, 1), label_smoothing=-0.1)),
    ("ignore_index with distributions", ValueError, "ignore_index=-1 needs integer labels, got distributions (2, 3)",
     lambda: losses.softmax_cross_entropy(f(2, 3), f(2, 3), ignore_index=-1)),
    ("ignore_index 0.5", TypeError, "ignore_index must be an int or None, got 0.5 (float)",
     lambda: losses.softmax_cross_entropy(f(2, 3), i(0, 1), ignore_index=0.5)),
    ("ignore_index True", TypeError, "ignore_index must be an int or None, got True (bool)",
     lambda: losses.softmax_cross_entropy(f(2, 3), i(0, 1), ignore_index=True)),
    ("negative distribution", ValueError, "softmax_cross_entropy: targets must lie in [0, 1], got -0.5",
     lambda: losses.softmax_cross_entropy(f(1, 2), f(1, 2) - 1)),
    *(
        (f"{name} with label 0", ValueError, f"{name}: labels must be -1 or +1, got 0. Map labels 0 and 1 by "
         "2 * y - 1 (in a signed", lambda name=name: getattr(losses, name)(f(2), i(1, 0)))
        for name in ("hinge", "square_loss", "logistic", "perceptron_loss", "hinge_grad", "logistic_grad")
    ),
    ("unsigned labels", ValueError, "labels must be -1 or +1, got 255", lambda: losses.hinge(f(1), np.uint8([255]))),
    ("multi-class label", ValueError, "multiclass_hinge: labels must lie in [0, 3), got 3 at index (1,)",
     lambda: losses.multiclass_hinge(f(2, 3), i(0, 3))),
    ("multi-class label shape", ValueError, "labels must have shape (2,), one for each vector of outputs, got (3,)",
     lambda: losses.multiclass_hinge(f(2, 3), i(0, 1, 2))),
    ("multi-class without classes", ValueError, "multiclass_hinge: outputs must have shape (N, ..., K)",
     lambda: losses.multiclass_hinge(f(2), i(0, 1))),
    ("one class", ValueError, "needs at least 2 classes on the last axis, got shape (2, 1). Use hinge",
     lambda: losses.multiclass_hinge(f(2, 1), i(0, 0))),
    ("odd Gaussian", ValueError, "gaussian_nll: outputs must have shape (N, ..., 2 D): means, log-variances; got "
     "(2, 3)", lambda: losses.gaussian_nll(f(2, 3), f(2, 1))),
    ("Gaussian targets", ValueError, "targets must have shape (2, 2) (outputs (2, 4) hold means and log-variances), "
     "got (2, 4)", lambda: losses.gaussian_nll(f(2, 4), f(2, 4))),
    ("mixture size", ValueError, "with components=3 outputs must have shape (N, ..., 3 * (2 + D)): mixing logits, "
     "means, log standard deviations; got (2, 8)", lambda: losses.mixture_density_nll(f(2, 8), f(2, 1), components=3)),
    ("mixture without means", ValueError, "with components=2 outputs must have shape",
     lambda: losses.mixture_density_nll(f(2, 4), f(2, 1), components=2)),
    ("mixture targets", ValueError, "targets must have shape (2, 2) (outputs (2, 8) hold 2 components of 2 dimensions)",
     lambda: losses.mixture_density_nll(f(2, 8), f(2, 1), components=2)),
    ("no components", ValueError, "components must be at least 1, got 0",
     lambda: losses.mixture_density_nll(f(2, 8), f(2, 1), components=0)),
    ("half a component", TypeError, "components must be an int, got 1.5",
     lambda: losses.mixture_density_nll(f(2, 8), f(2, 1), components=1.5)),
    ("negative strength", ValueError, "l2: strength must be a number >= 0, got -1.0", lambda: losses.l2(-1.0)),
    ("nan strength", ValueError, "l1: strength must be a number >= 0, got nan", lambda: losses.l1(float("nan"))),
    ("second strength", ValueError, "elastic: strength must be a number >= 0, got -2", lambda: losses.elastic(1, -2)),
    ("strengths", ValueError, "l2_grad: strength must be one number, got an array of shape (2,)",
     lambda: losses.l2_grad(f(2))),
    ("no strength", TypeError, "l1: strength must be a real number, got None", lambda: losses.l1(None)),
    ("mask of another tree", ValueError, "l2: the mask must have the structure of the parameters",
     lambda: losses.l2(1.0, mask={"v": True})({"w": f(2)})),
    ("mask of numbers", TypeError, "leaves of the mask must be bools, got 1 (int)",
     lambda: losses.l2(1.0, mask={"w": 1})({"w": f(2)})),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_arguments(kind: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        call()


def test_concrete_labels_are_checked_while_tracing() -> None:
    labels = jnp.array([0, 3])
    with pytest.raises(ValueError, match="got 3 at index"):
        jax.jit(lambda z: losses.softmax_cross_entropy(z, labels))(f(2, 3))
    with pytest.raises(ValueError, match="got 0"):
        jax.grad(lambda z: losses.hinge(z, i(1, 0)).sum())(np.zeros(2, np.float32))


def test_a_traced_strength_passes_unchecked() -> None:
    assert float(jax.jit(lambda s: losses.l2(s)({"w": np.ones(2, np.float32)}))(0.5)) == 1.0


@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_grad", "kl_divergence", "kl_divergence_grad"])
@pytest.mark.parametrize("labels", [i(0, 2), i(0, 2)[:, None]], ids=["(N,)", "(N, 1)"])
def test_integer_labels_are_told_of_one_hot_and_of_the_loss_that_takes_them(name: str, labels: np.ndarray) -> None:
    text = (
        rf"^{name}: targets must be distributions \(2, 3\), got integer labels \(2.*one_hot\(labels, 3\).*softmax_cross"
    )
    with pytest.raises(ValueError, match=text):
        getattr(losses, name)(f(2, 3), labels)
    with pytest.raises(ValueError, match=text):
        jax.jit(getattr(losses, name))(f(2, 3), labels)
    one_hot = jax.nn.one_hot(i(0, 2), 3)
    assert np.isfinite(getattr(losses, name)(f(2, 3), one_hot)).all()
    assert np.isfinite(getattr(losses, name)(f(2, 3), np.eye(3, dtype=np.int32)[i(0, 2)])).all(), "one-hot integers"


def test_optax_calls_of_the_divergence_with_labels() -> None:
    with pytest.raises(ValueError, match="one_hot"):
        losses.kl_divergence(log_predictions=f(2, 3), targets=i(0, 2))
