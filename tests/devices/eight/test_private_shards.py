"""Private gradients where devices have parts of the parameters: right, or an error that says what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import optim, per_example
from tests.backprop.checking import relative
from tests.devices.eight.test_tape import EXACT, mesh, square
from tests.helpers import float64, slow

SETTINGS: Any = {"clip": 1.0, "noise_multiplier": 1.0, "batch_size": 8}
OTHER_EXAMPLES = r"gradients differ over the mesh axes \['model'\], the examples do not"
NOT_REPLICATED = r"differ over the mesh axes \['data'\], expected them replicated"
KEY = jax.random.key(0)


def numbers(*shape: int) -> Any:
    numbers = np.random.default_rng(len(shape)).standard_normal(shape)
    return numbers.astype(jax.dtypes.canonicalize_dtype(float))


def by_gradient(loss: Callable[..., Any], params: Any, *data: Any) -> Any:
    return per_example.private_grad(per_example.record(loss), **SETTINGS)(params, *data, key=KEY)[0]


def by_step(loss: Callable[..., Any], params: Any, *data: Any) -> Any:
    opt = optim.sgd(0.1)
    step = per_example.dp_sgd(per_example.record(loss), opt, **SETTINGS)
    return step(per_example.PrivateState(params, opt.init(params)), *data, key=KEY)[0].params


def by_sum(loss: Callable[..., Any], params: Any, *data: Any) -> Any:
    clipped = per_example.clipped_grad_of(loss, l2_clip_norm=1.0, keep_batch_dim=False)
    return lax.psum(clipped(params, *data), "data")


PRIVATE = {"private_grad": by_gradient, "dp_sgd": by_step}
WAYS = ["dp_sgd", *slow("private_grad")]
"""The step takes the gradient."""


def on(f: Callable[..., Any], specs: Any, out: Any, *args: Any, **settings: Any) -> Any:
    return jax.jit(
        jax.shard_map(f, mesh=mesh(AxisType.Auto, (4, 2)), in_specs=specs, out_specs=out, **settings),
    )(*args)


def partly_sharded(params: Any, x: Any) -> Any:
    return jnp.sum(params["a"] @ x) * params["b"][0]


@pytest.mark.parametrize("way", [*PRIVATE, "clipped_grad_of"])
def test_shards_of_parameters_and_the_same_examples_raise(way: str) -> None:
    """All shards had the same noise and the bound C sqrt(2), a replicated leaf beside them twice its sum."""
    f = {**PRIVATE, "clipped_grad_of": by_sum}[way]
    p, x = numbers(4, 3), numbers(8, 3)
    with pytest.raises(ValueError, match=f"^{way}: .*{OTHER_EXAMPLES}"):
        on(functools.partial(f, square), (P("model"), P("data")), P("model"), p, x)
    some = {"a": P(), "b": P("model")}
    with pytest.raises(ValueError, match=f"^{way}: .*{OTHER_EXAMPLES}"):
        on(functools.partial(f, partly_sharded), (some, P("data")), some, {"a": p, "b": numbers(2)}, x)


@pytest.mark.parametrize("way", PRIVATE)
def test_a_loss_that_closes_over_shards_raises(way: str) -> None:
    """Every example was counted once for each shard."""

    def f(p: Any, c: Any, x: Any) -> Any:
        return PRIVATE[way](lambda p, x: c[0] * square(p, x), p, x)

    with pytest.raises(ValueError, match=OTHER_EXAMPLES):
        on(f, (P(), P("model"), P("data")), P(), numbers(4, 3), numbers(2), numbers(8, 3))


@pytest.mark.parametrize("way", WAYS)
def test_gathered_parameters_are_replicated_or_raise(way: str) -> None:
    """Each of four devices added all the noise. Gathered as the error says, numbers are those of one device."""
    with float64():
        p, x = numbers(8, 3), numbers(8, 3)

        def gathered(to: str, p: Any, x: Any) -> Any:
            whole = PRIVATE[way](square, lax.all_gather(p, "data", tiled=True, to=to), x)
            return lax.dynamic_slice_in_dim(whole, lax.axis_index("data") * len(p), len(p))

        specs, out = (P("data"), P("data")), P("data")
        with pytest.raises(ValueError, match=f"{NOT_REPLICATED}.*all_gather.*to='invarying'"):
            on(functools.partial(gathered, "varying"), specs, out, p, x)
        found = on(functools.partial(gathered, "invarying"), specs, out, p, x)
        assert relative(found, jax.jit(functools.partial(PRIVATE[way], square))(p, x)) <= EXACT


@pytest.mark.slow
def test_parameters_that_are_not_trained_may_differ() -> None:
    """Frozen ones are no part of the norm or the noise, and may be gathered in any way."""

    def loss(params: Any, x: Any) -> Any:
        return jnp.sum((params["a"] @ x + params["b"]) ** 2)

    def f(params: Any, x: Any) -> Any:
        params = {"a": params["a"], "b": lax.all_gather(params["b"], "data", tiled=True)}
        record = per_example.record(loss, trainable={"a": True, "b": False})
        return per_example.private_grad(record, **SETTINGS)(params, x, key=KEY)[0]["a"]

    with float64():
        params, x = {"a": numbers(4, 3), "b": numbers(4)}, numbers(8, 3)
        found = on(f, ({"a": P(), "b": P("data")}, P("data")), P(), params, x)
        alone = jax.jit(lambda a: by_gradient(lambda a, x: loss({**params, "a": a}, x), a, x))(params["a"])
        assert relative(found, alone) <= EXACT


@pytest.mark.parametrize("way", WAYS)
def test_shards_left_to_the_compiler(way: str) -> None:
    """FSDP and shards over "model", by `NamedSharding` under jit without a mesh set, and in a partial `shard_map`."""
    with float64():
        p, x = numbers(4, 3), numbers(8, 3)

        def f(p: Any, x: Any) -> Any:
            return PRIVATE[way](square, p, x)

        # A new function for each: one compiled for arguments on one device is not asked again.
        alone = jax.jit(lambda *a: f(*a))(p, x)
        where = mesh(AxisType.Auto, (4, 2))
        examples = jax.device_put(x, NamedSharding(where, P("data")))
        for spec in (P("data"), P("model")):
            placed = NamedSharding(where, spec)
            found = jax.jit(lambda *a: f(*a), out_shardings=placed)(jax.device_put(p, placed), examples)
            assert relative(found, alone) <= EXACT
        found = on(f, (P(), P("data")), P(), jax.device_put(p, placed), examples, axis_names={"data"})
        assert found.sharding.spec == P("model")
        assert relative(found, alone) <= EXACT


@pytest.mark.slow
def test_without_checks_each_device_has_a_batch_and_noise_of_its_own() -> None:
    """As documented: with the same key on all, the same noise; nothing is added up."""
    with float64():
        p, x = numbers(4, 3), numbers(8, 3)
        f = functools.partial(by_gradient, square)
        found = on(f, (P(), P("data")), P("data"), p, x, check_vma=False)
        one = jax.jit(f)
        assert relative(found, np.concatenate([one(p, x[i : i + 2]) for i in range(0, 8, 2)])) <= EXACT


def test_single_gradients_that_differ_between_devices_raise() -> None:
    """`optim.dpsgd` gave shards of a model the same noise."""
    opt = optim.dpsgd(0.1, 1.0, 1.0, seed=0)

    def f(p: Any, x: Any) -> Any:
        return opt.update(jax.vmap(jax.grad(square), (None, 0))(p, x), opt.init(p), p)[0]

    with pytest.raises(ValueError, match=r"gradients differ over the mesh axes \['model'\]"):
        on(f, (P("model"), P()), P("model"), numbers(4, 3), numbers(8, 3))
    assert on(f, P(), P(), numbers(4, 3), numbers(8, 3)).shape == (4, 3)
