"""The numbers of the studies against vmap(grad), loops and first-order expansions; small networks, few digits."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

from jaxnn import data, losses, models, optim, studies
from jaxnn.layers import Dense, Dropout, Flatten
from jaxnn.studies import base, clipped, gram, hardest, influence, mislabeled, noise_scale, norms, projections
from tests.helpers import assert_close

DIGITS = data.load("digits")
FEW = data.Splits(*(data.select(part, slice(0, 96)) for part in DIGITS))
NET = models.linear(10)
OPT = optim.adam(1e-2)
TRAINING: dict[str, Any] = {"net": NET, "epochs": 1, "batch_size": 32}


def example_gradients(params: Any, x: Any, y: Any, net: Any = NET) -> np.ndarray:
    """(N, P), the gradient of each example's loss by vmap(grad), all parameters in a row."""

    def loss(params: Any, x: Any, y: Any) -> Any:
        return losses.softmax_cross_entropy(net.predict(params, ((), ()), x[None]), y[None])[0]

    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))(params, x, y)
    return np.concatenate([np.asarray(g, np.float64).reshape(len(x), -1) for g in jax.tree.leaves(grads)], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def initial(net: Any, key: Any) -> Any:
    return net.init(key, (8, 8, 1))


def parameters(examples: data.Dataset, epochs: int) -> Any:
    """The parameters after some epochs, as the studies train them with OPT."""
    *_, last = base.states(NET, examples, OPT, seed=0, epochs=epochs, batch_size=32)
    return last.params


@pytest.fixture(scope="module")
def spoilt() -> mislabeled.Mislabeled:
    return mislabeled.run(DIGITS, net=models.mlp([64, 32, 10]), epochs=8)


@pytest.mark.slow
def test_norms_and_losses_are_those_of_each_example() -> None:
    found = norms.run(FEW, opt=OPT, **TRAINING)
    for epoch in (0, 1):
        params = parameters(FEW.train, epoch)
        gradients = example_gradients(params, FEW.train.x, FEW.train.y)
        np.testing.assert_allclose(found.norms[epoch], np.linalg.norm(gradients, axis=1), rtol=1e-5)
        logits = NET.predict(params, ((), ()), FEW.train.x)
        np.testing.assert_allclose(found.losses[epoch], losses.softmax_cross_entropy(logits, FEW.train.y), rtol=1e-5)


def test_share_of_the_longest() -> None:
    found = norms.Norms(np.array([[1.0, 6.0, 1.0, 2.0]]), np.zeros((1, 4)))
    assert found.share(0.25).tolist() == [0.6]
    assert found.share(0.5).tolist() == [0.8]


@pytest.mark.slow
def test_the_hardest_are_those_of_the_longest_gradients() -> None:
    found = hardest.run(FEW.train, opt=OPT, **TRAINING)
    params = parameters(FEW.train, 1)
    lengths = np.linalg.norm(example_gradients(params, FEW.train.x, FEW.train.y), axis=1)
    np.testing.assert_allclose(found.norms, lengths, rtol=1e-5)
    np.testing.assert_allclose(lengths[found.order], np.sort(lengths)[::-1], rtol=1e-5)
    guesses = np.asarray(NET.predict(params, ((), ()), FEW.train.x)).argmax(axis=1)
    assert found.wrong.tolist() == (guesses != FEW.train.y).tolist()
    assert found.numbers()["errors_among_hardest"] == found.wrong[found.order[: hardest.WRITTEN]].sum()


def test_rank_correlation_is_spearmans() -> None:
    found = hardest.Hardest(FEW.train, np.arange(4), np.array([1.0, 2, 3, 9]), np.array([1.0, 3, 2, 4]), np.zeros(4))
    assert found.rank_correlation() == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_wrong_labels_are_as_many_as_asked_and_wrong() -> None:
    before = DIGITS.train.y.copy()
    made = mislabeled.with_wrong_labels(DIGITS.train, 0.05, seed=1)
    assert (made.y != before).sum() == round(0.05 * len(before))
    assert (DIGITS.train.y == before).all()
    assert 0 <= made.y.min() <= made.y.max() <= 9
    assert (made.y != mislabeled.with_wrong_labels(DIGITS.train, 0.05, seed=2).y).any()


def test_precision_counts_the_wrong_among_the_first() -> None:
    generator = np.random.default_rng(0)
    scores, wrong = generator.random(30), generator.random(30) < 0.3
    order = sorted(range(30), key=lambda i: -scores[i])
    expected = [sum(wrong[i] for i in order[:k]) / k for k in range(1, 31)]
    np.testing.assert_allclose(mislabeled.precision_at(scores, wrong), expected)


@pytest.mark.slow
def test_wrong_labels_are_found_and_a_broken_ranking_finds_none(spoilt: mislabeled.Mislabeled) -> None:
    count, chance = spoilt.wrong.sum(), spoilt.wrong.mean()
    assert count == 63
    for scores in spoilt.scores.values():
        assert spoilt.precision(scores) > 0.7
        assert spoilt.precision(-scores) < chance
        assert spoilt.precision(np.random.default_rng(0).permutation(scores)) < 3 * chance
    assert spoilt.by_epoch()["gradient norm"][0] < 0.3 < 0.7 < spoilt.by_epoch()["gradient norm"][-1]


@pytest.mark.slow
def test_the_spoilt_labels_are_the_ones_trained_on_and_measured() -> None:
    found = mislabeled.run(FEW, fraction=0.2, opt=OPT, **TRAINING)
    x, y = found.examples.x, found.examples.y
    params = parameters(found.examples, 1)
    np.testing.assert_allclose(found.losses[1], losses.softmax_cross_entropy(NET.predict(params, ((), ()), x), y), 1e-5)
    np.testing.assert_allclose(found.norms[1], np.linalg.norm(example_gradients(params, x, y), axis=1), rtol=1e-5)
    assert (found.truth == FEW.train.y).all()


@pytest.mark.slow
def test_noise_scale_of_the_training_set_is_that_of_its_gradients() -> None:
    found = noise_scale.run(FEW, opt=OPT, sizes=(2, 16), drawn=2**14, **TRAINING)
    for epoch in (0, 1):
        gradients = example_gradients(parameters(FEW.train, epoch), FEW.train.x, FEW.train.y)
        np.testing.assert_allclose(found.trace[epoch], gradients.var(axis=0).sum(), rtol=1e-4)
        np.testing.assert_allclose(found.sq_norm[epoch], (gradients.mean(axis=0) ** 2).sum(), rtol=1e-4)
    # Unbiased from any batch size: without the factor N / (N - 1) batches of 2 would give half the trace.
    assert found.moments.tolist() == [0, 1]
    for i in (0, 1):
        np.testing.assert_allclose(found.batch_trace[i], found.trace[i], rtol=0.05)
        np.testing.assert_allclose(found.batch_scale[i], found.scale[i], rtol=0.3)
        np.testing.assert_allclose(found.squares[i], found.sq_norm[i] + found.trace[i] / found.sizes, rtol=0.1)


def test_noise_scale_of_very_many_examples() -> None:
    many = data.make_dataset(np.ones((50_000, 1)), np.arange(50_000) % 2, classes=("a", "b"))
    found = noise_scale.run(many, net=models.linear(2), epochs=0, sizes=(2,), drawn=2)
    weights = np.asarray(next(base.states(models.linear(2), many, OPT, seed=0, epochs=0, batch_size=1)).params[1]["w"])
    share = 1 / (1 + np.exp(weights[0, 1] - weights[0, 0]))
    gradients = np.array([[share - 1, 1 - share], [share, -share]])  # of w; those of b are the same
    np.testing.assert_allclose(found.sq_norm, 2 * (gradients.mean(axis=0) ** 2).sum(), rtol=1e-4)
    np.testing.assert_allclose(found.trace, 2 * gradients.var(axis=0).sum(), rtol=1e-4)


def test_estimates_that_are_not_told_from_noise_are_nan_and_said() -> None:
    ones = np.ones((1, 1))
    found = noise_scale.NoiseScales(ones[0], ones[0], np.array([0]), np.array([4]), ones, -ones)
    assert np.isnan(found.batch_scale).all()
    assert "undetermined (batches of 4)" in found.describe()


def test_clipped_gradient_is_the_mean_of_clipped_gradients() -> None:
    params, state = initial(NET, jax.random.key(0))
    x, y = FEW.train.x, FEW.train.y
    gradients = example_gradients(params, x, y)
    lengths = np.linalg.norm(gradients, axis=1)
    bound = float(np.median(lengths))
    expected = (np.minimum(1, bound / lengths)[:, None] * gradients).mean(axis=0)

    @jax.jit
    def found(params: Any, seeds: Any) -> Any:
        """The value and gradient without noise, gradients with noise, and the mean loss."""
        keys = jax.vmap(jax.random.key)(seeds)
        plain, noisy = (clipped.clipped_value_and_grad(NET, base.LOSS, bound, noise) for noise in (0.0, 2.0))
        (value, _), grads = plain(params, state, x, y, key=keys[0])
        many = jax.vmap(lambda key: noisy(params, state, x, y, key=key)[1])(keys[1:])
        return value, grads, many, base.LOSS(NET.predict(params, state, x), y).mean()

    value, grads, noisy, mean = jax.device_get(found(params, np.arange(3)))
    got = np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
    assert_close(value, mean, rtol=1e-6)
    noises = np.concatenate([g.reshape(2, -1) for g in jax.tree.leaves(noisy)], axis=1) - got
    for noise in noises:
        assert noise.std() * len(x) / bound == pytest.approx(2.0, rel=0.15)
    assert abs(np.corrcoef(noises)[0, 1]) < 0.2


@pytest.mark.slow
def test_clipped_runs_start_alike_and_report_what_is_longer_than_the_bound() -> None:
    gradients = example_gradients(parameters(FEW.train, 0), FEW.train.x, FEW.train.y)
    bound = float(np.quantile(np.linalg.norm(gradients, axis=1), 0.25))
    found = clipped.run(FEW, bound=bound, noise=(0.0, 4.0), opt=OPT, **TRAINING)
    assert found.names == ["plain", "clipped, noise 0", "clipped, noise 4"]
    np.testing.assert_allclose(found.clipped[:, 0], 0.75)
    assert len({*found.losses[:, 0]}) == 1
    assert len({*found.losses[:, 1]}) == 3
    assert found.losses[0, 1] < found.losses[2, 1]
    params = parameters(FEW.train, 1)
    logits = np.asarray(NET.predict(params, ((), ()), FEW.validation.x))
    np.testing.assert_allclose(found.errors[0, 1], (logits.argmax(axis=1) != FEW.validation.y).mean(), rtol=1e-6)
    assert "no privacy guarantee" in found.describe()
    assert "no privacy guarantee" in found.numbers()["note"]
    assert "no privacy guarantee" in clipped.draw(found)["clipped"].get_suptitle()


def test_clipped_gradients_pass_dropout_its_key() -> None:
    net = models.serial(Flatten, Dropout(0.5), Dense(10))
    params, state = initial(net, jax.random.key(0))
    vg = jax.jit(clipped.clipped_value_and_grad(net, base.LOSS, 1.0))
    values = [vg(params, state, FEW.train.x, FEW.train.y, key=jax.random.key(i))[0][0] for i in (0, 1)]
    assert values[0] != values[1]


def test_gram_and_cosines_are_those_of_the_gradients() -> None:
    found = gram.run(FEW, per_class=3, opt=OPT, **TRAINING)
    rows = np.concatenate([np.flatnonzero(FEW.train.y == k)[:3] for k in range(10)])
    assert found.labels.tolist() == FEW.train.y[rows].tolist() == sorted(found.labels)
    gradients = example_gradients(parameters(FEW.train, 1), FEW.train.x[rows], FEW.train.y[rows])
    np.testing.assert_allclose(found.gram, gradients @ gradients.T, rtol=1e-4, atol=1e-4)
    lengths = np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(found.cosines, gradients @ gradients.T / np.outer(lengths, lengths), atol=1e-5)


def test_means_by_class_leave_out_an_example_with_itself() -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 2])
    cosines = generator.random((6, 6))
    found = gram.Gram(("a", "b", "c"), labels, cosines, cosines)
    for a in range(3):
        for b in range(3):
            pairs = [cosines[i, j] for i in range(6) for j in range(6) if i != j and (labels[i], labels[j]) == (a, b)]
            assert found.by_class[a, b] == pytest.approx(np.mean(pairs) if pairs else 0.0)


