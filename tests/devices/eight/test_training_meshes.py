"""Data parallelism and FSDP on 8 devices: the numbers of one device in float64, and what the programs do."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import backprop, losses, models, optim, train
from jaxnn.layers import BatchNorm, Conv, Dense, Dropout, Flatten, Relu
from tests.devices import hlo_text
from tests.devices.collectives import sent
from tests.helpers import float64, slow

LOSS = losses.softmax_cross_entropy
KEY = jax.random.key(0)
N, B, STEPS = 48, 16, 20
RNG = np.random.default_rng(0)
NETS: dict[str, Any] = {
    "mlp": (models.serial(Dense(32), Relu, Dropout(0.2), Dense(8)), RNG.standard_normal((N, 16)), N),
    "cnn": (
        models.serial(Conv(8, 3, b_init=None), BatchNorm(), Relu, Flatten, Dense(8)),
        RNG.standard_normal((N, 6, 6, 2)), N,
    ),
    "transformer": (
        models.transformer(16, width=16, depth=2, heads=2, stacked=True), RNG.integers(0, 16, (N, 8)), (N, 8),
    ),
}  # fmt: skip
OPTIMIZERS = {"sgd": optim.sgd(0.05, momentum=0.9), "adam": optim.adam(1e-3, eps=1e-3), "muon": optim.muon(1e-2)}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
EXACT = 1e-12


@functools.cache
def mesh_of(kind: str, shape: tuple[int, ...] = (8,), names: tuple[str, ...] = ("data",)) -> jax.sharding.Mesh:
    return jax.make_mesh(shape, names, axis_types=(KINDS[kind],) * len(names))


def problem(name: str) -> tuple[Any, Any, Any]:
    net, x, shape = NETS[name]
    classes = 16 if name == "transformer" else 8
    y = np.random.default_rng(1).integers(0, classes, shape).astype(np.int32)
    return net, (x.astype(np.int32) if name == "transformer" else x), y


def fitted(name: str, opt: optim.Optimizer, **settings: Any) -> train.FitResult:
    net, x, y = problem(name)
    how = {"key": KEY, "epochs": 7, "batch_size": B, "validation": (x[:10], y[:10]), "progress": False} | settings
    return train.fit(net, LOSS, opt, how.pop("train", (x, y)), **how)


def started(name: str, opt: optim.Optimizer) -> train.TrainState:
    net, x, _ = problem(name)

    def make(key: Any) -> train.TrainState:
        params, state = net.init(key, jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        params = jax.tree.map(lambda p: p.astype(jnp.result_type(float)), params)  # of a transformer they are float32
        return train.TrainState(params, state, opt.init(params))

    return jax.jit(make)(jax.random.split(KEY)[0])


def assert_exact(found: train.FitResult, expected: train.FitResult, bound: float = EXACT) -> None:
    for a, b in zip(jax.tree.leaves(found[:3]), jax.tree.leaves(expected[:3]), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=bound, atol=bound)
    for one, other in zip(found.history, expected.history, strict=True):
        for name in ("loss", "validation_loss", "grad_norm"):
            np.testing.assert_allclose(one[name], other[name], rtol=bound)


@functools.cache
def alone(name: str, opt: str) -> train.FitResult:
    with float64():
        return fitted(name, OPTIMIZERS[opt], start=started(name, OPTIMIZERS[opt]))


@pytest.mark.parametrize(
    ("name", "opt", "kind", "fsdp"),
    [("mlp", "adam", "auto", True),
     *slow(*((name, opt, kind, fsdp) for name in NETS for opt in OPTIMIZERS for kind in KINDS
             for fsdp in (False, True)))],
)  # fmt: skip
def test_twenty_steps_are_those_of_one_device(name: str, opt: str, kind: str, fsdp: bool) -> None:
    expected = alone(name, opt)
    with float64():
        start = started(name, OPTIMIZERS[opt])
        if fsdp:
            start = train.shard_params(start, mesh_of(kind), smallest=16)
            before = jax.tree.map(lambda a: a.sharding, start)
        found = fitted(name, OPTIMIZERS[opt], mesh=mesh_of(kind), start=start)
        assert_exact(found, expected)
        if fsdp:
            after = jax.tree.map(lambda a: a.sharding, train.TrainState(*found[:3]))
            for a, b, leaf in zip(*map(jax.tree.leaves, (before, after, start)), strict=True):
                assert a.is_equivalent_to(b, leaf.ndim)


def test_the_state_of_each_device_is_an_eighth() -> None:
    net, opt = models.mlp([784, 512, 512, 10]), optim.adam(1e-3)
    ts = train.shard_params(train.init(net, opt, KEY, (784,)), mesh_of("auto"))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(ts))
    mine = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(ts))
    assert mine < 1.1 * whole / 8


def compiled(fsdp: bool, kind: str, by_hand: bool = False, split_data: bool = False) -> Any:
    """An epoch of an MLP, whose products tell the rows that each device computes."""
    net, opt = models.mlp([64, 256, 128, 8]), optim.adam(1e-3)
    vg = backprop.value_and_grad(net, LOSS) if by_hand else jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True)
    ts = train.init(net, opt, KEY, (64,))
    mesh = mesh_of(kind)
    ts = train.shard_params(ts, mesh) if fsdp else jax.device_put(ts, NamedSharding(mesh, P()))
    spec = NamedSharding(mesh, P("data") if split_data else P())
    x, y = jax.device_put((np.zeros((640, 64), np.float32), np.zeros(640, np.int32)), spec)
    how = {} if split_data else {"mesh": mesh}
    return train.make_epoch(vg, opt, batch_size=160, **how).lower(ts, x, y, KEY).compile().as_text()


def rows_of(text: str) -> set[int]:
    """The number of rows of the products over a batch: those whose result is activations, or errors."""
    shapes = [i.shapes[0].dims for c in hlo_text.parse(text).computations.values() for i in c if is_product(i)]
    return {dims[0] for dims in shapes if dims[0] in (160, 20)}


def is_product(i: Any) -> bool:
    return i.opcode == "dot" or (i.opcode == "custom-call" and "matmul" in str(i.attribute("custom_call_target")))


@pytest.mark.parametrize("by_hand", [False, *slow(True)])
@pytest.mark.parametrize("kind", ["auto", *slow("explicit")])
def test_each_device_computes_its_rows(kind: str, by_hand: bool) -> None:
    text = compiled(False, kind, by_hand)
    assert rows_of(text) == {20}
    arrays = sent(text)
    gradients = {(64, 256), (128, 256), (8, 128)}
    assert {dims for op, dims, _ in arrays if op == "all-reduce" and len(dims) == 2} == gradients
    assert {op for op, _, _ in arrays} == {"all-reduce"}
    assert Counter(text.split())["all-reduce("] <= 1  # one a step, of all gradients and the loss


@pytest.mark.parametrize("by_hand", [False, *slow(True)])
@pytest.mark.parametrize("kind", ["auto", *slow("explicit")])
def test_fsdp_gathers_each_parameter_once(kind: str, by_hand: bool) -> None:
    text = compiled(True, kind, by_hand)
    assert rows_of(text) == {20}
    gathered = Counter(dims for (op, dims, _), n in sent(text).items() for _ in range(n) if op == "all-gather")
    assert gathered == {(64, 256): 4, (128, 256): 4}  # 4 steps; the last layer's 1,024 weights are not split


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_data_that_are_split_split_the_batches(kind: str) -> None:
    assert rows_of(compiled(False, kind, split_data=True)) == {20}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_two_axes_of_data_and_columns_of_the_users(kind: str) -> None:
    """A mesh of 4 x 2: batches over the first axis, the columns of each weight, by the user, over the second."""
    mesh = mesh_of(kind, (4, 2), ("data", "model"))
    with float64():
        opt = OPTIMIZERS["adam"]

        def place(leaf: Any) -> Any:
            spec = P(None, "model") if leaf.ndim == 2 and leaf.shape[1] % 2 == 0 else P()
            return jax.device_put(leaf, NamedSharding(mesh, spec))

        start = jax.tree.map(place, started("mlp", opt))
        found = fitted("mlp", opt, mesh=mesh, axis="data", start=start)
        assert_exact(found, alone("mlp", "adam"))
        assert found.params[0]["w"].sharding.spec == P(None, "model")
        both = fitted("mlp", opt, mesh=mesh, axis=("data", "model"))
        assert_exact(both, alone("mlp", "adam"))


@pytest.mark.parametrize("kind", ["explicit", *slow("auto")])
def test_a_mesh_that_is_set_changes_nothing(kind: str) -> None:
    with float64(), jax.set_mesh(mesh_of(kind)):
        assert_exact(fitted("mlp", OPTIMIZERS["adam"], mesh=mesh_of(kind)), alone("mlp", "adam"))


@pytest.mark.slow
def test_arrays_on_axes_of_another_type_are_converted() -> None:
    with float64():
        _, x, y = problem("mlp")
        there = jax.device_put((x, y), NamedSharding(mesh_of("explicit"), P("data")))
        assert_exact(fitted("mlp", OPTIMIZERS["adam"], mesh=mesh_of("auto"), train=there), alone("mlp", "adam"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_streams_on_a_mesh(kind: str) -> None:
    class Rows:
        def __init__(self, x: Any, y: Any) -> None:
            self.arrays = x, y

        def __len__(self) -> int:
            return N

        def rows(self, indices: Any) -> Any:
            return tuple(a[indices] for a in self.arrays)

    with float64():
        _, x, y = problem("mlp")
        start = train.shard_params(started("mlp", OPTIMIZERS["adam"]), mesh_of(kind), smallest=16)
        found = fitted("mlp", OPTIMIZERS["adam"], mesh=mesh_of(kind), train=Rows(x, y), start=start)
        assert_exact(found, alone("mlp", "adam"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_run_goes_on_with_another_number_of_devices(kind: str, tmp_path: Path) -> None:
    with float64():
        opt = OPTIMIZERS["adam"]
        start = train.shard_params(started("cnn", opt), mesh_of(kind), smallest=16)
        for epochs, how in ((2, {"mesh": mesh_of(kind), "start": start}), (4, {}), (7, {"mesh": mesh_of(kind)})):
            found = fitted("cnn", opt, epochs=epochs, folder=tmp_path, **how)
        assert_exact(found, alone("cnn", "adam"))
        # On the same devices, to the bit.
        a, b = (fitted("cnn", opt, mesh=mesh_of(kind), folder=tmp_path / name, epochs=3) for name in "ab")
        c = fitted("cnn", opt, mesh=mesh_of(kind), folder=tmp_path / "c", epochs=1, save_every=1)
        c = fitted("cnn", opt, mesh=mesh_of(kind), folder=tmp_path / "c", epochs=3, save_every=2)
        for x, y, z in zip(*(jax.tree.leaves(each[:3]) for each in (a, b, c)), strict=True):
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes() == np.asarray(z).tobytes()


@pytest.mark.parametrize("kind", list(KINDS))
def test_parameters_that_lie_along_another_axis_stay_there(kind: str) -> None:
    mesh = mesh_of(kind, (2, 4), ("data", "model"))
    columns = {"w": P(None, "model"), "v": P("model"), "b": P("model")}
    placed = {
        name: jax.device_put(np.ones((16,) if name == "b" else (16, 8), np.float32), NamedSharding(mesh, spec))
        for name, spec in columns.items()
    }
    found = train.shard_params(placed, mesh, "data", smallest=32)
    assert {name: leaf.sharding.spec for name, leaf in found.items()} == {
        "w": P("data", "model"), "v": P("model", "data"), "b": P("model"),
    }  # fmt: skip
    again = train.shard_params(found, mesh, "data", smallest=32)
    assert all(again[name].sharding == leaf.sharding for name, leaf in found.items())


def test_the_batches_of_a_function_are_its_own() -> None:
    """`batch_size`, here of no use, need not be a multiple of the devices."""
    with float64():
        _, x, y = problem("mlp")
        how: dict[str, Any] = {"epochs": 2, "train": lambda at: (x[:16], y[:16]), "steps_per_epoch": 3}
        alone_ = fitted("mlp", OPTIMIZERS["adam"], **how)
        assert_exact(fitted("mlp", OPTIMIZERS["adam"], mesh=mesh_of("auto"), batch_size=20, **how), alone_)


def test_a_batch_that_the_devices_do_not_divide_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"batch_size 20 must be a multiple of the 8 devices of axis 'data': use 16 or"
    ):
        fitted("mlp", OPTIMIZERS["adam"], mesh=mesh_of("auto"), batch_size=20)
    with pytest.raises(ValueError, match=r"axis must be among the mesh's axes, 'data', got 'model'"):
        fitted("mlp", OPTIMIZERS["adam"], mesh=mesh_of("auto"), axis="model")
    batches = [(np.ones((6, 16), np.float32), np.zeros(6, np.int32))] * 2
    with pytest.raises(ValueError, match="batch_size 6 must be a multiple of the 8 devices"):
        fitted("mlp", OPTIMIZERS["adam"], mesh=mesh_of("auto"), train=batches)


def test_axes_of_two_types_are_refused() -> None:
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto, AxisType.Explicit))
    text = "'a' of type Auto, 'b' of type Explicit. Pass one"
    with pytest.raises(ValueError, match=f"fit: the axes that batches and .* must be of one type, got {text}"):
        fitted("mlp", OPTIMIZERS["adam"], mesh=mesh, axis=("a", "b"))
    (net, x, y), opt = problem("mlp"), optim.sgd(0.1)
    data = (x.astype(np.float32), y)
    ts = train.init(net, opt, KEY, data[0][0])
    with pytest.raises(ValueError, match=f"shard_params: .* got {text}"):
        train.shard_params(ts, mesh, ("b", "a"))
    epoch = functools.partial(train.make_epoch, jax.value_and_grad(train.mean_loss(net, LOSS), has_aux=True), opt)
    with pytest.raises(ValueError, match=f"make_epoch: .* got {text}"):
        epoch(batch_size=B)(ts, *jax.device_put(data, NamedSharding(mesh, P(("a", "b")))), KEY)
    ts = train.shard_params(ts, mesh, "b", smallest=1)
    with pytest.raises(ValueError, match=f"mesh: .* got {text}"):  # parameters over the one, batches over the other
        epoch(batch_size=B, mesh=mesh, axis="a")(ts, *data, KEY)
