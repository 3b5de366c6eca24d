"""What networks consist of: operations, the table of a transformer, the roles of parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnn import models, optim, tree
from jaxnn.layers import Conv, Dense, Embedding, Flatten, LearnedPositions, Relu
from jaxnn.models.summary import rows


def of(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


TOKENS = of(6, dtype=jnp.int32)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (lambda x, w: x @ w, (of(2, 3), of(3, 4)), 2 * 2 * 3 * 4),
        (lambda x, y: jnp.einsum("nij,njk->nik", x, y), (of(5, 2, 3), of(5, 3, 4)), 5 * 2 * 2 * 3 * 4),
        (lambda x: jnp.sin(x) + x.sum(), (of(7),), 0),
        (lambda x, w: lax.scan(lambda c, _: (c @ w, ()), x, length=5)[0], (of(2, 3), of(3, 3)), 5 * 2 * 2 * 3 * 3),
        (lambda x, w: jax.jit(lambda x: x @ w)(x), (of(2, 3), of(3, 4)), 48),
        (lambda x, w: lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x), (of(2, 3), of(3, 3)), 36),
        (jax.grad(lambda w, x: jnp.sum((x @ w) ** 2)), (of(3, 4), of(2, 3)), 2 * 48),
    ],
)
def test_operations_are_counted(function: Any, arguments: tuple[Any, ...], expected: int) -> None:
    assert models.flops(function, *arguments) == expected


def test_operations_of_a_convolution_and_a_grouped_one() -> None:
    for groups, channels in ((1, 4), (2, 2)):
        net = Conv(6, 3, padding="SAME", groups=groups)
        params, state = jax.eval_shape(lambda net=net: net.init(jax.random.key(0), (5, 5, 4)))
        assert models.flops(net.predict, params, state, of(1, 5, 5, 4)) == 2 * 25 * 6 * 9 * channels


def test_the_table_of_a_transformer_counts_tied_parameters_once() -> None:
    net = models.transformer(7, width=8, depth=2, heads=2)
    table = rows(net, TOKENS)
    params, _ = jax.eval_shape(lambda: net.init(jax.random.key(0), TOKENS))
    assert sum(row.parameters for row in table) == tree.size(params)
    assert [row.parameters for row in table if row.name == "unembedding"] == [0]
    tokens, width = 6, 8
    attention = 2 * tokens * width * 4 * width + 2 * 2 * tokens * tokens * width
    assert [row.flops for row in table] == [
        0, attention, 2 * tokens * 8 * width * width, attention, 2 * tokens * 8 * width * width, 0,
        2 * tokens * width * 7,
    ]  # fmt: skip


def test_a_stack_is_counted_block_by_block() -> None:
    plain, stacked = (models.transformer(7, width=8, depth=3, heads=2, stacked=s) for s in (False, True))
    one, other = (rows(net, TOKENS) for net in (plain, stacked))
    assert sum(row.flops for row in one) == sum(row.flops for row in other)
    assert sum(row.parameters for row in one) == sum(row.parameters for row in other)


def roles(net: Any, example: Any = TOKENS) -> dict[str, str]:
    params, _ = jax.eval_shape(lambda: net.init(jax.random.key(0), example))
    return tree.named_leaves(models.roles(net, params))


def test_roles_of_a_transformer() -> None:
    found = roles(models.transformer(7, width=8, depth=1, heads=2, positions=LearnedPositions(9)))
    assert found.pop("0/w") == "embedding"
    assert found.pop("1/w") == "embedding"
    vectors = {name for name, role in found.items() if role == "vector"}
    assert {name.split("/")[-1] for name in vectors} == {"scale", "q_scale", "k_scale"}
    assert {role for name, role in found.items() if name not in vectors} == {"hidden"}


def test_a_dense_layer_at_the_end_is_the_head_and_no_other() -> None:
    net = models.transformer(7, width=8, depth=1, heads=2, head=Dense(7), stacked=True)
    found = roles(net)
    assert [name for name, role in found.items() if role == "head"] == ["3/w"]
    assert {found[name] for name in found if "scale" in name} == {"vector"}
    shared = Dense(4)
    assert roles(models.serial(Flatten, shared, Relu, shared), of(4)) == {
        "1/b": "vector", "1/w": "hidden", "3/b": "vector", "3/w": "head",
    }  # fmt: skip
    assert set(roles(models.serial(Embedding(7, 4), models.residual(Dense(4)))).values()) == {
        "embedding", "vector", "hidden",
    }  # fmt: skip


@pytest.mark.slow
def test_muon_takes_the_roles() -> None:
    net = models.transformer(7, width=8, depth=2, heads=2, stacked=True)
    params, _ = net.init(jax.random.key(0), TOKENS)
    opt = optim.muon_with_roles(0.02, lambda params: models.roles(net, params), adam_learning_rate=3e-3)
    grads = jax.tree.map(lambda p: jnp.ones_like(p) + jnp.arange(p.size).reshape(p.shape) % 7, params)
    updates, _ = jax.jit(opt.update)(grads, opt.init(params), params)
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))
