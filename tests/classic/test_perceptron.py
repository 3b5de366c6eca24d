"""Rosenblatt's rule: against a transcription in NumPy, within Novikoff's bound, and honest where it cannot converge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.classic import multiclass, perceptron
from jaxnn.classic.neurons import with_bias
from tests.helpers import assert_close, float64, random, strict

CORNERS = np.array([[1.0, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]])
XOR = np.array([-1.0, 1, 1, -1])
PROBLEMS, N, D = 1000, 30, 6


def transcribed(x: np.ndarray, y: np.ndarray, passes: int) -> tuple[np.ndarray, list[np.ndarray], int, int, bool]:
    """Rosenblatt's algorithm in Python: last weights, those after each step, mistakes, passes, converged."""
    w, steps, mistakes = np.zeros(x.shape[1]), [], 0
    for count in range(1, passes + 1):
        before = mistakes
        for features, label in zip(x, y, strict=True):
            if (1 if w @ features >= 0 else -1) != label:
                w = w + label * features
                mistakes += 1
            steps.append(w)
        if mistakes == before:
            return w, steps, mistakes, count, True
    return w, steps, mistakes, passes, False


def problem(key: Any, gap: Any) -> tuple[Any, Any, Any]:
    """A random problem and weights that separate it by more than `gap`, by construction: (x, y, w)."""
    key_x, key_w, key_y = jax.random.split(key, 3)
    w = jax.random.normal(key_w, (D,))
    w = w / jnp.linalg.norm(w)
    y = jnp.where(jax.random.bernoulli(key_y, shape=(N,)), 1.0, -1.0)
    across = jax.random.normal(key_x, (N, D))
    across = across - (across @ w)[:, None] * w[None, :]
    away = gap + jnp.abs(jax.random.normal(jax.random.fold_in(key, 1), (N,)))
    return across + (y * away)[:, None] * w[None, :], y, w


def on_random_problems(rules: list[Callable[..., Any]], problems: int, passes: int) -> tuple[np.ndarray, ...]:
    """(bounds, mistakes, converged), each (rules, problems), of online rules on random separable problems."""

    def one(which: Any, key: Any, gap: Any) -> tuple[Any, ...]:
        def rule(w: Any, x: Any, y: Any) -> Any:
            return jax.lax.switch(which, rules, w, x, y)

        x, y, w = problem(key, gap)
        found = perceptron.repeat(rule, jnp.zeros(D), x, y, passes)
        return perceptron.mistake_bound(w, x, y), found.mistakes, found.converged

    each = jax.jit(jax.vmap(jax.vmap(one, (None, 0, 0)), (0, None, None)))
    with float64():
        keys = jax.random.split(jax.random.key(0), problems)
        found = each(np.arange(len(rules)), keys, np.geomspace(0.03, 3.0, problems))
        return tuple(map(np.asarray, found))


@pytest.mark.slow
def test_mistakes_stay_below_novikoffs_bound_on_a_thousand_problems() -> None:
    bounds, mistakes, converged = on_random_problems([perceptron.update], PROBLEMS, 20_000)
    assert np.isfinite(bounds).all()
    assert converged.all()
    assert (mistakes <= bounds).all()
    assert mistakes.min() >= 1  # sign(0) = +1 is wrong for some example
    assert bounds.max() > 1000 > 10 > bounds.min()  # from hard problems to easy ones


