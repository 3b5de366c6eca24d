"""Transformers on 8 devices: gradients by hand, and statistics of their tapes, against one device, in float64."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, per_example, placement, train
from jaxnn.layers import Attention, Dense, GatedDense, Layer, Sequences
from jaxnn.models import encoder_decoder, serial, transformer
from jaxnn.ops import attention
from tests.backprop.checking import relative
from tests.devices.eight.test_tape import mesh
from tests.helpers import float64, slow

N, T = 8, 6
EXACT = 1e-10
LOSS = functools.partial(losses.softmax_cross_entropy, ignore_index=-1)
SMALL: dict[str, Any] = {"width": 8, "depth": 2, "heads": 2}
RNG = np.random.default_rng(0)
TOKENS, SOURCE = RNG.integers(0, 9, (N, T)).astype(np.int32), RNG.integers(0, 5, (N, 4)).astype(np.int32)
NETS: dict[str, tuple[Layer, Any]] = {
    "decoder": (transformer(9, **SMALL), TOKENS),
    "stacked": (transformer(9, **SMALL, stacked=True), TOKENS),
    "encoder": (
        transformer(
            9, **SMALL, causal=False, pad=0, attention=Attention(2, kv_heads=1, alibi=True), head=Dense(9),
            mlp=serial(GatedDense(12), Dense(8)),
        ),
        TOKENS,
    ),
    "masked": (transformer(9, **SMALL, pad=0, stacked=True), Sequences(TOKENS, TOKENS > 2)),
    "translation": (encoder_decoder(5, 9, **SMALL, pad=0), Sequences(TOKENS, None, Sequences(SOURCE))),
}  # fmt: skip


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention over blocks of 4 queries, in a loop."""
    for f in (attention.attend, attention.attend_grads):
        monkeypatch.setitem(f.__kwdefaults__, "block", 4)


def made(name: str) -> tuple[Layer, Any, Any, np.ndarray]:
    """(net, params, inputs, labels)."""
    net, x = NETS[name]
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    leaves, structure = jax.tree.flatten(jax.eval_shape(lambda: net.init(jax.random.key(0), example))[0])
    rng = np.random.default_rng(1)
    params = [0.5 * rng.standard_normal(p.shape) for p in leaves]
    return net, jax.tree.unflatten(structure, params), x, RNG.integers(-1, 9, (N, T)).astype(np.int32)


def gradients(net: Layer, params: Any, x: Any, y: Any) -> Any:
    """The value and gradient by hand and by JAX."""
    by_hand = backprop.value_and_grad(net, LOSS)
    by_jax = jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True)
    return by_hand(params, (), x, y), by_jax(params, (), x, y)


def statistics(net: Layer, params: Any, x: Any, y: Any) -> dict[str, Any]:
    tape = backprop.record(net, LOSS)(params, (), x, y)
    total, norms = per_example.clipped_grad(tape, 0.3)
    return {
        "norms": norms,
        "clipped": total,
        "variance": per_example.variance(tape),
        "gram": per_example.gram(tape),
        "losses": tape.losses,
        # By itself `predict` asks how a product over sharded columns is placed.
        "predicted": placement.compiler_sharded(net.predict, P("data"), params, (), x),
    }


def columns_of(params: Any, axis: str = "model") -> Any:
    """Tensor parallelism: the heads' columns of wq, wk, wv, the rows of wo, and the same of a two-layer MLP."""
    by_name = {"wq": (None, axis), "wk": (None, axis), "wv": (None, axis), "wo": (axis, None)}

    def spec(path: Any, p: Any) -> P:
        name = path[-1].key
        places = by_name.get(name, ())
        if name in ("w", "v") and p.shape[-2:] in ((8, 32), (32, 8)):
            places = (None, axis) if p.shape[-1] == 32 else (axis, None)
        return P(*(None,) * (p.ndim - len(places)), *places)

    return jax.tree_util.tree_map_with_path(spec, params)


def fully_sharded(params: Any) -> Any:
    """FSDP: each parameter's first axis that 8 devices divide evenly."""

    def spec(p: Any) -> P:
        places = [None] * p.ndim
        for i, size in enumerate(p.shape):
            if size % 8 == 0:
                places[i] = "data"
                break
        return P(*places)

    return jax.tree.map(spec, params)


LAYOUTS = {"replicated": (8,), "columns": (4, 2), "fully sharded": (8,)}
KINDS = (AxisType.Explicit, AxisType.Auto)
QUICK = ("stacked", "columns", AxisType.Explicit)
CASES = [case for case in itertools.product(NETS, LAYOUTS, KINDS) if case != QUICK]


@pytest.mark.parametrize(("name", "layout", "axis"), [QUICK, *slow(*CASES)])
def test_on_a_mesh_the_numbers_are_those_of_one_device(name: str, layout: str, axis: AxisType) -> None:
    with float64():
        net, params, x, y = made(name)
        alone = jax.jit(lambda *a: (gradients(net, *a), statistics(net, *a)))(params, x, y)
        specs = {"replicated": lambda p: jax.tree.map(lambda _: P(), p), "columns": columns_of}.get(
            layout, fully_sharded
        )(params)
        with jax.set_mesh(mesh(axis, LAYOUTS[layout])):
            there, data = jax.device_put(params, specs), jax.device_put((x, y), P("data"))
            together = jax.jit(lambda *a: (gradients(net, *a), statistics(net, *a)))(there, *data)
        assert relative(together, alone) <= EXACT
        assert relative(together[0][0], together[0][1]) <= EXACT
        if axis is AxisType.Explicit:
            for g, p in zip(*map(jax.tree.leaves, (together[0][0][1], there)), strict=True):
                assert g.sharding.is_equivalent_to(p.sharding, p.ndim)
            for row in (together[1]["norms"], together[1]["predicted"]):
                assert row.sharding.spec[0] == "data"


@pytest.mark.parametrize("name", ["stacked", *slow("decoder", "encoder", "masked", "translation")])
def test_inside_shard_map_gradients_are_summed_and_rows_are_the_devices_own(name: str) -> None:
    """Default checks, replicated parameters: the mean over devices is that of one device of their mean losses."""
    with float64():
        net, params, x, y = made(name)
        y = np.abs(y)  # an equal number of positions on each device, so that the mean of the means is the mean

        def own(params: Any, x: Any, y: Any) -> Any:
            by_hand, by_jax = gradients(net, params, x, y)
            rows = statistics(net, params, x, y)
            rows = {key: rows[key] for key in ("norms", "losses", "predicted")}
            return by_hand[1], by_jax[1], rows

        rows = dict.fromkeys(("norms", "losses", "predicted"), P("data"))
        together = jax.jit(
            jax.shard_map(
                own, mesh=mesh(AxisType.Auto), in_specs=(P(), P("data"), P("data")), out_specs=(P(), P(), rows)
            )
        )(params, x, y)
        (_, grads), _ = jax.jit(lambda *a: gradients(net, *a))(params, x, y)
        alone = jax.jit(lambda *a: statistics(net, *a))(params, x, y)
        for summed in together[:2]:
            assert relative(jax.tree.map(lambda g: g / 8, summed), grads) <= EXACT
        assert relative(together[2], {key: alone[key] for key in together[2]}) <= EXACT
