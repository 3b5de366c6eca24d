"""Every statistic of single examples' gradients on 8 devices against the same on one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, optim, per_example
from jaxnn.layers import Conv, Dense, Flatten, Kind, Layer, MaxPool, Relu
from tests.backprop.checking import relative
from tests.helpers import float64, slow
from tests.per_example.recording.losses import make

N = 16
EXACT = 1e-12

ROWS: dict[str, Callable[[Any], Any]] = {
    "norms": per_example.norms,
    "sq_norms_by_parameter": per_example.sq_norms_by_parameter,
    "sq_norms_by_layer": per_example.sq_norms_by_layer,
    "materialize": per_example.materialize,
    "gram": per_example.gram,
    "cosine": per_example.cosine,
    "norms by clipping": lambda tape: per_example.clipped_grad(tape, 0.5)[1],
}
"""One row for each example."""

SUMS: dict[str, Callable[[Any], Any]] = {
    "mean_grad": per_example.mean_grad,
    "weighted_grad": lambda tape: per_example.weighted_grad(tape, jnp.ones(tape.examples)),
    "clipped_grad": lambda tape: per_example.clipped_grad(tape, 0.5)[0],
    "clipped_grad_by_layer": lambda tape: per_example.clipped_grad_by_layer(tape, 0.5)[0],
    "second_moment": per_example.second_moment,
    "empirical_fisher_diag": per_example.empirical_fisher_diag,
    "variance": per_example.variance,
    "snr": per_example.snr,
    "noise_scale": per_example.noise_scale,
}
"""Sums and means over the examples of a tape."""


def mesh(axis: AxisType, shape: tuple[int, ...] = (8,)) -> Any:
    return jax.make_mesh(shape, ("data", "model")[: len(shape)], axis_types=(axis,) * len(shape))


def all_of(tape: Any) -> tuple[Any, Any]:
    return {name: f(tape) for name, f in ROWS.items()}, {name: f(tape) for name, f in SUMS.items()}


MINE = Layer(
    lambda key, example: ({"w": jnp.ones(example.shape[-1]), "b": jnp.zeros(())}, ()),
    lambda params, state, x, key=None, train=False: (jnp.sin(x * params["w"]) + params["b"], state),
    Kind("mine"),
)
"""A layer without a rule: `jax.vjp` differentiates it."""

NET = models.serial(Conv(3, 3), MaxPool(2), Relu, Flatten, MINE, Dense(5))


def by_hand() -> tuple[Callable[..., Any], Any, tuple[Any, Any]]:
    rng = np.random.default_rng(3)
    example = jax.ShapeDtypeStruct((6, 6, 2), jnp.float64)
    params, state = jax.eval_shape(lambda key: NET.init(key, example), jax.random.key(0))
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape), params)
    x, y = rng.standard_normal((N, 6, 6, 2)), rng.integers(0, 5, N).astype(np.int32)
    record = backprop.record(NET, losses.softmax_cross_entropy)
    return lambda params, x, y: record(params, state, x, y), params, (x, y)


def matrix_loss(params: Any, x: Any, y: Any) -> Any:
    return jnp.sum((jnp.tanh(x @ params["w"] + params["b"]) * jnp.cumsum(params["s"]) - y) ** 2)


def matrix() -> tuple[Callable[..., Any], Any, tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((3, 4)), "b": rng.standard_normal(4), "s": rng.standard_normal(4)}
    data = rng.standard_normal((N, 3)), rng.standard_normal((N, 4))
    return per_example.record(matrix_loss), params, data


def recorder(name: str) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    if name in ("by hand", "matrix"):
        return by_hand() if name == "by hand" else matrix()
    made = make(name, N)
    return per_example.record(made.loss), made.params, made.data


def slow_pairs(axis: AxisType, *names: str) -> list[Any]:
    return slow(*((axis, name) for name in names))


RECORDERS = ["matrix", *slow("attention", "fallbacks", "cnn", "views", "tied", "several kinds", "by hand")]
"""Losses with loops begun with constants are left out: inside `shard_map` JAX asks for a cast there."""

MESHES = [
    *slow_pairs(AxisType.Explicit, "views", "cnn", "tied_autoencoder", "by hand"),
    *slow_pairs(AxisType.Auto, "attention", "tied", "several kinds"),
]
"""Lookups by indices that are sharded over an Explicit mesh ask, in JAX itself, for `.at[].get(out_sharding=...)`:
`test_lookups_on_an_explicit_mesh`."""


@pytest.mark.parametrize("name", RECORDERS)
def test_inside_shard_map_a_tape_is_of_the_devices_own_examples(name: str) -> None:
    """Default checks, replicated parameters: every statistic of each device is that of its examples on one device."""
    with float64():
        record, params, data = recorder(name)

        def own(params: Any, *data: Any) -> Any:
            return jax.tree.map(lambda x: jnp.asarray(x)[None], all_of(record(params, *data)))

        together = jax.jit(
            jax.shard_map(
                own, mesh=mesh(AxisType.Auto, (4, 2)), in_specs=(P(), *(P("data") for _ in data)), out_specs=P("data")
            )
        )(params, *data)
        alone = jax.jit(own)
        parts = [alone(params, *(x[i : i + 4] for x in data)) for i in range(0, N, 4)]
        assert relative(together, jax.tree.map(lambda *x: np.concatenate(x), *parts)) <= EXACT


@pytest.mark.parametrize(("axis", "name"), MESHES)
def test_examples_sharded_over_a_mesh(axis: AxisType, name: str) -> None:
    """The numbers of one device; rows stay with their examples."""
    with float64():
        record, params, data = recorder(name)

        def every(params: Any, *data: Any) -> Any:
            return all_of(record(params, *data))

        # A new function for each: one compiled for arguments on one device is not asked again.
        alone = jax.jit(lambda *a: every(*a))(params, *data)
        with jax.set_mesh(mesh(axis)):
            together = jax.jit(lambda *a: every(*a))(params, *jax.device_put(data, P("data")))
        assert relative(together, alone) <= EXACT
        # On an Auto mesh the compiler places what it is not told.
        for row in jax.tree.leaves(together[0] if axis is AxisType.Explicit else together[0]["norms"]):
            assert len({str(shard.index) for shard in row.addressable_shards}) == 8


def test_parameters_sharded_over_an_explicit_mesh() -> None:
    """Columns of a matrix on different devices: sums come back sharded as the parameters are."""
    record, params, (x, y) = matrix()
    with float64():

        def every(params: Any, x: Any, y: Any) -> Any:
            tape = record(params, x, y)
            return *all_of(tape), per_example.variance_centred(tape)

        alone = jax.jit(lambda *a: every(*a))(params, x, y)
        with jax.set_mesh(mesh(AxisType.Explicit, (4, 2))):
            split = {"w": P(None, "model"), "b": P("model"), "s": P()}
            data = jax.device_put((x, y), P("data"))
            together = jax.jit(lambda *a: every(*a))(jax.device_put(params, split), *data)
        assert relative(together, alone) <= EXACT
        for name in ("clipped_grad", "variance"):
            assert together[1][name]["w"].sharding.spec == split["w"]


@pytest.mark.parametrize("shape", [(4, 2), *slow(((8,),))])
def test_lookups_on_an_explicit_mesh(shape: tuple[int, ...]) -> None:
    """`get(out_sharding=...)` is recorded as w[i] is on one device, in loops too; no mesh is set."""

    def loss(look: Callable[[Any, Any], Any], params: Any, words: Any) -> Any:
        def step(total: Any, word: Any) -> Any:
            return total + jnp.tanh(look(params["w"], word[None])[0] @ params["v"]), None

        first = look(params["w"], words) @ params["v"]
        return jnp.sum(jax.lax.scan(step, first[0], words)[0] ** 2) + jnp.sum(first**2)

    def plain(w: Any, i: Any) -> Any:
        return w[i]

    def placed(w: Any, i: Any) -> Any:
        return w.at[i].get(out_sharding=P())

    rng = np.random.default_rng(0)
    with float64():
        params = {"w": rng.standard_normal((7, 4)), "v": rng.standard_normal((4, 4))}
        words = rng.integers(0, 7, (N, 3))

        def every(look: Callable[[Any, Any], Any], params: Any, words: Any) -> Any:
            tape = per_example.record(functools.partial(loss, look))(params, words)
            return (*all_of(tape), [row.uses for row in per_example.plan(tape)])

        where, uses = mesh(AxisType.Explicit, shape), []

        def numbers(look: Callable[[Any, Any], Any]) -> Callable[..., Any]:
            def found(params: Any, words: Any) -> Any:
                *statistics, kinds = every(look, params, words)
                uses.append(kinds)
                return statistics

            return jax.jit(found)

        alone = numbers(plain)(params, words)
        split = {"w": P(None, "model") if "model" in where.axis_names else P(), "v": P()}
        sharded = {name: jax.device_put(p, NamedSharding(where, split[name])) for name, p in params.items()}
        examples = jax.device_put(words, NamedSharding(where, P("data")))
        assert relative(numbers(placed)(sharded, examples), alone) <= EXACT
        assert uses[0] == uses[1]
        with pytest.raises(Exception, match="out_sharding") as caught:
            numbers(plain)(sharded, examples)
        assert any("Look up rows of a table by `w.at[i].get(out_sharding=" in note for note in caught.value.__notes__)
        with pytest.raises(ValueError, match=r"no mesh is set\. Call it inside jax\.jit"):
            every(placed, sharded, examples)


def square(p: Any, x: Any) -> Any:
    return jnp.sum((p @ x) ** 2)


@pytest.mark.parametrize(("checked", "jit"), [(True, True), *slow((True, False), (False, False))])
def test_norms_of_examples_on_two_devices(checked: bool, jit: bool) -> None:
    """sqrt(2) 2 |x|^2 for p of ones: the devices' examples were mixed to [285.67, 28567.1]."""
    x, two = np.float32([[1.0, 0, 0], [0, 100, 0]]), jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))

    def norms(p: Any, x: Any) -> Any:
        return per_example.norms(per_example.record(square)(p, x))

    spread = jax.shard_map(norms, mesh=two, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=checked)
    found = (jax.jit(spread) if jit else spread)(np.ones((2, 3), np.float32), x)
    np.testing.assert_allclose(found, [8**0.5, 8**0.5 * 1e4], rtol=1e-6)


