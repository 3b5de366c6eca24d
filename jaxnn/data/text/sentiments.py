"""Small made-up reviews of three sentiments."""

from __future__ import annotations

import numpy as np

from jaxnn.checks import require_between, require_positive_int

SENTIMENTS = ("negative", "neutral", "positive")
"""The classes of `reviews`, in the order of their labels 0, 1, 2."""

_THINGS = ("film", "book", "meal", "play", "song", "hotel", "game", "lecture")
_ADJECTIVES = (
    ("dull", "slow", "awful", "boring", "poor", "ugly", "weak", "sad"),
    ("long", "short", "red", "wooden", "foreign", "recent", "square", "quiet"),
    ("lovely", "brilliant", "warm", "funny", "superb", "clever", "fresh", "kind"),
)


def reviews(n: int, *, seed: int, negated: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Made-up sentences such as "the film was dull and slow", each with one of three sentiments.

    The sentiment is that of the two adjectives. In a negated sentence, "the film was not dull and not slow", it is the
    opposite one (neutral ones stay neutral): a bag of words holds the same words whatever "not" stands before.

    Args:
        n: number of sentences, >= 1; the sentiments take turns.
        seed: int >= 0.
        negated: fraction of the sentences with "not", in [0, 1].

    Returns:
        (n texts, labels (n,) int32: 0 negative, 1 neutral, 2 positive, of `SENTIMENTS`).

    Raises:
        ValueError: n < 1, seed < 0, or a fraction out of range.

    Example:
        >>> texts, labels = reviews(3, seed=1)
        >>> labels.tolist(), all(text.startswith("the ") for text in texts)
        ([0, 1, 2], True)
    """
    n = require_positive_int("reviews", "n", n)
    require_between("reviews", "negated", negated, 0, 1)
    rng = np.random.default_rng(require_positive_int("reviews", "seed", seed, 0))
    labels = np.arange(n, dtype=np.int32) % 3
    turned = rng.random(n) < negated
    texts = []
    for label, turn in zip(labels, turned, strict=True):
        told = _ADJECTIVES[2 - label if turn else label]
        first, second = rng.choice(len(told), 2, replace=False)
        no = "not " if turn else ""
        texts.append(f"the {_THINGS[rng.integers(len(_THINGS))]} was {no}{told[first]} and {no}{told[second]}")
    return texts, labels
