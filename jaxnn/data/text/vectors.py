"""Texts as vectors: words one-hot over a vocabulary, bags of words.

A word is a run of letters and apostrophes, in lower case. Words outside the vocabulary are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxnn.checks import require_positive_int
from jaxnn.data.dataset import Dataset, make_dataset
from jaxnn.types import ArrayLike

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text, in order.

    Example:
        >>> words("It's 2 o'clock: don't WAIT!")
        ["it's", "o'clock", "don't", 'wait']
    """
    if not isinstance(text, str):
        raise TypeError(f"words: text must be a string, got {text!r} ({type(text).__name__}).")
    return _WORD.findall(text.lower())


def vocabulary(texts: Sequence[str], *, limit: int | None = None) -> tuple[str, ...]:
    """The different words of some texts, the most frequent first, words of equal frequency in alphabetical order.

    Args:
        texts: the training texts.
        limit: the largest number of words; None for all.

    Raises:
        TypeError: texts is one string.
        ValueError: limit is less than 1.

    Example:
        >>> vocabulary(["a b a", "c b a"])
        ('a', 'b', 'c')
    """
    counts = Counter(word for text in _several("vocabulary", texts) for word in words(text))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(ordered if limit is None else ordered[: require_positive_int("vocabulary", "limit", limit)])


def one_hot(text: str, known: Sequence[str]) -> np.ndarray:
    """Each word of a text as a vector with a 1 at its place in the vocabulary and 0 elsewhere.

    Args:
        text: T of its words are in the vocabulary.
        known: the vocabulary, V words.

    Returns:
        (T, V) float32.

    Raises:
        ValueError: a word stands twice in the vocabulary, none does, or one is no word, such as one with capitals.

    Example:
        >>> one_hot("a new a", ("a", "b"))
        array([[1., 0.],
               [1., 0.]], dtype=float32)
    """
    places = _places("one_hot", known)
    return np.eye(len(places), dtype=np.float32)[[places[word] for word in words(text) if word in places]]


def bag_of_words(texts: Sequence[str], known: Sequence[str], *, counts: bool = True) -> np.ndarray:
    """How often each word of the vocabulary stands in each text: the sum of the rows of `one_hot`; order is lost.

    Args:
        texts: N texts.
        known: the vocabulary, V words; that of the training texts also for others.
        counts: False for 1 where the word occurs and 0 where not.

    Returns:
        (N, V) float32.

    Raises:
        TypeError: texts is one string.
        ValueError: there is no text; a word stands twice in the vocabulary, or none does.

    Reference: Harris 1954, "Distributional structure"; Salton, Wong & Yang 1975, "A vector space model for automatic
        indexing".

    Example:
        >>> bag_of_words(["not good", "good, good!"], ("good", "not"))
        array([[1., 1.],
               [2., 0.]], dtype=float32)
    """
    places = _places("bag_of_words", known)
    bags = np.zeros((len(_several("bag_of_words", texts)), len(places)), np.float32)
    for bag, text in zip(bags, texts, strict=True):
        for word in words(text):
            if word in places:
                bag[places[word]] += 1
    return bags if counts else np.minimum(bags, 1)


def bags(
    texts: Sequence[str], labels: ArrayLike, known: Sequence[str], *, name: str = "", classes: Sequence[str] = ()
) -> Dataset:
    """A Dataset of the bags of words (N, V) of some texts and their labels (N,).

    Args:
        texts, labels: N texts and the class of each.
        known: the vocabulary.
        name, classes: as for `make_dataset`, whose errors are raised too.

    Example:
        >>> from jaxnn.data.text import SENTIMENTS, reviews
        >>> texts, labels = reviews(6, seed=0)
        >>> data = bags(texts, labels, vocabulary(texts), classes=SENTIMENTS)
        >>> len(data), data.classes[data.y[0]]
        (6, 'negative')
    """
    return make_dataset(bag_of_words(texts, known), labels, name=name, classes=classes)


def _several(where: str, texts: Sequence[str]) -> Sequence[str]:
    """The texts; TypeError for one string, ValueError for none."""
    if isinstance(texts, str):
        raise TypeError(f"{where}: texts must be a sequence of strings, got one string. Pass [text].")
    if not hasattr(texts, "__len__"):
        raise TypeError(f"{where}: texts must be a sequence of strings, got {type(texts).__name__}. Pass list(texts).")
    if not len(texts):
        raise ValueError(f"{where}: texts must hold at least 1 text, got none.")
    return texts


def _places(where: str, known: Sequence[str]) -> dict[str, int]:
    """The place of each word of a vocabulary."""
    if isinstance(known, str) or not hasattr(known, "__len__") or not len(known):
        raise ValueError(f"{where}: the vocabulary must be a sequence of at least 1 word, got {known!r}.")
    places = {word: place for place, word in enumerate(known)}
    if len(places) < len(known):
        twice = next(word for word, count in Counter(known).items() if count > 1)
        raise ValueError(f"{where}: the words of the vocabulary must differ, got {twice!r} more than once.")
    for word in places:
        if not isinstance(word, str) or words(word) != [word]:
            raise ValueError(
                f"{where}: the vocabulary must hold words as `words` finds them, in lower case, got {word!r}, which "
                "no text contains. `vocabulary` makes one."
            )
    return places