REPLICATED = P()


def sharded(f: Callable[..., Any], data: int, out: Any = REPLICATED) -> Callable[..., Any]:
    """f(replicated first argument, so many others whose rows are on 8 devices), compiled."""
    specs = (P(), *(P("data") for _ in range(data)))
    return jax.jit(jax.shard_map(f, mesh=mesh(AxisType.Auto), in_specs=specs, out_specs=out))


def on_shards(f: Callable[..., Any], *data: Any, out: Any = REPLICATED) -> Any:
    return sharded(f, len(data) - 1, out)(*data)


@pytest.mark.parametrize("way", ["clipped_grad", *slow("clipped_grad_of")])
def test_removing_one_example_moves_the_clipped_sum_by_the_bound_at_most(way: str) -> None:
    """It moved by 3.6 times the bound where examples of different devices were mixed."""
    x = np.float32(np.random.default_rng(1).standard_normal((8, 3)) * 10.0 ** np.arange(-3, 5)[:, None])

    def total(p: Any, x: Any, padding: Any) -> Any:
        if way == "clipped_grad_of":
            clip = per_example.clipped_grad_of(square, l2_clip_norm=1.0, keep_batch_dim=False)
            return jax.lax.psum(clip(p, x, is_padding_example=padding), "data")
        tape = per_example.record(square)(p, x, weights=jnp.where(padding, 0.0, 1.0))
        return jax.lax.psum(per_example.clipped_grad(tape, 1.0)[0], "data")

    p, rows, run = np.ones((2, 3), np.float32), np.arange(8), sharded(total, 2)
    whole = np.asarray(run(p, x, np.zeros(8, bool)))
    moved = [np.linalg.norm(whole - run(p, x, rows == i)) for i in range(8)]
    assert max(moved) <= 1 + 1e-5
    assert min(moved[-3:]) >= 0.99


