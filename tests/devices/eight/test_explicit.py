"""What takes a batch takes one that is divided over a mesh with Explicit axes.

Every public function of losses, metrics and projections and every layer is traced, which is where a type that cannot
be placed raises. Those that mix examples or look entries up are computed too, and held against one device.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import layers, losses, metrics, perturbations, projections
from jaxnn.layers import Sequences, parametric
from tests.helpers import slow


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


N, T, K = 8, 3, 4
RNG = np.random.default_rng(0)
Z, Z3 = (RNG.normal(size=s).astype(np.float32) for s in ((N, K), (N, T, K)))
D, D3 = softmax(Z[::-1]), softmax(Z3[::-1])
LABELS, LABELS3 = (RNG.integers(0, K, s).astype(np.int32) for s in ((N,), (N, T)))
SIGNS = np.sign(Z[::-1])
BITS = (SIGNS + 1) / 2
MASK = Z > -0.5
MESH = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))


def cases() -> dict[str, tuple[Any, ...]]:
    """(function, batch, other arguments) by public name, then a word if it has several."""
    found: dict[str, tuple[Any, ...]] = {}

    def losses_on(names: str, *args: Any, word: str = "", **settings: Any) -> None:
        for name in names.split():
            for each in (name, f"{name}_grad") if hasattr(losses, f"{name}_grad") else (name,):
                f = getattr(losses, each)
                found[f"losses.{each} {word}".strip()] = (functools.partial(f, **settings) if settings else f, *args)

    losses_on("half_squared_error mse absolute_error huber log_cosh squared_error l2_loss huber_loss", Z, SIGNS)
    losses_on("sum_squared_error euclidean_error", Z, SIGNS)
    losses_on("hinge square_loss logistic perceptron_loss hinge_loss", Z, SIGNS)
    losses_on("sigmoid_binary_cross_entropy sigmoid_focal_loss sparsemax_loss binary_dice_loss", Z, BITS)
    losses_on("binary_cross_entropy cross_entropy", D3, D3[::-1])
    losses_on("entropy", D3)
    losses_on("smooth_labels", D3, alpha=0.1)
    losses_on("kl_divergence generalized_kl_divergence convex_kl_divergence", np.log(D3), D3[::-1])
    losses_on("kl_divergence_with_log_targets", np.log(D3), np.log(D3[::-1]))
    losses_on("cosine_distance cosine_similarity", Z3, D3)
    losses_on("triplet_margin_loss", Z, SIGNS, BITS)
    losses_on("gaussian_nll", Z3, D3[..., :2])
    losses_on("mixture_density_nll", np.tile(Z3, 3), D3[..., :2], components=3)
    losses_on("softmax_cross_entropy safe_softmax_cross_entropy poly_loss_cross_entropy", Z3, D3, word="distributions")
    integers = "softmax_cross_entropy softmax_cross_entropy_with_integer_labels multiclass_hinge multiclass_hinge_loss"
    losses_on(f"{integers} multiclass_perceptron_loss multiclass_sparsemax_loss", Z, LABELS)
    losses_on(f"{integers} multiclass_perceptron_loss multiclass_sparsemax_loss", Z3, LABELS3, word="positions")
    losses_on("softmax_cross_entropy", Z3, LABELS3, word="ignoring", ignore_index=1, label_smoothing=0.1)
    losses_on("softmax_cross_entropy_with_integer_labels", Z3, LABELS, word="axes", axis=(1, 2))
    matrix = np.cos(np.arange(7 * K, dtype=np.float32)).reshape(K, 7)
    chunked = functools.partial(losses.chunked_softmax_cross_entropy, b=matrix[0], chunk=3, ignore_index=1)
    found["losses.chunked_softmax_cross_entropy"] = (lambda a, labels: chunked(a, matrix, labels), Z3, LABELS3)
    losses_on("dice_loss multiclass_generalized_dice_loss", Z3, D3)
    losses_on("ntxent", Z, LABELS)
    losses_on("ranking_softmax_loss", Z, BITS)
    found["losses.ranking_softmax_loss where"] = (
        lambda z, y, w: losses.ranking_softmax_loss(z, y, where=w),
        Z,
        BITS,
        MASK,
    )
    frames, padded = np.tile(Z3, (1, 2, 1)), np.tile(np.float32([0] * (T - 1) + [1]), (N, 1))
    none = np.zeros((N, 2 * T), np.float32)
    losses_on("ctc_loss ctc_loss_with_forward_probs", frames, none, 1 + LABELS3 % (K - 1), padded)
    found["losses.make_fenchel_young_loss"] = (losses.make_fenchel_young_loss(logsumexp), Z, D)
    ignoring = functools.partial(losses.softmax_cross_entropy, ignore_index=1)
    found["losses.example_weights"] = (functools.partial(losses.example_weights, ignoring), LABELS3)
    for loss, targets in ((losses.softmax_cross_entropy, LABELS3), (losses.mse, D3), (losses.log_cosh, D3)):
        found[f"losses.hessian_root_of {loss.__name__}"] = (losses.hessian_root_of(loss), Z3, targets)
        sample = functools.partial(losses.sampled_error_of(loss), jax.random.key(0))
        found[f"losses.sampled_error_of {loss.__name__}"] = (sample, Z3, targets)
    for name in ("l1", "l2", "l1_grad", "l2_grad"):
        found[f"losses.{name}"] = (getattr(losses, name)(0.1), Z)
    for name in ("elastic", "elastic_grad"):
        found[f"losses.{name}"] = (getattr(losses, name)(0.1, 0.2), Z)

    for name in ("accuracy", "error_rate"):
        found[f"metrics.{name}"] = (getattr(metrics, name), Z3, LABELS3)
    found["metrics.top_k_accuracy"] = (functools.partial(metrics.top_k_accuracy, k=2), Z3, LABELS3)
    found["metrics.binary_accuracy"] = (metrics.binary_accuracy, Z, BITS)
    found["metrics.confusion_matrix"] = (functools.partial(metrics.confusion_matrix, classes=K), Z3, LABELS3)
    found["metrics.predicted_class"] = (metrics.predicted_class, Z3)
    for name in ("rmse", "r_squared"):
        found[f"metrics.{name}"] = (getattr(metrics, name), Z3, D3)

    settings = {"lower": -0.1, "upper": 0.2, "b": 1.0, "scale": 0.5}
    for name in projections.__all__:
        f = getattr(projections, name)
        names = list(inspect.signature(f).parameters)[1:]
        f = functools.partial(f, **{key: settings[key] for key in names if key != "a"})
        found[f"projections.{name}"] = (f, Z, D) if "a" in names else (f, Z)
    found["projections.projection_simplex tree"] = (lambda x, v: projections.projection_simplex((x, v)), Z, Z[:, 0])
    found["projections.nearest_in_simplex divided"] = (projections.nearest_in_simplex, Z[:, 0])

    perturbed = perturbations.make_perturbed_fun(lambda x: jax.nn.one_hot(jnp.argmax(x, -1), K), 10, 0.5)
    found["perturbations.make_perturbed_fun"] = (functools.partial(perturbed, jax.random.key(0)), Z)

    images = np.tile(Z3[:, :, None], (1, 2, 6, 1))
    made = {
        "Dense": layers.Dense(5),
        "Embedding": layers.Embedding(K, 5),
        "Conv": layers.Conv(5, 3),
        "DepthwiseConv": layers.DepthwiseConv(3),
        "MaxPool": layers.MaxPool(2),
        "AveragePool": layers.AveragePool(2),
        "GroupNorm": layers.GroupNorm(2),
        "BatchNorm": layers.BatchNorm(),
        "LayerNorm": layers.LayerNorm(),
        "RNN": layers.RNN(5),
        "LSTM": layers.LSTM(5),
        "GRU": layers.GRU(5),
        "LinearRecurrence": layers.LinearRecurrence(5),
        "Reversed": layers.Reversed(layers.GRU(5, reset_after=False)),
        "RMSNorm": layers.RMSNorm(),
        "Dropout": layers.Dropout(0.5),
        "Activation": layers.Activation(jnp.sin),
        "PRelu": layers.PRelu(),
        "Swish": layers.Swish(),
        "Parametric": layers.Parametric(parametric.PRELU, start=0.2, shared=True),
        "GatedDense": layers.GatedDense(5),
        "ConvTranspose": layers.ConvTranspose(2, 3, stride=2),
        "Upsample": layers.Upsample(2),
        "Reshape": layers.Reshape(-1, 2),
    }
    ready = {name: getattr(layers, name) for name in layers.__all__}
    for name, layer in (made | {n: x for n, x in ready.items() if isinstance(x, layers.Layer)}).items():
        inputs = {"Embedding": LABELS3} | dict.fromkeys(("RNN", "LSTM", "GRU", "LinearRecurrence", "Reversed"), Z3)
        found[f"layers.{name}"] = (trained(layer), inputs.get(name, images))
    of_positions = {
        "Attention": layers.Attention(2, causal=True, rotary=100.0),
        "LearnedPositions": layers.LearnedPositions(5),
        "SinusoidalPositions": layers.SinusoidalPositions(),
        "LastPosition": layers.LastPosition,
        "MeanPosition": layers.MeanPosition,
    }
    for name, layer in of_positions.items():
        found[f"layers.{name}"] = (trained(layer), Z3)
    cross, seen = trained(layers.CrossAttention(2)), Z3.sum(-1) > 0
    found["layers.CrossAttention"] = (lambda x: cross(Sequences(x, seen, Sequences(x, seen))).values, Z3)
    found["layers.Sequences"] = (lambda x: trained(layers.MeanPosition)(Sequences(x, seen)), Z3)
    found["layers.Padding"] = (trained(layers.Padding(1)), LABELS3)
    return found


def trained(layer: layers.Layer) -> Callable[[Any], Any]:
    def outputs(x: Any) -> Any:
        example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
        params, state = layer.init(jax.random.key(1), example)
        return layer.apply(params, state, x, key=jax.random.key(2), train=True)[0]

    return outputs


CASES = cases()
KINDS = [
    "losses.ntxent",
    "losses.softmax_cross_entropy",
    "losses.softmax_cross_entropy_with_integer_labels axes",
    "losses.multiclass_hinge_loss positions",
    "losses.ctc_loss",
    "losses.ranking_softmax_loss where",
    "losses.sampled_error_of log_cosh",
    "metrics.confusion_matrix",
    "metrics.r_squared",
    "projections.projection_simplex tree",
    "projections.projection_l1_ball",
    "projections.nearest_in_simplex divided",
    "layers.Embedding",
    "layers.Conv",
    "layers.Attention",
    "layers.CrossAttention",
]
"""One of each kind of mixing and looking up: sums over the batch, gathers by labels, sorting, scans, keys, windows."""


def quick_and_slow(names: list[str], quick: list[str] = KINDS) -> list[Any]:
    return [*(n for n in names if n in quick), *slow(*(n for n in names if n not in quick))]


def with_slope(f: Callable[..., Any]) -> Callable[..., Any]:
    """The results of f, and the derivative of a weighted sum of them in the batch, if it has one."""

    def total(x: Any, *rest: Any) -> tuple[Any, Any]:
        out = f(x, *rest)
        real = [y for y in jax.tree.leaves(out) if jnp.issubdtype(y.dtype, jnp.floating)]
        weights = [jnp.cos(jax.lax.broadcasted_iota(y.dtype, y.shape, y.ndim - 1)) if y.ndim else 1 for y in real]
        return sum((jnp.sum(w * y) for w, y in zip(weights, real, strict=True)), jnp.float32(0)), out

    def both(x: Any, *rest: Any) -> Any:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return f(x, *rest)
        slope, out = jax.grad(total, has_aux=True)(x, *rest)
        return out, slope

    return both


def divided(args: Any) -> list[Any]:
    return [jax.device_put(x, NamedSharding(MESH, P("x"))) for x in args]


def test_every_public_function_has_a_case() -> None:
    """But what is no function of a batch."""
    public = {f"losses.{n}" for n in losses.__all__} | {f"projections.{n}" for n in projections.__all__}
    public |= {
        f"metrics.{n}" for n, f in vars(metrics).items() if inspect.isfunction(f) and f.__module__ == metrics.__name__
    }
    public |= {f"layers.{n}" for n in layers.__all__ if n[0].isupper()}
    others = {"losses.Regularizer", "losses.derivative_of", "losses.is_likelihood", "losses.regularizer_derivative_of"}
    others |= {"layers.Kind", "layers.Layer"}
    assert {n for n in public if not n.split(".")[1].startswith("_")} - {n.split()[0] for n in CASES} == others


@pytest.mark.parametrize("name", quick_and_slow(list(CASES)))
def test_rows_of_a_divided_batch_stay_where_they_are(name: str) -> None:
    f, *args = CASES[name]
    with jax.set_mesh(MESH):
        kinds = jax.tree.leaves(jax.eval_shape(with_slope(f), *divided(args)))
    for kind in kinds:
        axes = [axis for axis, n in enumerate(kind.shape) if n == N]
        assert [kind.sharding.spec[axis] for axis in axes] == ["x"] * len(axes)


@pytest.mark.parametrize("name", quick_and_slow([n for n in CASES if n.startswith("losses.") and len(CASES[n]) > 2]))
def test_targets_need_not_be_divided_as_the_outputs_are(name: str) -> None:
    f, outputs, *targets = CASES[name]
    if "triplet" not in name:  # of three batches none is the target
        alone = jax.tree.leaves(jax.eval_shape(with_slope(f), outputs, *targets))
        with jax.set_mesh(MESH):
            kinds = jax.tree.leaves(jax.eval_shape(with_slope(f), *divided([outputs]), *targets))
        assert [(kind.shape, kind.dtype) for kind in kinds] == [(kind.shape, kind.dtype) for kind in alone]


FEW = ("losses.ntxent", "losses.softmax_cross_entropy", "losses.ctc_loss", "projections.projection_simplex tree")


@pytest.mark.parametrize("names", [FEW, *slow((tuple(n for n in KINDS if n not in FEW),))], ids=["few", "others"])
def test_values_and_derivatives_are_those_of_one_device(names: tuple[str, ...]) -> None:
    def every(args: dict[str, Any]) -> dict[str, Any]:
        return {name: with_slope(CASES[name][0])(*args[name]) for name in names}

    whole = {name: CASES[name][1:] for name in names}
    want = jax.jit(every)(whole)
    with jax.set_mesh(MESH):
        got = jax.jit(every)({name: divided(args) for name, args in whole.items()})
    for name in names:
        for a, b in zip(jax.tree.leaves(got[name]), jax.tree.leaves(want[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["losses.ntxent", "projections.projection_simplex", "metrics.confusion_matrix"])
@pytest.mark.parametrize("jit", [True, *slow(False)])
def test_no_mesh_need_be_set(name: str, jit: bool) -> None:
    f, *args = CASES[name]
    run = jax.jit(f) if jit else f
    np.testing.assert_allclose(run(*divided(args)), jax.jit(f)(*args), rtol=1e-5, atol=1e-6)


def test_labels_of_one_device_are_sent_to_outputs_without_a_mesh_set() -> None:
    loss = losses.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(loss(*divided([Z]), jnp.asarray(LABELS)), jax.jit(loss)(Z, LABELS), rtol=1e-5)


OWN = [n for n in CASES if n.startswith(("losses.soft", "losses.multiclass_h", "losses.ctc"))]


@pytest.mark.parametrize("name", quick_and_slow(OWN, ["losses.softmax_cross_entropy", "losses.ctc_loss"]))
def test_shards_of_a_batch_have_their_own_losses(name: str) -> None:
    f, *args = CASES[name]
    jax.eval_shape(jax.shard_map(with_slope(f), mesh=MESH, in_specs=P("x"), out_specs=P("x")), *divided(args))
    if "forward_probs" not in name:  # their first axis is not that of the examples
        got = jax.jit(jax.shard_map(f, mesh=MESH, in_specs=P("x"), out_specs=P("x")))(*divided(args))
        np.testing.assert_allclose(got, jax.jit(f)(*args), rtol=1e-5, atol=1e-6)
