"""Noise scale and microbatches inside `shard_map`: the estimates of the batch on all devices."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxnn.per_example import (
    NoiseScale,
    SecondMoment,
    SqNorms,
    Variance,
    microbatched_value_and_grad,
    noise_scale_of,
    value_and_grad,
    variance_of,
)

X = np.random.default_rng(0).standard_normal((48, 5)).astype(np.float32)
PARAMS = {"w": np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32), "b": np.ones(3, np.float32)}
BY = {"matrix": "['w']", "bias": "['b']"}


def loss(params: Any, x: Any) -> Any:
    return jax.numpy.sum(jax.numpy.tanh(x @ params["w"] + params["b"]))


@pytest.mark.parametrize("padded", [False, True])
def test_the_noise_scale_is_that_of_the_batch_on_all_devices(padded: bool) -> None:
    weights = np.ones(48, np.float32)
    weights[[0, 7, 8, *range(20, 27)] if padded else []] = 0
    asked = (SqNorms(), SqNorms(BY), SecondMoment())
    whole, parts = value_and_grad(loss, asked), microbatched_value_and_grad(loss, asked, size=4)

    def noises(vg: Any, params: Any, x: Any, weights: Any) -> Any:
        (_, (each, by, _)), total = vg(params, x, weights=weights)
        count = weights.sum()
        return noise_scale_of(each, total, examples=count), noise_scale_of(by, total, examples=count, by=BY), each

    mesh, rows = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), P("data")
    mapped = jax.shard_map(
        lambda *args: noises(parts, *args), mesh=mesh, in_specs=(P(), rows, rows), out_specs=(P(), P(), rows)
    )
    expected, got = noises(whole, PARAMS, X, weights), jax.jit(mapped)(PARAMS, X, weights)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    # The mutant: the mean of the devices' own estimates.
    own = [noises(whole, PARAMS, x, w)[0] for x, w in zip(X.reshape(8, 6, 5), weights.reshape(8, 6), strict=True)]
    mean = NoiseScale(*np.mean(np.asarray(own), axis=0))
    assert abs(float(mean.trace / got[0].trace) - 1) > 1e-3


def test_devices_add_up_once_after_the_microbatches() -> None:
    mesh, rows = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), P("data")
    vg = microbatched_value_and_grad(loss, size=2)
    mapped = jax.shard_map(lambda *args: vg(*args)[1], mesh=mesh, in_specs=(P(), rows), out_specs=P())
    text = jax.jit(mapped).lower(PARAMS, X).as_text()
    body = text[text.index("while") :]
    assert "all_reduce" in text
    assert "all_reduce" not in body[: body.index("stablehlo.return", body.index("do {"))]


def test_a_variance_of_own_and_of_all_examples_raises() -> None:
    """The gradient of replicated parameters is summed over the devices, a second moment is not."""

    def variance(average: bool, params: Any, x: Any) -> Any:
        (_, moment), total = value_and_grad(loss, SecondMoment())(params, x)
        if average:
            moment = jax.tree.map(lambda m: jax.lax.pmean(m, "data"), moment)
        return variance_of(total, moment, len(X))

    def spread(average: bool) -> Any:
        mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
        run = jax.shard_map(lambda *args: variance(average, *args), mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
        return jax.jit(run)(PARAMS, X)

    with pytest.raises(ValueError, match=r"summed over the mesh axes \['data'\].*jax.lax.pmean"):
        spread(average=False)
    for a, b in zip(jax.tree.leaves(spread(True)), jax.tree.leaves(variance_alone()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def variance_alone() -> Any:
    return value_and_grad(loss, Variance())(PARAMS, X)[0][1]
