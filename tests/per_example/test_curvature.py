"""Curvature against the whole matrix: J' H J by `jax.jacrev` and `jax.hessian`, written out, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, per_example
from jaxnn.layers import AveragePool, Conv, Dense, Embedding, Flatten, LayerNorm, MaxPool, Tanh
from jaxnn.models import residual, serial

LABELS = jnp.array([2, 0, 1])


def mlp():
    return serial(Dense(4), Tanh, Dense(3)), (5,), losses.softmax_cross_entropy, LABELS


def cnn():
    net = serial(Conv(3, 2, stride=2, padding="SAME"), Tanh, MaxPool(2), Flatten, Dense(3))
    return net, (5, 5, 2), losses.softmax_cross_entropy, LABELS


def sequence():
    loss = functools.partial(losses.softmax_cross_entropy, ignore_index=-1, label_smoothing=0.1)
    return (
        serial(Dense(4), LayerNorm(), residual(Dense(4)), Dense(3)),
        (2, 5),
        loss,
        jnp.array([[2, 0], [1, -1], [0, 1]]),
    )


def words():
    return serial(Embedding(6, 4), Flatten, Dense(2)), (3,), losses.mse, jnp.ones((3, 2)) / 3


def yes_or_no():
    return (
        serial(Dense(4), Tanh, Dense(2)),
        (5,),
        losses.sigmoid_binary_cross_entropy,
        jnp.array([[0, 1], [1, 1], [0, 0]]),
    )


def grouped():
    net = serial(Conv(4, 2, groups=2), Tanh, AveragePool(2), Flatten, Dense(2, b_init=None))
    return net, (4, 4, 2), losses.half_squared_error, jnp.ones((3, 2))


def robust():  # a loss whose root comes from eigenvectors, and depends on the targets
    return serial(Dense(3), Tanh, Dense(2)), (5,), losses.log_cosh, jnp.array([[0.3, -1.0], [0.0, 2.0], [1.0, 1.0]])


CASES = [mlp, cnn, sequence, words, yes_or_no, grouped, robust]


@functools.cache
def problem(make):
    net, shape, loss, y = make()
    params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.int32) if make is words else shape)
    params = jax.tree.map(lambda p: p.astype(jnp.float64) + 0.1, params)
    x = jax.random.normal(jax.random.key(1), (3, *shape), jnp.float64)
    return net, loss, params, state, jnp.arange(9).reshape(3, 3) % 6 if make is words else x, y


def flat_jacobian(net, params, state, x):
    """(N, outputs, P), parameters in the order of their leaves."""
    rows = jax.jacrev(lambda p: net.predict(p, state, x))(params)
    n = x.shape[0]
    leaves = [j.reshape(n, -1, p.size) for j, p in zip(jax.tree.leaves(rows), jax.tree.leaves(params), strict=True)]
    return jnp.concatenate(leaves, axis=-1)


def output_hessians(loss, outputs, y):
    n = outputs.shape[0]
    each = [jax.hessian(lambda o, i=i: loss(o[None], y[i : i + 1])[0])(outputs[i]) for i in range(n)]
    return jnp.stack(each).reshape(n, outputs[0].size, outputs[0].size)


def whole_ggn(make):
    net, loss, params, state, x, y = problem(make)
    j = flat_jacobian(net, params, state, x)
    h = output_hessians(loss, net.predict(params, state, x), y)
    return np.einsum("nap,nab,nbq->pq", j, h, j) / x.shape[0]


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("make", CASES)
def test_diagonal_and_trace_are_those_of_the_whole_matrix(make):
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(make)
        ggn = whole_ggn(make)
        columns = jax.jit(backprop.ggn_record(net, loss))(params, state, x, y)
        np.testing.assert_allclose(flat(per_example.diag_ggn(columns)), np.diag(ggn), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(per_example.trace(columns), np.trace(ggn), rtol=1e-12)


@pytest.mark.parametrize("make", [mlp, yes_or_no, robust])
def test_kfac_blocks_are_the_ggns_for_one_example_and_one_position(make):
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(make)
        columns = backprop.ggn_record(net, loss)(params, state, x[:1], y[:1])
        j = flat_jacobian(net, params, state, x[:1])
        h = output_hessians(loss, net.predict(params, state, x[:1]), y[:1])
        ggn, start = np.einsum("nap,nab,nbq->pq", j, h, j), 0
        for (place, expand), (_, reduce) in zip(
            per_example.kfac_expand(columns).items(), per_example.kfac_reduce(columns).items(), strict=True
        ):
            d, p = expand.a.shape[0] - 1, expand.g.shape[0]
            # Leaves come as b, w; [w; b] has the bias last.
            order = np.concatenate([np.arange(start + p, start + p + d * p), np.arange(start, start + p)])
            np.testing.assert_allclose(np.kron(expand.a, expand.g), ggn[np.ix_(order, order)], rtol=1e-11, atol=1e-15)
            np.testing.assert_allclose(np.kron(reduce.a, reduce.g), ggn[np.ix_(order, order)], rtol=1e-11, atol=1e-15)
            assert place in ("[0]", "[2]")
            start += d * p + p
        assert start == ggn.shape[0]


def test_kfac_expand_and_reduce_of_a_convolution_follow_their_definitions():
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(cnn)
        columns = backprop.ggn_record(net, loss)(params, state, x, y)
        use = columns.tape.uses[1][0]
        delta = np.asarray(use.delta)  # (C, N, 3, 3, 3)
        windows = np.pad(np.asarray(use.a), ((0, 0), (0, 1), (0, 1), (0, 0)))  # SAME: 5 -> 3 by 2, kernel 2
        patches = np.stack(
            [windows[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(3, -1) for i in range(3) for j in range(3)], 1
        )
        ones = np.concatenate([patches, np.ones((3, 9, 1))], -1)
        expand, reduce = per_example.kfac_expand(columns)["[0]"], per_example.kfac_reduce(columns)["[0]"]
        np.testing.assert_allclose(expand.a, np.einsum("ntd,nte->de", ones, ones) / 27, rtol=1e-12)
        np.testing.assert_allclose(expand.g, np.einsum("cnijp,cnijq->pq", delta, delta) / 3, rtol=1e-11, atol=1e-16)
        np.testing.assert_allclose(reduce.a, np.einsum("nd,ne->de", ones.mean(1), ones.mean(1)) / 3, rtol=1e-12)
        total = delta.sum((2, 3))
        np.testing.assert_allclose(reduce.g, np.einsum("cnp,cnq->pq", total, total) / 3, rtol=1e-11, atol=1e-16)


def test_kfac_leaves_out_layers_without_a_block():
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(sequence)
        assert list(per_example.kfac_expand(backprop.ggn_record(net, loss)(params, state, x, y))) == [
            "[0]",
            "[2][0][0]",
            "[3]",
        ]
        net, loss, params, state, x, y = problem(grouped)
        factors = per_example.kfac_expand(backprop.ggn_record(net, loss)(params, state, x, y))
        assert {place: f.a.shape for place, f in factors.items()} == {"[4]": (4, 4)}  # no bias, no row for it


@pytest.mark.parametrize("make", [mlp, sequence, yes_or_no, words, robust, grouped])
def test_sampled_columns_have_the_ggn_as_their_mean(make):
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(make)
        exact = flat(per_example.diag_ggn(backprop.ggn_record(net, loss)(params, state, x, y)))
        recorded = backprop.ggn_record(net, loss, samples=4000)
        sampled = flat(per_example.diag_ggn(jax.jit(recorded)(params, state, x, y, key=jax.random.key(3))))
        np.testing.assert_allclose(sampled, exact, rtol=0.2, atol=0.05 * exact.mean())
        np.testing.assert_allclose(sampled.sum(), exact.sum(), rtol=0.05)


@pytest.mark.parametrize(
    ("loss", "outputs", "y"),
    [
        (losses.softmax_cross_entropy, (3,), LABELS),
        (losses.softmax_cross_entropy, (3,), jnp.array([[0.2, 0.5, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])),
        (functools.partial(losses.softmax_cross_entropy, ignore_index=9), (2, 3), jnp.array([[9, 1], [2, 2], [9, 9]])),
        (losses.sigmoid_binary_cross_entropy, (2, 2), jnp.ones((3, 2, 2)) / 4),
        (losses.half_squared_error, (), jnp.ones(3)),
        (losses.mse, (2, 3), jnp.ones((3, 2, 3))),
        (losses.logistic, (2,), jnp.array([[1, -1], [1, 1], [-1, -1]])),
        (functools.partial(losses.huber, delta=0.5), (4,), jnp.zeros((3, 4))),
        (lambda y, d: jnp.sum(jnp.cosh(y - d[:, None] * jnp.roll(y, 1, -1)), -1), (3,), jnp.ones(3) / 3),
    ],
)
def test_roots_of_the_losses(loss, outputs, y):
    with jax.enable_x64(True):
        z = jax.random.normal(jax.random.key(0), (3, *outputs), jnp.float64)
        root = jax.jit(losses.hessian_root_of(loss))(z, y)
        columns = np.asarray(root).reshape(root.shape[0], 3, -1)
        hessians = output_hessians(loss, z, y)
        np.testing.assert_allclose(np.einsum("cna,cnb->nab", columns, columns), hessians, atol=1e-12)
        sample = losses.sampled_error_of(loss)
        drawn = jax.vmap(lambda key: sample(key, z, y))(jax.random.split(jax.random.key(1), 20000)).reshape(
            20000, 3, -1
        )
        moments = np.einsum("sna,snb->nab", drawn, drawn) / 20000
        np.testing.assert_allclose(moments, hessians, atol=0.05 * max(1.0, float(jnp.abs(hessians).max())))


def test_a_hessian_with_negative_eigenvalues_loses_them():
    def saddle(y, d):
        return y[:, 0] ** 2 - y[:, 1] ** 2 + d

    root = losses.hessian_root_of(saddle)(jnp.ones((1, 2)), jnp.zeros(1))
    np.testing.assert_allclose(np.einsum("cna,cnb->ab", root, root), [[2, 0], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("make", [mlp, cnn, words])
def test_ntk_is_the_product_of_jacobians(make):
    with jax.enable_x64(True):
        net, _, params, state, x, _ = problem(make)
        recorded = backprop.output_record(net)
        j = np.asarray(flat_jacobian(net, params, state, x))
        columns = recorded(params, state, x)
        np.testing.assert_allclose(per_example.ntk(columns), np.einsum("ncp,mdp->nmcd", j, j), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(
            per_example.ntk(columns, recorded(params, state, x[:2])),
            np.einsum("ncp,mdp->nmcd", j, j[:2]),
            rtol=1e-10,
            atol=1e-12,
        )


def test_float32_is_right_to_its_digits():
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(cnn)
        ggn = whole_ggn(cnn)
    params, x = jax.tree.map(lambda v: v.astype(jnp.float32), (params, x))
    found = per_example.diag_ggn(backprop.ggn_record(net, loss)(params, state, x, y))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    np.testing.assert_allclose(flat(found), np.diag(ggn), rtol=1e-4, atol=1e-6 * np.diag(ggn).max())


def test_empirical_fisher_is_the_second_moment_and_not_the_fisher():
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(mlp)
        tape = backprop.record(net, loss)(params, state, x, y)
        empirical = flat(per_example.empirical_fisher_diag(tape))
        np.testing.assert_allclose(empirical, flat(per_example.second_moment(tape)))
        fisher = flat(per_example.diag_fisher(backprop.ggn_record(net, loss)(params, state, x, y)))
        assert np.abs(fisher - empirical).max() > 0.1 * fisher.max()


def test_bad_input():
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(mlp)
        with pytest.raises(ValueError, match="samples=2 draws random errors and needs a key"):
            backprop.ggn_record(net, loss, samples=2)(params, state, x, y)
        with pytest.raises(ValueError, match="samples must be"):
            backprop.ggn_record(net, loss, samples=0)
        with pytest.raises(TypeError, match="loss"):
            backprop.ggn_record(net, "mse")
        net, loss, params, state, x, y = problem(robust)
        with pytest.raises(ValueError, match="-log of a probability"):
            per_example.diag_fisher(backprop.ggn_record(net, loss)(params, state, x, y))
