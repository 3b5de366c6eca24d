"""Curvature against the whole matrix: J' H J by `jax.jacrev` and `jax.hessian`, written out, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import backprop, losses, per_example
from jaxnn.initializers import zeros
from jaxnn.layers import (
    GRU,
    LSTM,
    RNN,
    AveragePool,
    Conv,
    Dense,
    Embedding,
    Flatten,
    Kind,
    LastPosition,
    LayerNorm,
    LinearRecurrence,
    MaxPool,
    Reversed,
    Tanh,
    stateless,
)
from jaxnn.losses.mean import combined_weights
from jaxnn.models import residual, serial, stack, transformer
from jaxnn.tape import Addition, Product
from tests.helpers import slow, strict

LABELS = np.array([2, 0, 1])


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
        np.array([[2, 0], [1, -1], [0, 1]]),
    )


def words():
    return serial(Embedding(6, 4), Flatten, Dense(2)), (3,), losses.mse, np.ones((3, 2)) / 3


def yes_or_no():
    return (
        serial(Dense(4), Tanh, Dense(2)),
        (5,),
        losses.sigmoid_binary_cross_entropy,
        np.array([[0, 1], [1, 1], [0, 0]]),
    )


def grouped():
    net = serial(Conv(4, 2, groups=2), Tanh, AveragePool(2), Flatten, Dense(2, b_init=None))
    return net, (4, 4, 2), losses.half_squared_error, np.ones((3, 2))


def robust():  # a loss whose root comes from eigenvectors, and depends on the targets
    return serial(Dense(3), Tanh, Dense(2)), (5,), losses.log_cosh, np.array([[0.3, -1.0], [0.0, 2.0], [1.0, 1.0]])


def recurrent():
    net = serial(LSTM(2), Reversed(GRU(2)), GRU(2, reset_after=False), LinearRecurrence(2), RNN(3), LastPosition)
    return net, (3, 2), losses.softmax_cross_entropy, LABELS


def decoder():  # a tied table, used by a lookup and, transposed, by a product
    net = transformer(4, width=4, depth=1, heads=2)
    return net, (3,), losses.softmax_cross_entropy, np.array([[2, 0, 1], [1, 3, 3], [0, 1, 2]])


def stacked_encoder():
    net = transformer(4, width=4, depth=2, heads=1, causal=False, pad=0, stacked=True)
    return net, (3,), losses.softmax_cross_entropy, np.array([[2, 0, 1], [1, 3, 3], [0, 1, 2]])


CASES = [mlp, cnn, sequence, words, yes_or_no, grouped, robust, recurrent, decoder, stacked_encoder]
OF_WORDS = {words: 6, decoder: 4, stacked_encoder: 4}
"""The problems whose inputs are words, and how many words there are."""


@functools.cache
def problem(make):
    net, shape, loss, y = make()
    example = jax.ShapeDtypeStruct(shape, jnp.int32) if make in OF_WORDS else shape
    params, state = jax.jit(lambda key: net.init(key, example))(jax.random.key(0))
    moved = np.random.default_rng(2)  # output projections of transformers start at 0
    params = jax.tree.map(lambda p: np.asarray(p, np.float64) + 0.1 + 0.1 * moved.standard_normal(p.shape), params)
    x = (
        np.arange(9).reshape(3, 3) % OF_WORDS[make]
        if make in OF_WORDS
        else np.random.default_rng(1).standard_normal((3, *shape))
    )
    return net, loss, params, state, x, y


def flat_jacobian(net, params, state, x):
    """(N, outputs, P), parameters in the order of their leaves."""
    rows = jax.jacrev(lambda p: net.predict(p, state, x))(params)
    n = x.shape[0]
    leaves = [j.reshape(n, -1, p.size) for j, p in zip(jax.tree.leaves(rows), jax.tree.leaves(params), strict=True)]
    return jnp.concatenate(leaves, axis=-1)


def output_hessians(loss, outputs, y):
    each = jax.vmap(jax.hessian(lambda o, d: loss(o[None], d[None])[0]))(outputs, y)
    return each.reshape(outputs.shape[0], outputs[0].size, outputs[0].size)


@functools.cache
def solved(make, examples=3):
    """The columns of a problem, what is made of them, and the Jacobian and whole GGN by autodiff: one program."""
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(make)

        @jax.jit
        def all_of(params, x, y):
            columns = backprop.ggn_record(net, loss)(params, state, x, y)
            j = flat_jacobian(net, params, state, x)
            h = output_hessians(loss, net.predict(params, state, x), y)
            return {
                "columns": columns,
                "diagonal": per_example.diag_ggn(columns),
                "trace": per_example.trace(columns),
                "expand": per_example.kfac_expand(columns),
                "reduce": per_example.kfac_reduce(columns),
                "jacobian": j,
                "ggn": jnp.einsum("nap,nab,nbq->pq", j, h, j) / x.shape[0],
            }

        return jax.tree.map(np.asarray, all_of(params, x[:examples], y[:examples]))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("make", [sequence, *slow(*(case for case in CASES if case is not sequence))])
def test_diagonal_and_trace_are_those_of_the_whole_matrix(make):
    found = solved(make)
    np.testing.assert_allclose(flat(found["diagonal"]), np.diag(found["ggn"]), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found["trace"], np.trace(found["ggn"]), rtol=1e-12)


@pytest.mark.parametrize("make", [mlp, *slow(yes_or_no, robust)])
def test_kfac_blocks_are_the_ggns_for_one_example_and_one_position(make):
    found = solved(make, 1)
    ggn, start = found["ggn"], 0
    for (place, expand), (_, reduce) in zip(found["expand"].items(), found["reduce"].items(), strict=True):
        d, p = expand.a.shape[0] - 1, expand.g.shape[0]
        # Leaves come as b, w; [w; b] has the bias last.
        order = np.concatenate([np.arange(start + p, start + p + d * p), np.arange(start, start + p)])
        np.testing.assert_allclose(np.kron(expand.a, expand.g), ggn[np.ix_(order, order)], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(np.kron(reduce.a, reduce.g), ggn[np.ix_(order, order)], rtol=1e-11, atol=1e-15)
        assert place in ("[0]", "[2]")
        start += d * p + p
    assert start == ggn.shape[0]


@pytest.mark.slow
def test_kfac_expand_and_reduce_of_a_convolution_follow_their_definitions():
    found = solved(cnn)
    use = found["columns"].tape.uses[1][0]
    windows = np.pad(use.a, ((0, 0), (0, 1), (0, 1), (0, 0)))  # SAME: 5 -> 3 by 2, kernel 2
    patches = np.stack(
        [windows[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(3, -1) for i in range(3) for j in range(3)], 1
    )
    ones = np.concatenate([patches, np.ones((3, 9, 1))], -1)
    expand, reduce = found["expand"]["[0]"], found["reduce"]["[0]"]
    np.testing.assert_allclose(expand.a, np.einsum("ntd,nte->de", ones, ones) / 27, rtol=1e-12)
    np.testing.assert_allclose(expand.g, np.einsum("cnijp,cnijq->pq", use.delta, use.delta) / 3, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(reduce.a, np.einsum("nd,ne->de", ones.mean(1), ones.mean(1)) / 3, rtol=1e-12)
    total = use.delta.sum((2, 3))
    np.testing.assert_allclose(reduce.g, np.einsum("cnp,cnq->pq", total, total) / 3, rtol=1e-11, atol=1e-16)


def test_roots_and_weights_under_strict_promotion_of_dtypes_and_ranks():
    with jax.enable_x64(True), strict():
        z = jnp.ones((2, 3, 4))
        root = losses.hessian_root_of(losses.softmax_cross_entropy)(z, jnp.zeros((2, 3), jnp.int32))
        assert root.shape == (12, 2, 3, 4)
        assert combined_weights(jnp.ones(2, jnp.float32), np.array([2.0, 3.0])).tolist() == [2.0, 3.0]


@pytest.mark.slow
def test_kfac_of_attention_has_a_block_for_each_matrix():
    """By their own paths; expand and reduce by their definitions, with the inputs and cotangents on the tape."""
    found = solved(decoder)
    tape = found["columns"].tape
    of = dict(zip(tape.paths, tape.uses, strict=True))
    places = [f"[1][0][0][1]['w{name}']" for name in "koqv"]
    assert list(found["expand"]) == [*places, "[1][1][0][1][0]", "[1][1][0][1][2]"]  # not the tied table
    for place in places:
        (use,) = of[place]
        (n, t, _), expand, reduce = use.a.shape, found["expand"][place], found["reduce"][place]
        np.testing.assert_allclose(expand.a, np.einsum("ntd,nte->de", use.a, use.a) / (n * t), rtol=1e-12)
        np.testing.assert_allclose(expand.g, np.einsum("cntp,cntq->pq", use.delta, use.delta) / n, atol=1e-13)
        mean, total = use.a.mean(1), use.delta.sum(2)
        np.testing.assert_allclose(reduce.a, np.einsum("nd,ne->de", mean, mean) / n, rtol=1e-12)
        np.testing.assert_allclose(reduce.g, np.einsum("cnp,cnq->pq", total, total) / n, atol=1e-13)


@pytest.mark.slow
def test_kfac_blocks_of_a_decoder_of_one_word_are_the_ggns():
    def one_word():
        return transformer(4, width=4, depth=1, heads=2), (1,), losses.softmax_cross_entropy, np.array([[2]])

    OF_WORDS[one_word] = 4
    net, loss, params, state, x, y = problem(one_word)
    with jax.enable_x64(True):

        @jax.jit
        def both(params, x, y):
            j, h = flat_jacobian(net, params, state, x), output_hessians(loss, net.predict(params, state, x), y)
            columns = backprop.ggn_record(net, loss)(params, state, x, y)
            return per_example.kfac_expand(columns), jnp.einsum("nap,nab,nbq->pq", j, h, j)

        factors, ggn = both(params, x[:1, :1], y)
    start, compared = 0, 0
    for path, p in jax.tree_util.tree_leaves_with_path(params):
        name, here = jax.tree_util.keystr(path), slice(start, start + p.size)
        start += p.size
        for place, found in factors.items():
            if name in (place, f"{place}['w']"):
                np.testing.assert_allclose(np.kron(found.a, found.g), ggn[here, here], rtol=1e-10, atol=1e-13)
                compared += 1
    assert compared == 6


@pytest.mark.parametrize("biased", [True, *slow(False)])
def test_kfac_of_a_stack_has_the_factors_of_each_block(biased):
    """Those of the same blocks one after the other."""
    block = residual(Dense(4, b_init=zeros if biased else None), Tanh)
    apart, one = (serial(*blocks, Dense(3)) for blocks in ([block] * 2, [stack(block, 2)]))
    with jax.enable_x64(True):
        drawn = np.random.default_rng(0)
        params = jax.tree.map(lambda p: drawn.standard_normal(p.shape), apart.init(jax.random.key(0), (2, 4))[0])
        stacked = (jax.tree.map(lambda *of_blocks: np.stack(of_blocks), *params[:2]), params[2])
        x = np.random.default_rng(1).standard_normal((3, 2, 4))

        def factors(net, params):
            columns = backprop.ggn_record(net, losses.softmax_cross_entropy)(params, (), x, np.array([[2, 0]] * 3))
            return per_example.kfac_expand(columns), per_example.kfac_reduce(columns)

        found, expected = jax.jit(lambda: (factors(one, stacked), factors(apart, params)))()
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == ["[0][0][0]", "[1]"]
        for i, place in enumerate(("[0][0][0]", "[1][0][0]")):
            assert ours["[0][0][0]"].a.shape == (2, 4 + biased, 4 + biased)
            np.testing.assert_allclose(ours["[0][0][0]"].a[i], theirs[place].a, rtol=1e-12)
            np.testing.assert_allclose(ours["[0][0][0]"].g[i], theirs[place].g, rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(ours["[1]"].a, theirs["[2]"].a, rtol=1e-12)


def test_kfac_leaves_out_layers_without_a_block():
    assert list(solved(sequence)["expand"]) == ["[0]", "[2][0][0]", "[3]"]


@pytest.mark.slow
def test_kfac_of_recurrent_layers_has_both_products_at_all_positions():
    found = solved(recurrent)
    assert list(found["expand"]) == [
        "[0]['u']", "[0]['w']", "[1][0]['u']", "[1][0]['w']", "[2]", "[3]", "[4]['u']", "[4]['w']",
    ]  # fmt: skip
    use = found["columns"].tape.uses[found["columns"].tape.paths.index("[0]['u']")][0]
    assert not np.any(use.a[:, 0])  # nothing stands before position 0
    np.testing.assert_allclose(found["expand"]["[0]['u']"].a, np.einsum("ntd,nte->de", use.a, use.a) / 9, rtol=1e-12)


def test_kfac_of_a_layer_with_two_weights_has_both():
    def uses(layer, params, x, dy):
        return {name: (Product(x[:, None], dy[:, None]),) for name in "uv"} | {"b": (Addition(dy[:, None]),)}

    kind = Kind("two weights")
    backprop.register(kind, backprop.Rule(backprop.keep_input, lambda layer, p, x, dy: dy @ (p["u"] + p["v"]).T, uses))
    net = stateless(kind, lambda p, x: x @ (p["u"] + p["v"]) + p["b"], lambda key, example: ())
    params = {"u": jnp.ones((4, 3)), "v": jnp.ones((4, 3)), "b": jnp.ones(3)}
    columns = backprop.ggn_record(net, losses.softmax_cross_entropy)(params, (), jnp.ones((2, 4)), jnp.array([0, 2]))
    for factors in (per_example.kfac_expand(columns), per_example.kfac_reduce(columns)):
        assert {path: f.a.shape for path, f in factors.items()} == {"['u']": (4, 4), "['v']": (4, 4)}


@pytest.mark.slow
def test_kfac_leaves_out_grouped_convolutions_and_the_row_of_no_bias():
    assert {place: f.a.shape for place, f in solved(grouped)["expand"].items()} == {"[4]": (4, 4)}


@pytest.mark.parametrize("make", [mlp, *slow(sequence, yes_or_no, words, robust, grouped)])
def test_sampled_columns_have_the_ggn_as_their_mean(make):
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(make)
        exact = flat(solved(make)["diagonal"])
        recorded = backprop.ggn_record(net, loss, samples=4000)
        diagonal = jax.jit(lambda *batch, key: per_example.diag_ggn(recorded(*batch, key=key)))
        sampled = flat(diagonal(params, state, x, y, key=jax.random.key(3)))
        np.testing.assert_allclose(sampled, exact, rtol=0.2, atol=0.05 * exact.mean())
        np.testing.assert_allclose(sampled.sum(), exact.sum(), rtol=0.05)


@pytest.mark.parametrize(
    ("loss", "outputs", "y"),
    [
        (functools.partial(losses.softmax_cross_entropy, ignore_index=9), (2, 3), np.array([[9, 1], [2, 2], [9, 9]])),
        (lambda y, d: jnp.sum(jnp.cosh(y - d[:, None] * jnp.roll(y, 1, -1)), -1), (3,), np.ones(3) / 3),
        *slow(
            (losses.mse, (2, 3), np.ones((3, 2, 3))),
            (losses.sum_squared_error, (2, 3), np.ones((3, 2, 3))),
            (losses.softmax_cross_entropy, (3,), LABELS),
            (losses.softmax_cross_entropy, (3,), np.array([[0.2, 0.5, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])),
            (losses.sigmoid_binary_cross_entropy, (2, 2), np.ones((3, 2, 2)) / 4),
            (losses.half_squared_error, (), np.ones(3)),
            (losses.logistic, (2,), np.array([[1, -1], [1, 1], [-1, -1]])),
            (functools.partial(losses.huber, delta=0.5), (4,), np.zeros((3, 4))),
        ),
    ],
)
def test_roots_of_the_losses(loss, outputs, y):
    with jax.enable_x64(True):
        z = np.random.default_rng(0).standard_normal((3, *outputs))
        sample = losses.sampled_error_of(loss)

        @jax.jit
        def all_of(z):
            each = jax.vmap(lambda key: sample(key, z, y))(jax.random.split(jax.random.key(1), 20000))
            return losses.hessian_root_of(loss)(z, y), output_hessians(loss, z, y), each.reshape(20000, 3, -1)

        root, hessians, drawn = map(np.asarray, all_of(z))
        columns = root.reshape(root.shape[0], 3, -1)
        np.testing.assert_allclose(np.einsum("cna,cnb->nab", columns, columns), hessians, atol=1e-12)
        moments = np.einsum("sna,snb->nab", drawn, drawn) / 20000
        np.testing.assert_allclose(moments, hessians, atol=0.05 * max(1.0, np.abs(hessians).max()))


@pytest.mark.slow
def test_a_hessian_with_negative_eigenvalues_loses_them():
    def saddle(y, d):
        return y[:, 0] ** 2 - y[:, 1] ** 2 + d

    root = losses.hessian_root_of(saddle)(jnp.ones((1, 2)), jnp.zeros(1))
    np.testing.assert_allclose(np.einsum("cna,cnb->ab", root, root), [[2, 0], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("make", [mlp, *slow(words, cnn, decoder, stacked_encoder)])
def test_ntk_is_the_product_of_jacobians(make):
    with jax.enable_x64(True):
        net, _, params, state, x, _ = problem(make)
        recorded = backprop.output_record(net)

        @jax.jit
        def kernels(params, x):
            columns = recorded(params, state, x)
            return per_example.ntk(columns), per_example.ntk(columns, recorded(params, state, x[:2]))

        square, rectangular = kernels(params, x)
    expected = np.einsum("ncp,mdp->nmcd", solved(make)["jacobian"], solved(make)["jacobian"])
    np.testing.assert_allclose(square, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(rectangular, expected[:, :2], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_float32_is_right_to_its_digits():
    expected = np.diag(solved(cnn)["ggn"])
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(cnn)
    params, x = jax.tree.map(lambda v: v.astype(jnp.float32), (params, x))
    found = jax.jit(lambda *batch: per_example.diag_ggn(backprop.ggn_record(net, loss)(*batch)))(params, state, x, y)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    np.testing.assert_allclose(flat(found), expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_empirical_fisher_is_the_second_moment_and_not_the_fisher():
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(mlp)

        @jax.jit
        def both(params, x):
            tape = backprop.record(net, loss)(params, state, x, y)
            return per_example.empirical_fisher_diag(tape), per_example.second_moment(tape)

        empirical, moment = map(flat, both(params, x))
        np.testing.assert_allclose(empirical, moment)
        fisher = flat(jax.jit(per_example.diag_fisher)(solved(mlp)["columns"]))
        np.testing.assert_allclose(fisher, flat(solved(mlp)["diagonal"]))
        assert np.abs(fisher - empirical).max() > 0.1 * fisher.max()


@pytest.mark.slow
def test_bad_input():
    with jax.enable_x64(True):
        net, loss, params, state, x, y = problem(mlp)
        with pytest.raises(ValueError, match="samples=2 draws random cotangents and needs a key"):
            backprop.ggn_record(net, loss, samples=2)(params, state, x, y)
        with pytest.raises(ValueError, match="samples must be"):
            backprop.ggn_record(net, loss, samples=0)
        with pytest.raises(TypeError, match="loss"):
            backprop.ggn_record(net, "mse")
        net, loss, params, state, x, y = problem(robust)
        with pytest.raises(ValueError, match="-log of a probability"):
            per_example.diag_fisher(jax.eval_shape(backprop.ggn_record(net, loss), params, state, x, y))