def test_influence_of_one_step_is_the_products_of_gradients() -> None:
    found = influence.run(FEW, tests=3, net=NET, learning_rate=0.1, epochs=1, batch_size=96)
    params = parameters(FEW.train, 0)
    mine = example_gradients(params, FEW.train.x, FEW.train.y)
    theirs = example_gradients(params, found.tests.x, found.tests.y)
    np.testing.assert_allclose(found.scores, 0.1 / 96 * mine @ theirs.T, rtol=1e-3, atol=1e-6)


def test_influences_add_up_to_the_fall_of_the_losses() -> None:
    found = influence.run(FEW, tests=4, net=NET, learning_rate=2e-3, epochs=20, batch_size=16)
    assert np.abs(found.drops).min() > 0.01
    np.testing.assert_allclose(found.scores.sum(axis=0), found.drops, atol=0.03 * np.abs(found.drops).max())
    helps, _ = found.same_label()
    assert helps > 0.5


def test_the_tests_of_influence_are_the_worst_after_training() -> None:
    found = influence.run(FEW, tests=3, net=NET, learning_rate=0.1, epochs=1, batch_size=96)
    params = parameters(FEW.train, 0)
    step = -0.1 * example_gradients(params, FEW.train.x, FEW.train.y).mean(axis=0)
    b, w = np.asarray(params[1]["b"]) + step[:10], np.asarray(params[1]["w"]) + step[10:].reshape(64, 10)
    logits = FEW.test.x.reshape(96, 64) @ w + b
    after = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(96), FEW.test.y]
    worst = np.argsort(-after)[:3]
    np.testing.assert_array_equal(found.tests.x, FEW.test.x[worst])
    assert found.guesses.tolist() == logits[worst].argmax(axis=1).tolist()