@pytest.mark.parametrize("microbatch_size", [None, *slow(1)])
def test_a_private_step_adds_up_the_devices_and_the_noise_once(microbatch_size: int | None) -> None:
    """The step of one device, noise and all, from examples on eight; the report stays with the examples."""
    rng, key = np.random.default_rng(2), jax.random.key(5)
    with float64():
        x, weights = rng.standard_normal((N, 3)), rng.integers(0, 2, N).astype(np.float32)
        opt = optim.adam(0.1)
        settings: Any = {"clip": 0.5, "noise_multiplier": 1.0, "batch_size": 8, "microbatch_size": microbatch_size}
        step = per_example.dp_sgd(per_example.record(square), opt, **settings)
        state = per_example.PrivateState(np.ones((2, 3)), opt.init(np.ones((2, 3))))

        def private(state: Any, x: Any, weights: Any) -> Any:
            return step(state, x, key=key, weights=weights)

        alone = jax.jit(private)(state, x, weights)
        together = on_shards(private, state, x, weights, out=(P(), P("data")))  # 2 examples on each device
        assert relative(together, alone) <= EXACT

        def foreign(state: Any, x: Any, seeds: Any) -> Any:
            return step(state, x, key=jax.random.key(seeds[0]))

        with pytest.raises(ValueError, match=r"key differs along the mesh axes \['data'\]"):
            on_shards(foreign, state, x, np.arange(8), out=(P(), P("data")))
        with jax.set_mesh(mesh(AxisType.Explicit)):
            spread = jax.device_put((x, weights), P("data"))
            explicit = jax.jit(lambda *a: private(*a))(jax.device_put(state, P()), *spread)
        assert relative(explicit, alone) <= EXACT


