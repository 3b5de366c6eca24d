"""Statistics inside the backward pass on 8 devices against the same on one, and what the devices send each other."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import per_example
from jaxnn.ops import steps
from jaxnn.per_example import Directional, Margin, Projection, SecondMoment, SqNorms, Variance, gram_norms
from jaxnn.placement import compiler_sharded
from tests.backprop.checking import relative
from tests.devices import hlo
from tests.devices.collectives import Sent, sent
from tests.devices.eight.test_tape import mesh
from tests.devices.streams import CASES, LARGE, Case, N, layout, mlp, placed, plain, two_products
from tests.helpers import float64, slow

EXACT = 1e-10


def every_statistic(params: Any) -> dict[str, Any]:
    return {
        "norms": SqNorms(),
        "by parameter": SqNorms(by="parameter"),
        "margin": Margin(),
        "directional": Directional(jax.tree.map(jnp.cos, params)),
        "projection": Projection(jax.random.key(0), 12),
        "second moment": SecondMoment(),
        "variance": Variance(),
    }


def every(case: Case, params: Any, weights: Any, *data: Any) -> Any:
    """Of the batch, and some of the batch with weights, of which some are 0."""
    statistics = every_statistic(params)
    some = {name: statistics[name] for name in ("norms", "second moment")}
    plain = per_example.value_and_grad(case.loss, statistics)(params, *data)
    return plain, per_example.value_and_grad(case.loss, some)(params, *data, weights=weights)


def some_weights(n: int = N) -> np.ndarray:
    return np.random.default_rng(4).uniform(0.5, 2, n) * (np.arange(n) % 5 != 0)


EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto
LAYOUTS = [
    ("mlp", EXPLICIT, (8,), "replicated", True),
    *slow(
        ("mlp", AUTO, (4, 2), "tensor parallel", False),
        ("sequence", EXPLICIT, (8,), "fsdp", False),
        ("sequence", AUTO, (8,), "fsdp", True),
        ("blocks", EXPLICIT, (4, 2), "fsdp", True),
        ("blocks", AUTO, (4, 2), "tensor parallel", True),
        ("parallel", EXPLICIT, (4, 2), "tensor parallel", True),
        ("vocabulary", EXPLICIT, (8,), "fsdp", True),
        ("vocabulary", AUTO, (4, 2), "tensor parallel", False),
    ),
]


@pytest.mark.parametrize(("name", "axis", "shape", "way", "is_set"), LAYOUTS)
def test_a_sharded_batch_gives_the_numbers_of_one_device(
    name: str, axis: AxisType, shape: tuple[int, ...], way: str, is_set: bool
) -> None:
    """Rows stay with their examples; on an Explicit mesh gradients are sharded as the parameters are."""
    with float64():
        case, weights, where = CASES[name](), some_weights(), mesh(axis, shape)
        alone = jax.jit(functools.partial(every, case))(case.params, weights, *case.data)
        specs = layout(case, way, shape[0])
        args = placed(case, specs, weights, where)
        # A new function: one compiled for arguments on one device is not asked again.
        run = jax.jit(lambda *a: every(case, *a))
        if is_set:
            with jax.set_mesh(where):
                together = run(*args)
        else:
            together = run(*args)
        assert relative(together, alone) <= EXACT
        for (losses, found), grads in together:
            by_parameter = found.get("by parameter", {}).values()
            for rows in (losses, found["norms"], *by_parameter, *([found["projection"]] if by_parameter else [])):
                assert rows.sharding.is_equivalent_to(NamedSharding(where, P("data")), rows.ndim)
            if axis is EXPLICIT:
                for each in (grads, found["second moment"]):
                    places = jax.tree.map(
                        lambda x, s: x.sharding.is_equivalent_to(NamedSharding(where, s), x.ndim), each, specs
                    )
                    assert all(places.values())


@pytest.mark.parametrize(
    ("name", "checked"), [("mlp", True), *slow(("mlp", False), ("sequence", True), ("blocks", True))]
)
def test_inside_shard_map_rows_are_of_own_examples_and_gradients_those_of_jax(name: str, checked: bool) -> None:
    """With the default checks summed over the devices, without them the device's own."""
    with float64():
        case, weights = CASES[name](), some_weights()

        def ours(params: Any, weights: Any, *data: Any) -> Any:
            (plain, grads), (scaled, scaled_grads) = every(case, params, weights, *data)
            own = {**plain[1], "weighted": scaled}
            return plain[0], jax.tree.map(lambda x: x[None], own), (grads, scaled_grads)

        def jaxs(params: Any, weights: Any, *data: Any) -> Any:
            def total(params: Any, weights: Any) -> Any:
                each = jax.vmap(case.loss, (None, *(0 for _ in data)))(params, *data)
                return jnp.sum(weights * each)

            return jax.grad(total)(params, jnp.ones_like(weights)), jax.grad(total)(params, weights)

        def spread(f: Any, out: Any) -> Any:
            specs = (P(), *(P("data") for _ in (weights, *case.data)))
            where = mesh(AUTO, (4, 2))
            run = jax.jit(jax.shard_map(f, mesh=where, in_specs=specs, out_specs=out, check_vma=checked))
            return run(case.params, weights, *case.data)

        # Unchecked, devices have different sums under the name of replicated ones: stacked to be seen.
        sums = P() if checked else P("data")

        def seen(grads: Any) -> Any:
            return grads if checked else jax.tree.map(lambda x: x[None], grads)

        def ours_seen(*args: Any) -> Any:
            losses, own, grads = ours(*args)
            return losses, own, seen(grads)

        losses, own, grads = spread(ours_seen, (P("data"), P("data"), sums))
        assert relative(grads, spread(lambda *a: seen(jaxs(*a)), sums)) <= EXACT
        alone = jax.jit(ours)
        parts = [
            alone(case.params, *(x[i : i + N // 4] for x in (weights, *case.data)))[:2] for i in range(0, N, N // 4)
        ]
        assert relative((losses, own), jax.tree.map(lambda *x: jnp.concatenate(x), *parts)) <= EXACT


@pytest.mark.slow
def test_inside_shard_map_weights_of_own_and_data_of_all() -> None:
    """As in a bootstrap: every device weights the same examples anew."""
    with float64():
        case = mlp()
        shares = np.random.default_rng(5).uniform(size=(4, N))

        def sums(params: Any, weights: Any, *data: Any) -> Any:
            options: list[dict[str, Any]] = [{}, {"groups": "parameter"}, {"passes": 1}]
            clipped = [per_example.clipped_value_and_grad(case.loss, 2.0, **more) for more in options]
            vgs = [per_example.value_and_grad(case.loss), *clipped]
            return [vg(params, *data, weights=weights.reshape(-1))[1] for vg in vgs]

        specs = (P(), P("data"), *(P() for _ in case.data))
        run = jax.jit(jax.shard_map(sums, mesh=mesh(AUTO, (4, 2)), in_specs=specs, out_specs=P()))
        alone = jax.jit(sums)
        own = [alone(case.params, w, *case.data) for w in shares]
        assert relative(run(case.params, shares, *case.data), jax.tree.map(lambda *x: sum(x), *own)) <= EXACT


def compiled(f: Any, case: Case, where: Any, specs: Any, *more: Any) -> Any:
    """f(params, *data, *more (N,)), compiled for a batch sharded over the axis "data"; float32."""

    def shaped(x: Any, spec: P) -> Any:
        kind = np.int32 if np.issubdtype(np.asarray(x).dtype, np.integer) else np.float32
        return jax.ShapeDtypeStruct(np.shape(x), kind, sharding=NamedSharding(where, spec))

    batch = [shaped(x, P("data")) for x in (*case.data, *more)]
    return jax.jit(lambda *a: f(*a)).lower(jax.tree.map(shaped, case.params, specs), *batch).compile()


def few(devices: int, shape: tuple[int, ...] = ()) -> Any:
    names = ("data", "model")[: len(shape) or 1]
    return jax.make_mesh(shape or (devices,), names, (AUTO,) * len(names), devices=jax.devices()[:devices])


@pytest.mark.parametrize(
    ("name", "devices", "way"),
    [
        ("two", 4, "fsdp"),
        *slow(("blocks", 4, "fsdp"), ("blocks", 8, "fsdp"), ("mlp", 8, "fsdp"), ("two", 8, "replicated")),
    ],
)
def test_norms_beside_the_gradient_send_nothing_more(name: str, devices: int, way: str) -> None:
    """The same arrays as often, in loops over layers and over chunks of examples too; all rows sharded."""
    case, where = LARGE[name](), few(devices)
    specs = layout(case, way, devices)
    ours = compiled(per_example.value_and_grad(case.loss), case, where, specs)
    theirs = compiled(plain(case.loss), case, where, specs)
    assert sent(ours.as_text()) == sent(theirs.as_text())
    assert hlo.read(ours.as_text(), "cpu").collectives.keys() == hlo.read(theirs.as_text(), "cpu").collectives.keys()
    ((losses, norms), grads), (_, plain_grads) = ours.output_shardings, theirs.output_shardings
    assert losses.spec == norms.spec == P("data")
    assert jax.tree.map(lambda s: s.spec, grads) == jax.tree.map(lambda s: s.spec, plain_grads)


def test_chunks_of_neighbours_would_gather_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks are what the test above is about."""
    monkeypatch.setattr(steps, "shards", lambda arrays: 1)
    case, where = two_products(), few(4)
    done = compiled(per_example.value_and_grad(case.loss), case, where, layout(case, "replicated", 4))
    gathered = {size: count for (kind, size, _), count in sent(done.as_text()).items() if kind == "all-gather"}
    assert (64, 64, 64) in gathered


@pytest.mark.parametrize("name", ["blocks", *slow("mlp", "two")])
def test_tensor_parallel_norms_send_one_number_of_each_example_more(name: str) -> None:
    """For each matrix that is sharded; XLA combines those of different parameters in one all-reduce."""
    case, where = LARGE[name](), few(4, (2, 2))
    ours = compiled(per_example.value_and_grad(case.loss), case, where, case.split)
    theirs = compiled(plain(case.loss), case, where, case.split)
    more = sent(ours.as_text()) - sent(theirs.as_text())
    rows = len(case.data[0]) // 2
    assert {kind for kind, _, _ in more} == {"all-reduce"}
    numbers = sum(count * size // 4 for (_, _, size), count in more.items())
    sharded = [w.shape for w, spec in zip(case.params.values(), case.split.values(), strict=True) if spec != P()]
    assert numbers <= rows * sum(shape[0] if len(shape) == 3 else 1 for shape in sharded)
    assert not sent(theirs.as_text()) - sent(ours.as_text())
    if name == "mlp":
        counts = [hlo.read(done.as_text(), "cpu").collectives["all-reduce"] for done in (ours, theirs)]
        assert counts[0] - counts[1] == 1


def test_left_to_the_compiler_gram_matrices_would_be_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrices are what the test above is about: of 32 examples at 16 positions."""
    monkeypatch.setattr(gram_norms, "_partitioned", gram_norms.products_sum)
    case, where = LARGE["blocks"](), few(4, (2, 2))
    done = compiled(per_example.value_and_grad(case.loss), case, where, case.split)
    assert any(size == (16, 16, 32) for kind, size, _ in sent(done.as_text()) if kind == "all-reduce")


@pytest.mark.slow
@pytest.mark.parametrize("axis", [AUTO, EXPLICIT])
@pytest.mark.parametrize(
    ("rows", "groups", "of_a", "of_delta"),
    [
        ("data", None, "model", None),
        ("data", None, None, "model"),
        (None, None, "model", "data"),
        (None, "data", None, "model"),
    ],
)
def test_gram_norms_of_sharded_features(axis: AxisType, rows: Any, groups: Any, of_a: Any, of_delta: Any) -> None:
    """One rule for groups, features of a, of delta, and of both; under `vmap`, and differentiated."""
    with float64():
        r = np.random.default_rng(0)
        factors = r.normal(size=(3, 8, 4, 2, 16)), r.normal(size=(3, 8, 4, 2, 8))
        where, specs = mesh(axis, (2, 4)), [P(None, rows, None, groups, entry) for entry in (of_a, of_delta)]

        def both(a: Any, delta: Any, norms: Any) -> Any:
            each = jax.vmap(norms)
            return each(a, delta), jax.grad(lambda a: jnp.sum(jnp.sin(each(a, delta))))(a)

        def ours(a: Any, delta: Any) -> Any:
            like = (P(None, rows), specs[0])
            return compiler_sharded(functools.partial(both, norms=gram_norms.gram_norms), like, a, delta)

        placed = [jax.device_put(x, NamedSharding(where, s)) for x, s in zip(factors, specs, strict=True)]
        alone = jax.jit(functools.partial(both, norms=gram_norms.products_sum))(*factors)
        assert relative(jax.jit(ours)(*placed), alone) <= EXACT


@pytest.mark.slow
def test_removed_examples_are_replaced_without_a_gather() -> None:
    """By an all-reduce of one row: weights of 0 may be on every device."""
    case, where = mlp(512, 32, 64), few(4)
    specs = layout(case, "replicated", 4)

    def weighted(params: Any, *data: Any) -> Any:
        *batch, weights = data
        return per_example.value_and_grad(case.loss)(params, *batch, weights=weights)

    done = compiled(weighted, case, where, specs, some_weights(512))
    more = sent(done.as_text()) - sent(compiled(plain(case.loss), case, where, specs).as_text())
    assert {kind for kind, _, _ in more} == {"all-reduce"}
    assert sum(size * count for (_, _, size), count in more.items()) <= 4 * (32 + 8 + 1 + 4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["replicated", "fsdp"])
def test_sums_of_squares_send_their_own_arrays_once(way: str) -> None:
    """A loop over chunks adds the devices' sums up after its last turn."""
    case, where = two_products(), few(4)
    specs = layout(case, way, 4)
    both = per_example.value_and_grad(case.loss, (SqNorms(), SecondMoment()))
    theirs = sent(compiled(plain(case.loss), case, where, specs).as_text())
    more: Sent = sent(compiled(both, case, where, specs).as_text()) - theirs
    assert more == {("all-reduce", (64, 1024), 2**18): 2}