def moves_always(w: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return w + y * x, perceptron.predict(w, x) != y


def moves_away(w: Any, x: Any, y: Any) -> tuple[Any, Any]:
    mistake = perceptron.predict(w, x) != y
    return jnp.where(mistake, w - y * x, w), mistake


def moves_by_one_feature(w: Any, x: Any, y: Any) -> tuple[Any, Any]:
    mistake = perceptron.predict(w, x) != y
    return jnp.where(mistake, w.at[0].add(y * x[0]), w), mistake


def half_of_the_rule(w: Any, x: Any, y: Any) -> tuple[Any, Any]:
    mistake = perceptron.predict(w, x) != y
    return jnp.where(mistake & (y > 0), w + y * x, w), mistake


def test_a_broken_rule_breaks_the_bound_or_does_not_converge() -> None:
    broken = [moves_always, moves_away, moves_by_one_feature, half_of_the_rule]
    bounds, mistakes, converged = on_random_problems(broken, 20, 200)
    assert ((mistakes > bounds) | ~converged).any(axis=1).tolist() == [True] * len(broken)


@given(seed=st.integers(0, 10**6), noise=st.sampled_from([0.0, 0.5]))
def test_the_rule_is_rosenblatts(seed: int, noise: float) -> None:
    x = np.round(4 * random(seed, 12, 3))  # whole numbers: ties at 0 occur, and sums are exact
    y = np.where(x @ [1, -2, 1] + 3 * noise * random(seed + 1, 12) >= 0, 1.0, -1.0)
    w, steps, mistakes, passes, converged = transcribed(x, y, 6)
    with float64():
        weights, wrong = perceptron.trace(x, y, passes=6)
        found = perceptron.fit(x, y, passes=6)
        mean = perceptron.averaged(x, y, passes=6)
    np.testing.assert_array_equal(weights[1 : len(steps) + 1], steps)
    assert int(wrong.sum()) == mistakes
    every = np.concatenate([steps, np.tile(w, (72 - len(steps), 1))])
    np.testing.assert_allclose(mean, every.mean(axis=0), rtol=1e-12, atol=1e-12)
    if not found.cycles:
        np.testing.assert_array_equal(found.w, w)
        assert (int(found.mistakes), int(found.passes), bool(found.converged)) == (mistakes, passes, converged)


def test_the_sign_of_zero_is_plus_one() -> None:
    assert perceptron.predict([0.0], [[3.0]]).tolist() == [1.0]
    assert int(perceptron.fit([[3.0]], [1], passes=5).mistakes) == 0
    assert int(perceptron.fit([[3.0]], [-1], passes=5).mistakes) == 1


def test_xor_is_reported_and_not_looped_on() -> None:
    found = perceptron.fit(CORNERS, XOR, passes=10**6)
    assert not found.converged
    assert found.cycles
    assert int(found.passes) < 10
    assert "never will" in found.describe()


def test_a_cycle_excludes_weights_of_positive_margin_only() -> None:
    """Without the constant feature w = (1, 1) classifies all correctly by sign(0) = +1, and yet the rule cycles."""
    x, y = np.array([[-2.0, 2], [1, -1], [-1, -2]]), np.array([1.0, 1, -1])
    assert (perceptron.predict([1.0, 1.0], x) == y).all()
    assert perceptron.margin([1.0, 1.0], x, y) == 0
    found = perceptron.fit(x, y)
    assert found.cycles
    assert "no weights separate the examples with a positive margin" in found.describe()


def test_a_cycle_that_begins_late_is_found() -> None:
    # One example of large weight first: the weights wander for long before they come round.
    x = np.array([[1.0, 37.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    found = perceptron.fit(x, [-1, 1, 1, -1], passes=100_000)
    assert found.cycles
    assert int(found.passes) > 8
    weights, _ = perceptron.trace(x, [-1, 1, 1, -1], passes=int(found.passes))
    ends = [tuple(w) for w in np.asarray(weights)[::4]]
    assert ends[-1] in ends[:-1]


def test_inseparable_examples_without_a_cycle_are_reported_too() -> None:
    with float64():
        x = random(0, 40, 3)
        found = perceptron.fit(x, np.sign(random(1, 40)), passes=50)
    assert (bool(found.converged), bool(found.cycles), int(found.passes)) == (False, False, 50)
    assert "separability.separate decides" in found.describe()


def test_a_clean_pass_is_no_cycle() -> None:
    found = perceptron.fit(CORNERS, [1, 1, 1, 1])
    assert (bool(found.converged), bool(found.cycles), int(found.mistakes), int(found.passes)) == (True, False, 0, 1)
    assert found.describe() == "converged: 0 mistakes in 1 pass, the last without one"


def test_margin_and_bound() -> None:
    x, y = np.array([[3.0, 4.0], [-1.0, 1.0]]), np.array([1, -1])
    w = np.array([2.0, -1.0])
    assert float(perceptron.margin(w, x, y)) == pytest.approx(2 / np.sqrt(5))
    assert float(perceptron.mistake_bound(w, x, y)) == pytest.approx(25 * 5 / 4)
    assert float(perceptron.mistake_bound(10 * w, x, y)) == pytest.approx(25 * 5 / 4)
    assert np.isinf(perceptron.mistake_bound(-w, x, y))
    assert np.isinf(perceptron.mistake_bound([0.0, 0.0], x, y))


@pytest.mark.slow
def test_the_pocket_holds_the_best_that_was_met() -> None:
    with float64():
        x = np.asarray(with_bias(random(0, 60, 2)))
        y = np.where(x @ [0.3, 1, -1] + 0.7 * random(1, 60) >= 0, 1.0, -1.0)
        kept = perceptron.pocket(x, y, key=jax.random.key(0), steps=3000)
        right = int((np.asarray(perceptron.predict(kept.w, x)) == y).sum())
        last = int((np.asarray(perceptron.predict(perceptron.fit(x, y, passes=50).w, x)) == y).sum())
        short = perceptron.pocket(x, y, key=jax.random.key(0), steps=30)
    assert int(kept.correct) == right
    assert right > last
    assert int(short.correct) <= right
    assert int(short.mistakes) < int(kept.mistakes)


@pytest.mark.slow
def test_the_average_is_better_than_the_last_on_overlapping_classes() -> None:
    def wrong(seed: int) -> tuple[int, int]:
        x = np.concatenate([np.ones((200, 1)), random(seed, 200, 5)], axis=1)
        y = np.where(x.sum(axis=1) + 1.5 * random(seed + 100, 200) >= 0, 1.0, -1.0)
        last, mean = perceptron.trace(x, y, passes=10)[0][-1], perceptron.averaged(x, y, passes=10)
        return tuple(int((np.asarray(perceptron.predict(w, x)) != y).sum()) for w in (last, mean))

    last, mean = np.array([wrong(seed) for seed in range(5)]).sum(axis=0)
    assert mean < 0.9 * last


def test_two_classes_are_the_perceptron() -> None:
    x = np.round(4 * random(3, 20, 3))
    y = np.where(x @ [1, -2, 1] >= 0, 1.0, -1.0)
    with float64():
        one, two = perceptron.fit(x, y), multiclass.fit(x, np.where(y > 0, 0, 1), 2)
    assert int(one.mistakes) == int(two.mistakes)
    first, second = np.asarray(two.w).T
    np.testing.assert_array_equal(first - second, 2 * np.asarray(one.w))
    np.testing.assert_array_equal(first, -second)


@pytest.mark.slow
def test_several_classes_converge_within_their_bound_and_say_so() -> None:
    with float64():
        truth = random(0, 4, 3)
        truth /= np.linalg.norm(truth)
        x = random(1, 400, 4)
        scores = x @ truth
        ordered = np.sort(scores, axis=1)
        clear = ordered[:, 2] - ordered[:, 1] > 0.15
        x, labels = x[clear], scores[clear].argmax(axis=1)
        found = multiclass.fit(x, labels, 3)
        assert found.converged
        assert (np.asarray(multiclass.predict(found.w, x)) == labels).all()
        gamma = (ordered[clear, 2] - ordered[clear, 1]).min()
        assert int(found.mistakes) <= 2 * (x**2).sum(axis=1).max() / gamma**2
        np.testing.assert_allclose(found.w.sum(axis=1), 0, atol=1e-12)  # what one unit gains another loses
    assert not multiclass.fit(CORNERS, np.array([0, 1, 1, 0]), 2).converged


@pytest.mark.slow
def test_promotions_are_strict() -> None:
    with float64(), strict():
        y = np.array([-1.0, -1, -1, 1])
        assert perceptron.fit(CORNERS, y).w.dtype == jnp.float64
        assert perceptron.pocket(CORNERS, y, key=jax.random.key(0), steps=3).w.dtype == jnp.float64
        assert perceptron.averaged(CORNERS, y).dtype == jnp.float64
        assert float(perceptron.mistake_bound([-3.0, 2, 2], CORNERS, y)) == pytest.approx(51)
        assert multiclass.fit(CORNERS, np.array([0, 0, 0, 1]), 2).w.dtype == jnp.float64


def test_a_traced_label_that_is_no_sign_shows() -> None:
    found = jax.jit(lambda y: perceptron.fit(CORNERS, y, passes=3))(jnp.array([0, 1, 1, 1]))
    assert np.isnan(found.w).all()
    assert not found.converged
    found = jax.jit(lambda y: multiclass.fit(CORNERS, y, 2, passes=3))(jnp.array([2, 1, 1, 1]))
    assert not found.converged


def test_many_fits_are_those_one_by_one() -> None:
    labels = np.array([XOR, [-1, -1, -1, 1], [1, 1, 1, 1]])
    many = jax.vmap(lambda y: perceptron.fit(CORNERS, y))(labels)
    assert many.converged.tolist() == [False, True, True]
    for i, y in enumerate(labels):
        assert_close(jax.tree.map(lambda a, i=i: a[i], many), perceptron.fit(CORNERS, y), rtol=0)


def test_many_fits_are_described_one_by_one_and_several_classes_get_advice_of_their_own() -> None:
    many = jax.vmap(lambda y: perceptron.fit(CORNERS, y))(np.array([XOR, [1, 1, 1, 1]]))
    with pytest.raises(ValueError, match=r"expected one fit, got fits of shape \(2,\)"):
        many.describe()
    told = multiclass.fit(CORNERS, np.array([0, 1, 1, 0]), 2, passes=1).describe()
    assert "did not converge" in told
    assert "logistic.softmax_fit" in told
    assert "pocket" not in told


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: perceptron.fit(CORNERS, [0, 1, 1, 0]), "labels must be -1 or .1, got 0"),
        (lambda: perceptron.fit(CORNERS, XOR[:3]), r"x \(4, 3\) and y \(3,\)"),
        (lambda: perceptron.fit(CORNERS, XOR, passes=0), "passes must be at least 1"),
        (lambda: perceptron.pocket(CORNERS, XOR, key=None), "needs a random key"),
        (lambda: perceptron.predict([1, 2], CORNERS), r"perceptron.predict: w must hold .* got w \(2,\)"),
        (lambda: perceptron.margin([1, 2], CORNERS, XOR), r"perceptron.margin: w must hold .* got w \(2,\)"),
        (lambda: multiclass.predict([[1, 2]], CORNERS), r"multiclass.predict: w must hold .* got w \(1, 2\)"),
        (lambda: multiclass.fit(CORNERS, [0, 1, 1, 3], 3), r"labels must lie in \[0, 3\), got 3"),
        (lambda: multiclass.fit(CORNERS, [0, 0, 0, 0], 1), "classes must be at least 2"),
        (lambda: multiclass.fit(CORNERS, XOR, 2), "integer"),
    ],
)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        call()