@pytest.mark.slow
def test_rows_of_the_gram_matrix_of_all_devices() -> None:
    with float64():
        made = make("attention", N)

        def rows(params: Any, *data: Any) -> Any:
            tape = per_example.record(made.loss)(params, *data)
            gathered = jax.tree.map(lambda x: jax.lax.all_gather(x, "data", tiled=True), tape)
            return per_example.gram(tape, gathered)

        together = on_shards(rows, made.params, *made.data, out=P("data"))
        alone = jax.jit(lambda params, *data: per_example.gram(per_example.record(made.loss)(params, *data)))
        assert relative(together, alone(made.params, *made.data)) <= EXACT


def test_a_loss_that_communicates_between_devices_raises() -> None:
    x = np.ones((8, 3), np.float32)

    def coupled(p: Any, x: Any) -> Any:
        return jnp.sum(jax.lax.psum(p @ x, "data") ** 2)

    with pytest.raises(ValueError, match=r"communicates between devices \(psum.*to=.invarying"):
        on_shards(
            lambda p, x: per_example.norms(per_example.record(coupled)(p, x)),
            np.ones((2, 3), np.float32),
            x,
            out=P("data"),
        )


def test_a_loss_may_ask_for_its_place_on_the_mesh() -> None:
    """Examples that differ only by the device that they are on."""

    def loss(p: Any, x: Any) -> Any:
        return jax.lax.axis_index("data") * jnp.sum(p * x)

    def norms(p: Any, x: Any) -> Any:
        return per_example.norms(per_example.record(loss, in_axes=(None, 0))(p, jnp.ones((1, 3)))) + 0 * x[0]

    found = on_shards(norms, np.ones(3, np.float32), np.ones(8, np.float32), out=P("data"))
    np.testing.assert_allclose(found, np.arange(8) * 3**0.5, rtol=1e-6)


@pytest.mark.slow
def test_the_gradient_by_hand_inside_shard_map_is_that_of_jax() -> None:
    """Summed over the devices for replicated parameters, layers without a rule too; curvature is of own examples."""
    with float64():
        _, params, (x, y) = by_hand()
        _, state = NET.init(jax.random.key(0), (6, 6, 2))
        l2, loss = losses.l2(0.1), losses.softmax_cross_entropy
        vg = backprop.value_and_grad(NET, loss, l2)

        def ours(params: Any, x: Any, y: Any) -> Any:
            (value, _), grads = vg(params, state, x, y)
            return value[None], grads

        def jaxs(params: Any, x: Any, y: Any) -> Any:
            def mean(params: Any) -> Any:
                return jnp.mean(loss(NET.predict(params, state, x), y)) + l2(params)

            value, grads = jax.value_and_grad(mean)(params)
            return value[None], grads

        out = (P("data"), P())
        assert relative(on_shards(ours, params, x, y, out=out), on_shards(jaxs, params, x, y, out=out)) <= EXACT

        def mean(params: Any, x: Any, y: Any) -> Any:
            return vg(params, state, x, y)

        alone = jax.jit(mean)(params, x, y)
        with jax.set_mesh(mesh(AxisType.Explicit)):
            explicit = jax.jit(lambda *a: mean(*a))(jax.device_put(params, P()), *jax.device_put((x, y), P("data")))
        assert relative(explicit, alone) <= EXACT

        def curvature(params: Any, x: Any, y: Any) -> Any:
            columns = backprop.ggn_record(NET, loss)(params, state, x, y)
            outputs = backprop.output_record(NET)(params, state, x)
            found = per_example.diag_ggn(columns), per_example.trace(columns), per_example.ntk(outputs)
            return jax.tree.map(lambda x: x[None], found)

        together = on_shards(curvature, params, x, y, out=P("data"))
        alone = jax.jit(curvature)
        parts = [alone(params, x[i : i + 2], y[i : i + 2]) for i in range(0, N, 2)]
        assert relative(together, jax.tree.map(lambda *x: jnp.concatenate(x), *parts)) <= EXACT