@pytest.mark.slow
def test_projected_products_estimate_those_of_the_gradients() -> None:
    sizes = (8, 650)
    found = projections.run(FEW, tests=3, sizes=(*sizes, 651), opt=OPT, **TRAINING)
    assert found.sizes.tolist() == [*sizes], "of 650 parameters"
    params = parameters(FEW.train, 1)
    mine = example_gradients(params, FEW.train.x, FEW.train.y)
    theirs = example_gradients(params, FEW.test.x, FEW.test.y)
    np.testing.assert_allclose(found.exact, mine @ theirs.T, rtol=1e-3, atol=1e-4)
    # 650 numbers of 650: nothing is lost. Of 8 numbers much is.
    np.testing.assert_allclose(found.projected[1], found.exact, rtol=1e-3, atol=1e-3)
    assert (found.overlaps[1] > 0.99).all()
    assert (found.rank_correlations[1] > 0.99).all()
    scale = np.linalg.norm(mine, axis=1)[:, None] * np.linalg.norm(theirs, axis=1)
    assert 0.1 < np.sqrt(np.mean(((found.projected[0] - found.exact) / scale) ** 2)) < 1
    assert found.overlaps[0].mean() < 0.8
    assert [int(FEW.test.y[j]) for j in found.shown] == [0, 1, 2]


