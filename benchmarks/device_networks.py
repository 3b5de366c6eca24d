"""Statistics of per-example gradients, and gradients, of networks: programs for accelerators (device_registry.py).

The networks: `mlp` 784-512-512-10 and `cnn` conv 3x3x32 - pool - conv 3x3x64 - pool - 128 - 10, batch 128; the flax
transformer of flax_models.py (4 layers of width 256, float32); decoders of flax_gpt.py (bfloat16): `gpt` 12 layers of
width 768, `small gpt` and `block in bfloat16` 3 layers and one of width 128, `wide transformer` 4 layers of width 768.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from benchmarks.device_registry import BF16, F32, I32, TARGETS, Case, program, shaped
from jaxnn import backprop, losses, models, per_example, train

BOUND = 1.0
"""The clipping norm."""
LOSS = losses.softmax_cross_entropy


def square_sum(grads: Any, axes_from: int) -> Any:
    return sum(jnp.sum(jnp.square(g), axis=tuple(range(axes_from, g.ndim))) for g in jax.tree.leaves(grads))


def mean_over(grads: Any) -> Any:
    return jax.tree.map(lambda g: jnp.mean(g, 0), grads)


def variance_over(grads: Any) -> Any:
    return jax.tree.map(lambda g: jnp.var(g, 0), grads)


def clipped_over(grads: Any) -> Any:
    norms = jnp.sqrt(square_sum(grads, 1))
    factors = jnp.minimum(1.0, BOUND / norms)
    return jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), grads), norms


def gram_over(grads: Any) -> Any:
    flat = [g.reshape(g.shape[0], -1) for g in jax.tree.leaves(grads)]
    return sum(jnp.einsum("ip,jp->ij", g, g, precision="highest") for g in flat)


def noise_scale_over(grads: Any) -> Any:
    return sum(jnp.sum(v) for v in jax.tree.leaves(variance_over(grads))) / square_sum(mean_over(grads), 0)


STATISTICS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "norms and mean": (
        lambda tape: (per_example.norms(tape), per_example.mean_grad(tape)),
        lambda grads: (jnp.sqrt(square_sum(grads, 1)), mean_over(grads)),
    ),
    "clipped sum": (lambda tape: per_example.clipped_grad(tape, BOUND), clipped_over),
    "variance": (per_example.variance, variance_over),
    "second moment": (
        per_example.second_moment,
        lambda grads: jax.tree.map(lambda g: jnp.mean(jnp.square(g), 0), grads),
    ),
    "gram": (per_example.gram, gram_over),
    "noise scale": (per_example.noise_scale, noise_scale_over),
    "materialize": (per_example.materialize, lambda grads: grads),
}
"""Each of a tape, and of all single gradients."""


class Model(NamedTuple):
    """What the statistics of a model need: functions of `args`."""

    one: Callable[..., Any]
    """The loss of one example; `in_axes` says which of the arguments are a batch."""
    in_axes: tuple[int | None, ...]
    record: Callable[..., Any]
    gradient: Callable[..., Any]
    with_value: Callable[..., Any]
    """The gradient with the loss."""
    args: tuple[Any, ...]

    @property
    def each(self) -> Callable[..., Any]:
        """The gradient of every example."""
        return jax.vmap(jax.grad(self.one), self.in_axes)


def add_statistics(
    name: str,
    model: Callable[[], Model],
    which: Sequence[str],
    by_vmap: Sequence[str] = (),
    quick: Sequence[str] = (),
    quick_for: tuple[str, ...] = TARGETS,
) -> None:
    """The programs `NAME STATISTIC`, `NAME STATISTIC by vmap(grad)` and `NAME gradient by jax.grad` of a model.

    Args:
        which, by_vmap: the statistics, and those of them that are compared with `vmap(grad)`.
        quick, quick_for: those of them that the tests compile, and the plain gradient with them; for which targets.
    """
    model = functools.cache(model)
    plain = f"{name} gradient by jax.grad"
    for statistic in which:
        on_tape, on_grads = STATISTICS[statistic]
        rival = f"{name} {statistic} by vmap(grad)"

        def ours(on_tape: Callable[[Any], Any] = on_tape) -> Case:
            made = model()
            return Case(lambda *args: on_tape(made.record(*args)), made.args)

        def theirs(on_grads: Callable[[Any], Any] = on_grads) -> Case:
            made = model()
            return Case(lambda *args: on_grads(made.each(*args)), made.args)

        has_rival = statistic in by_vmap
        rivals = (rival, plain) if has_rival else (plain,)
        program(f"{name} {statistic}", rivals=rivals, quick=quick_for if statistic in quick else ())(ours)
        if has_rival:
            program(rival, quick=())(theirs)
    program(plain, quick=quick_for if quick else ())(lambda: Case(model().gradient, model().args))


# --- networks of this library --------------------------------------------------------------------------------------


def own(net: Any, example: tuple[int, ...], batch: int) -> Model:
    """A network of `jaxnn.models`."""
    params, state = jax.eval_shape(lambda: net.init(jax.random.key(0), example))

    def of_one(params: Any, state: Any, x: Any, y: Any) -> Any:
        return LOSS(net.predict(params, state, x[None]), y[None])[0]

    gradient = jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True)
    return Model(
        one=of_one,
        in_axes=(None, None, 0, 0),
        record=backprop.record(net, LOSS),
        gradient=gradient,
        with_value=gradient,
        args=(params, state, shaped((batch, *example)), shaped((batch,), I32)),
    )


MLP, CNN = models.mlp([784, 512, 512, 10]), models.cnn()
NETS = {"mlp": (MLP, (784,)), "cnn": (CNN, (28, 28, 1))}
FEW = ("norms and mean", "clipped sum", "variance")

QUICK = ("norms and mean", "clipped sum", "variance", "second moment")
add_statistics("mlp", lambda: own(MLP, (784,), 128), *[tuple(STATISTICS)] * 2, QUICK)
add_statistics("cnn", lambda: own(CNN, (28, 28, 1), 128), FEW, FEW, FEW[:1], ("cuda",))

for _name, (_net, _example) in NETS.items():

    @program(
        f"{_name} gradient by backprop",
        rivals=(f"{_name} gradient by jax.grad",),
        quick=TARGETS if _name == "mlp" else (),
    )
    def _(net: Any = _net, example: tuple[int, ...] = _example) -> Case:
        return Case(backprop.value_and_grad(net, LOSS), own(net, example, 128).args)

    @program(
        f"{_name} forward in bfloat16",
        rivals=(f"{_name} forward in bfloat16 by jax.numpy",),
        quick=TARGETS if _name == "mlp" else (),
    )
    def _(net: Any = _net, example: tuple[int, ...] = _example) -> Case:
        params, state, x, _ = half(own(net, example, 1024).args)
        return Case(net.predict, (params, state, x))


def half(args: Any) -> Any:
    """The same with bfloat16 in place of float32."""
    return jax.tree.map(lambda s: shaped(s.shape, BF16) if s.dtype == F32 else s, args)


@program("mlp forward in bfloat16 by jax.numpy")
def _() -> Case:
    params, state, x, _ = half(own(MLP, (784,), 1024).args)

    def forward(params: Any, state: Any, x: Any) -> Any:
        layers = [p for p in params if p]
        for p in layers[:-1]:
            x = jax.nn.relu(x @ p["w"] + p["b"])
        return x @ layers[-1]["w"] + layers[-1]["b"]

    return Case(forward, (params, state, x))


@program("cnn forward in bfloat16 by jax.numpy", quick=())
def _() -> Case:
    params, state, x, _ = half(own(CNN, (28, 28, 1), 1024).args)

    def forward(params: Any, state: Any, x: Any) -> Any:
        for part, p in zip(CNN.parts, params, strict=True):
            if part.kind.name == "conv":
                numbers = ("NHWC", "HWIO", "NHWC")
                x = jax.lax.conv_general_dilated(x, p["w"], (1, 1), part.options["padding"], dimension_numbers=numbers)
                x = x + p["b"]
            elif part.kind.name == "max_pool":
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            elif part.kind.name == "dense":
                x = x @ p["w"] + p["b"]
            else:
                x = part.predict(p, (), x)
        return x

    return Case(forward, (params, state, x))


@program("mlp clipped sum on 4 devices", rivals=("mlp gradient by jax.grad on 4 devices",))
def _() -> Case:
    model = own(MLP, (784,), 1024)
    made = Case(lambda *args: per_example.clipped_grad(model.record(*args), BOUND), model.args)
    return made._replace(mesh={"data": 4}, in_shardings=(P(), P(), P("data"), P("data")))


@program("mlp gradient by jax.grad on 4 devices")
def _() -> Case:
    model = own(MLP, (784,), 1024)
    return Case(model.gradient, model.args, mesh={"data": 4}, in_shardings=(P(), P(), P("data"), P("data")))


# --- networks of flax ----------------------------------------------------------------------------------------------


def flax(model: Any, params: Any, x: Any, y: Any) -> Model:
    """A flax model; the loss of an example is the mean over its tokens."""

    def mean_loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y))

    def of_one(params: Any, x: Any, y: Any) -> Any:
        # Logits without a batch axis of 1: with it, under `vmap`, XLA for TPU scatters the labels' cotangents into
        # float32 logits of their own, 3 GiB for `gpt`, in `jax.grad` too.
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x[None])[0], y))

    return Model(
        one=of_one,
        in_axes=(None, 0, 0),
        record=per_example.record(of_one),
        gradient=jax.grad(mean_loss),
        with_value=jax.value_and_grad(mean_loss),
        args=(params, x, y),
    )


def small_transformer() -> Model:
    """4 layers of width 256, 128 tokens of a vocabulary of 96, batch 16, float32."""
    from benchmarks.flax_models import CASES

    case = CASES["transformer"]
    x = shaped((case.batch, *case.example), I32)
    params = jax.eval_shape(case.model.init, jax.random.key(0), shaped((1, *case.example), I32))
    return flax(case.model, params, x, x)


def gpt(batch: int, **sizes: Any) -> Model:
    from benchmarks.flax_gpt import Gpt, shapes

    model = Gpt(**sizes)
    return flax(model, *shapes(model, batch))


add_statistics("transformer", small_transformer, (*FEW, "second moment", "gram", "noise scale"), FEW[:2])
SMALL = {"vocabulary": 512, "length": 128, "width": 128, "heads": 4}
add_statistics("block in bfloat16", lambda: gpt(8, **SMALL, layers=1, scanned=False), FEW, (), FEW[:2])

for _tied in (False, True):
    _kind = "tied" if _tied else "untied"

    @program(f"gpt {_kind} gradient by jax.grad", quick=())
    def _(tied: bool = _tied) -> Case:
        model = gpt(16, tied=tied)
        return Case(model.gradient, model.args)

    @program(f"small gpt {_kind} gradient by jax.grad", quick=())
    def _(tied: bool = _tied) -> Case:
        model = gpt(8, **SMALL, layers=3, tied=tied)
        return Case(model.gradient, model.args)


WIDE = {"layers": 4, "scanned": False}


@program("wide transformer norms and mean", rivals=("wide transformer gradient by jax.grad",), quick=())
def _() -> Case:
    model = gpt(16, **WIDE)
    return Case(lambda *args: STATISTICS["norms and mean"][0](model.record(*args)), model.args)


@program("wide transformer gradient by jax.grad", quick=())
def _() -> Case:
    model = gpt(16, **WIDE)
    return Case(model.gradient, model.args)
