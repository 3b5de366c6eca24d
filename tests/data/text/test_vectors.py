"""Words, vocabularies and bags; what a linear classifier of bags can tell, and that it cannot tell "not"."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.classic import logistic, multiclass
from jaxnn.classic.neurons import with_bias
from jaxnn.data import text


def test_words_are_letters_and_apostrophes_in_lower_case() -> None:
    assert text.words("Ärger? 3 don't-worry: it's A_B") == ["ärger", "don't", "worry", "it's", "a", "b"]
    assert text.words("12 !") == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), min_size=1, max_size=6))
def test_a_bag_is_the_sum_of_one_hot_words_and_counts(lists: list[list[str]]) -> None:
    texts, known = [" ".join(each) for each in lists], ("c", "a", "e")
    bags = text.bag_of_words(texts, known)
    for bag, each, sentence in zip(bags, lists, texts, strict=True):
        counted = Counter(each)
        assert bag.tolist() == [counted[word] for word in known]
        np.testing.assert_array_equal(text.one_hot(sentence, known).sum(axis=0), bag)
    np.testing.assert_array_equal(text.bag_of_words(texts, known, counts=False), bags > 0)
    every = Counter(word for each in lists for word in each)
    found = text.vocabulary(texts) if every else ()
    assert sorted(found) == sorted(every)
    assert all(every[a] > every[b] or (every[a] == every[b] and a < b) for a, b in itertools.pairwise(found))


def accuracy(negated: float) -> float:
    """Of softmax regression on the bags of 300 reviews, on 150 others."""
    texts, labels = text.reviews(450, seed=0, negated=negated)
    known = text.vocabulary(texts[:300])
    train, test = (
        text.bags(t, y, known, classes=text.SENTIMENTS)
        for t, y in ((texts[:300], labels[:300]), (texts[300:], labels[300:]))
    )
    fit = logistic.softmax_fit(
        with_bias(train.x), train.y, 3, key=jax.random.key(0), learning_rate=0.1, epochs=30, batch_size=30
    )
    return float(np.mean(np.asarray(multiclass.predict(fit.w, with_bias(test.x))) == test.y))


@pytest.mark.slow
def test_three_sentiments_are_told_from_bags_unless_words_are_negated() -> None:
    assert accuracy(0.0) == 1.0
    assert accuracy(0.5) < 0.75, "the bags of two opposite sentiments are alike"


def test_reviews_are_reproducible_and_negated_ones_have_the_opposite_words() -> None:
    plain, labels = text.reviews(300, seed=3)
    assert text.reviews(300, seed=3)[0] == plain
    assert text.reviews(300, seed=4)[0] != plain
    assert np.bincount(labels).tolist() == [100, 100, 100]
    words = [{w for t, y in zip(plain, labels, strict=True) if y == k for w in t.split()[3::2]} for k in range(3)]
    assert not words[0] & words[2]
    negated, labels = text.reviews(300, seed=3, negated=1.0)
    assert all(t.count("not ") == 2 for t in negated)
    assert {w for t, y in zip(negated, labels, strict=True) if y == 0 for w in (t.split()[4], t.split()[7])} <= words[2]


BAD: list[tuple[type[Exception], str, Any]] = [
    (TypeError, r"texts must be a sequence of strings, got one string. Pass \[text\]", lambda: text.vocabulary("a b")),
    (ValueError, "at least 1 text, got none", lambda: text.bag_of_words([], ("a",))),
    (ValueError, "limit must be at least 1, got 0", lambda: text.vocabulary(["a"], limit=0)),
    (ValueError, "at least 1 word, got ()", lambda: text.one_hot("a", ())),
    (ValueError, "must differ, got 'a' more than once", lambda: text.bag_of_words(["a"], ("a", "b", "a"))),
    (ValueError, "n must be at least 1", lambda: text.reviews(0, seed=0)),
    (ValueError, r"negated must lie in \[0, 1\], got 2", lambda: text.reviews(3, seed=0, negated=2)),
    (ValueError, "labels must be integers in 0 .. 2", lambda: text.bags(["a"], [3], ("a",), classes=text.SENTIMENTS)),
]


@pytest.mark.parametrize(("error", "told", "call"), BAD)
def test_bad_input_is_named(error: type[Exception], told: str, call: Any) -> None:
    with pytest.raises(error, match=told.replace("()", r"\(\)") if told.endswith("()") else told):
        call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: text.one_hot("Good", ["Good"]), "in lower case, got 'Good'"),
        (lambda: text.one_hot("a", [1, 2]), "in lower case, got 1"),
    ],
)
def test_words_that_no_text_contains_are_named(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: text.bag_of_words([1], ["a"]), "text must be a string, got 1"),
        (lambda: text.vocabulary(iter("ab")), "sequence of strings, got str_"),
    ],
)
def test_what_is_no_text_is_named(call: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call()