def test_agreement_counts_common_neighbours_and_compares_ranks() -> None:
    exact = np.arange(8.0)[:, None]
    other = exact.copy()
    other[[0, 7]] = other[[7, 0]]  # of the 5 nearest 3, 4, 5, 6, 7 the last is lost
    ranks, overlaps = projections.agreement(exact, [np.stack([exact, other, -exact])])
    np.testing.assert_allclose(ranks[:, 0, 0], [1, 1 - 6 * 2 * 49 / (8 * 63), -1])
    np.testing.assert_allclose(overlaps[:, 0, 0], [1, 0.8, 0.4])


def test_a_pass_in_parts_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ts = next(base.states(NET, FEW.train, OPT, seed=0, epochs=0, batch_size=32))
    whole = base.make_measure(NET)(ts, FEW.train)
    monkeypatch.setattr(base, "MICROBATCH", 40)
    assert_close(base.make_measure(NET)(ts, FEW.train), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_study_is_a_function_of_its_seed() -> None:
    first, second, other = (norms.run(FEW, seed=seed, **TRAINING).norms for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: norms.run(3), TypeError, "expected a name such as 'digits', or data.Splits, got int"),
        (lambda: influence.run(FEW.train), TypeError, "or data.Splits, got Dataset"),
        (lambda: hardest.run("digit"), ValueError, "name must be one of digits"),
        (lambda: hardest.run(data.make_dataset(np.ones((3, 2)), [0, 1, 1])), ValueError, "need class labels"),
        (lambda: hardest.run(data.Splits(*[data.make_dataset(np.ones((3, 2)), [0, 1, 1])] * 3)), ValueError, "need cl"),
        (lambda: mislabeled.run(FEW, fraction=0.001), ValueError, "rounds to none. Use a larger one"),
        (lambda: mislabeled.run(FEW, epochs=0), ValueError, "epochs must be at least 1"),
        (lambda: noise_scale.run(FEW, sizes=(1,)), ValueError, "each of sizes must be at least 2"),
        (lambda: noise_scale.run(FEW, sizes=(8,), drawn=4), ValueError, "at least the largest size, got 4 and 8"),
        (lambda: clipped.run(FEW, noise=(-1.0,)), ValueError, "each of noise must lie in"),
        (lambda: clipped.run(FEW, bound=-1.0), ValueError, "bound must lie in"),
        (lambda: gram.run(FEW, per_class=0), ValueError, "per_class must be at least 1"),
        (lambda: influence.run(FEW, tests=0), ValueError, "tests must be at least 1"),
        (lambda: projections.run(FEW, tests=0), ValueError, "tests must be at least 1"),
        (lambda: projections.run(FEW, sizes=(0,)), ValueError, "each of sizes must be at least 1"),
        (lambda: projections.run(FEW, sizes=(651,), epochs=0, net=NET), ValueError, "at most the 650 parameters"),
        (
            lambda: norms.run(FEW, net=NET, opt=optim.sgd(1e38), epochs=1, batch_size=32),
            ValueError,
            "Use a smaller learning rate",
        ),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_clipped_gradients_take_no_weights() -> None:
    params, state = initial(NET, jax.random.key(0))
    vg = clipped.clipped_value_and_grad(NET, base.LOSS, 1.0)
    with pytest.raises(ValueError, match="weights are not supported"):
        vg(params, state, FEW.train.x, FEW.train.y, key=jax.random.key(0), weights=np.ones(96, np.float32))


@pytest.mark.parametrize("name", studies.__all__)
def test_every_study_has_the_same_anatomy(name: str) -> None:
    module = getattr(studies, name)
    results = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    assert len(results) == 1
    assert callable(results[0].numbers)
    assert callable(results[0].describe)
    assert module.run.__annotations__["return"] == results[0].__name__
    assert module.draw.__annotations__["return"] == "dict[str, Figure]"
