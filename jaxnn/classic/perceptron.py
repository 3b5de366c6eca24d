"""Rosenblatt's perceptron: one threshold unit that learns from its mistakes, with the pocket and averaged variants.

All functions take features (N, D); for a line that need not pass through the origin give them the always-on feature:
`perceptron.fit(neurons.with_bias(x), y)`, whose first weight is then the bias.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.activations import perceptron_sign
from jaxnn.checks import require_key, require_positive_int
from jaxnn.classic.neurons import as_signs, outputs
from jaxnn.numerics import safe_divide
from jaxnn.types import Array, ArrayLike, Key

Update: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Array]]
"""(weights, x (D,), y ()) -> (weights, whether they had been wrong about this example, () bool)."""


class Fit(NamedTuple):
    """What an online rule that learns from mistakes ended with.

    Attributes:
        w: the weights, (D,); (D, K) of the multi-class rule.
        mistakes: how many were made in all, each followed by an update; () int32.
        passes: how often the examples were gone through, the pass without a mistake included; () int32.
        converged: whether the last pass was without a mistake, so that w is right about every example; () bool.
        cycles: whether some pass ended with the weights that an earlier one had ended with: proof that the rule goes
            round for ever, since a pass is a function of the weights that it starts with; () bool.
    """

    w: Array
    mistakes: Array
    passes: Array
    converged: Array
    cycles: Array

    def describe(self) -> str:
        """Whether it converged, in words; of one fit, not of many under vmap.

        Raises:
            ValueError: many fits.
        """
        if self.mistakes.ndim:
            raise ValueError(
                f"Fit.describe: tells of one fit, got {self.mistakes.shape} of them. Take one by "
                "jax.tree.map(lambda leaf: leaf[i], found)."
            )
        two = self.w.ndim == 1
        instead = "pocket or averaged" if two else "logistic.softmax_fit"
        effort = f"{int(self.mistakes)} mistakes in {int(self.passes)} passes"
        if self.converged:
            return f"converged: {effort}, the last without one"
        if self.cycles:
            return (
                f"did not converge and never will: {effort}, and the weights repeat, so no weights are right about "
                f"every example. Use {instead}, or more features."
            )
        decides = ", which separability.separate decides" if two else ""
        return (
            f"did not converge: {effort}, none without one. The examples may not be separable{decides}; if they are, "
            f"allow more passes, if not use {instead}."
        )


def predict(w: ArrayLike, x: ArrayLike) -> Array:
    """The perceptron's output: o = sign(w.x), with sign(0) = +1.

    Args:
        w: weights (D,).
        x: features (..., D).

    Returns:
        (...), -1.0 or +1.0.

    Reference:
        Rosenblatt (1958), The perceptron: a probabilistic model for information storage and organization in the brain.

    Example:
        >>> predict([1.0, -1.0], [[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
        Array([ 1.,  1., -1.], dtype=float32)
    """
    return perceptron_sign(outputs("perceptron.predict", w, x))


def update(w: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Rosenblatt's rule on one example: w <- w + y x if sign(w.x) differs from y, else w stays.

    Args:
        w: weights (D,).
        x: features (D,).
        y: -1 or +1, in the dtype of w.

    Returns:
        (weights (D,), whether they had been wrong, () bool).

    Reference:
        Rosenblatt (1958), as above; in this form Novikoff (1962), On convergence proofs on perceptrons.

    Example:
        >>> update(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array(-1.0))  # sign(0) = +1 is wrong here
        (Array([-1., -2.], dtype=float32), Array(True, dtype=bool))
    """
    mistake = predict(w, x) != y
    return jnp.where(mistake, w + y * x, w), mistake


def fit(x: ArrayLike, y: ArrayLike, *, passes: int = 1000) -> Fit:
    """Rosenblatt's algorithm: from w = 0, one example after the other, w <- w + y x on each mistake.

    It ends with a pass without a mistake, which comes after at most `mistake_bound` mistakes if the examples are
    separable; with weights that repeat (Brent's search for a cycle: the weights after 1, 2, 4, .. passes are kept and
    compared with the later ones), which proves that they are not; or after `passes`.

    Args:
        x: features (N, D).
        y: labels (N,), each -1 or +1.
        passes: through all examples, at most.

    Returns:
        Fit, which says whether it converged. May be vmapped: every field then has a leading axis.

    Raises:
        ValueError: shapes do not fit, or a label is known to be neither -1 nor +1 (a traced one makes w NaN).

    Reference:
        Rosenblatt (1958), The perceptron; Minsky & Papert (1969), Perceptrons, chapter 11 (weights that repeat).

    Example:
        >>> from jaxnn.classic.neurons import with_bias
        >>> table = with_bias([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> fit(table, jnp.array([-1, -1, -1, 1])).describe()  # AND
        'converged: 11 mistakes in 6 passes, the last without one'
        >>> fit(table, jnp.array([-1, 1, 1, -1])).describe()  # XOR
        'did not converge and never will: ...
    """
    features, signs = as_signs("perceptron.fit", x, y)
    limit = require_positive_int("perceptron.fit", "passes", passes)
    return repeat(update, jnp.zeros_like(features[0]), features, signs, limit)


@functools.partial(jax.jit, static_argnames="rule")
def repeat(rule: Update, w: Array, x: Array, y: Array, passes: int) -> Fit:
    """Go through the examples again and again by an online rule, until a pass is without a mistake, or they cycle.

    Args:
        rule: `update`, or another rule that changes the weights only on a mistake.
        w: initial weights.
        x: features (N, D).
        y: targets (N,).
        passes: at most.

    Returns:
        Fit.

    Example:
        >>> repeat(update, jnp.zeros(1), jnp.array([[2.0]]), jnp.array([-1.0]), 10).w
        Array([-2.], dtype=float32)
    """

    def one_pass(carry: tuple[Fit, Array, Array]) -> tuple[Fit, Array, Array]:
        so_far, kept, due = carry
        w, wrong = lax.scan(lambda w, example: rule(w, *example), so_far.w, (x, y))
        mistakes, count = jnp.sum(wrong, dtype=jnp.int32), so_far.passes + 1
        clean = mistakes == 0
        found = Fit(w, so_far.mistakes + mistakes, count, clean, ~clean & jnp.all(w == kept))
        return found, jnp.where(count == due, w, kept), jnp.where(count == due, 2 * due, due)

    def unfinished(carry: tuple[Fit, Array, Array]) -> Array:
        so_far, _, _ = carry
        return ~so_far.converged & ~so_far.cycles & (so_far.passes < passes)

    none, no = jnp.int32(0), jnp.array(False)
    start = Fit(w, none, none, no, no)
    found, _, _ = lax.while_loop(unfinished, one_pass, (start, w, jnp.int32(1)))
    return found


def trace(x: ArrayLike, y: ArrayLike, *, passes: int) -> tuple[Array, Array]:
    """Every step of Rosenblatt's algorithm for a fixed number of passes, mistakes or none: one `lax.scan`.

    Args:
        x: features (N, D).
        y: labels (N,), each -1 or +1.
        passes: through all examples.

    Returns:
        (weights (passes N + 1, D), those before step t at t; mistakes (passes N,) bool). Step t meets example t mod N.

    Raises:
        ValueError: as `fit`.

    Example:
        >>> weights, mistakes = trace([[1.0], [2.0]], [1, -1], passes=2)
        >>> weights[:, 0].tolist(), mistakes.tolist()
        ([0.0, 0.0, -2.0, -1.0, -1.0], [False, True, True, False])
    """
    features, signs = as_signs("perceptron.trace", x, y)
    return _trace(features, signs, require_positive_int("perceptron.trace", "passes", passes))


class Pocket(NamedTuple):
    """The best weights that were met.

    Attributes:
        w: (D,).
        correct: how many of the N examples they are right about, () int32.
        mistakes: how many were made on the way, () int32.
    """

    w: Array
    correct: Array
    mistakes: Array


def pocket(x: ArrayLike, y: ArrayLike, *, key: Key, steps: int = 10_000) -> Pocket:
    """Rosenblatt's rule on examples drawn at random, keeping the weights that were right about most of all examples.

    For examples that cannot be separated: the rule itself wanders on, the weights in the pocket only get better. New
    weights are held against all examples at once (the ratchet); Gallant's test before it, of the length of a run
    without mistakes, only spares such counts.

    Args:
        x: features (N, D).
        y: labels (N,), each -1 or +1.
        key: typed random key; which examples are met follows from it.
        steps: how many are met, drawn with replacement.

    Returns:
        Pocket. Of equally good weights the first are kept; at the start they are 0.

    Raises:
        ValueError: as `fit`, or no key.

    Reference:
        Gallant (1990), Perceptron-based learning algorithms (the pocket algorithm with ratchet).

    Example:
        >>> from jaxnn.classic.neurons import with_bias
        >>> xor = with_bias([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> pocket(xor, jnp.array([-1, 1, 1, -1]), key=jax.random.key(0), steps=100).correct
        Array(3, dtype=int32)
    """
    features, signs = as_signs("perceptron.pocket", x, y)
    require_key("perceptron.pocket", key)
    return _pocket(features, signs, key, require_positive_int("perceptron.pocket", "steps", steps))


def averaged(x: ArrayLike, y: ArrayLike, *, passes: int = 10) -> Array:
    """Rosenblatt's rule, and the mean of the weights after each of its steps: w = (1 / (passes N)) sum_t w_t.

    Weights that lasted long count for more than those of a moment, so that the mean hardly depends on where the rule
    stops, whether the examples are separable or not.

    Args:
        x: features (N, D).
        y: labels (N,), each -1 or +1.
        passes: through all examples, whether or not a mistake is left.

    Returns:
        w (D,), for `predict`.

    Raises:
        ValueError: as `fit`.

    Reference:
        Freund & Schapire (1999), Large margin classification using the perceptron algorithm (the average
        as the cheap relative of the vote).

    Example:
        >>> averaged([[1.0], [2.0]], [1, -1], passes=2)  # of 0, -2, -1, -1
        Array([-1.], dtype=float32)
    """
    features, signs = as_signs("perceptron.averaged", x, y)
    return _averaged(features, signs, require_positive_int("perceptron.averaged", "passes", passes))


def margin(w: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """How far the nearest example lies on its right side: gamma = min_i y_i (w.x_i) / |w|; negative where one is wrong.

    Args:
        w: weights (D,); 0 has margin 0.
        x: features (N, D).
        y: labels (N,), each -1 or +1.

    Returns:
        (), in the unit of x.

    Raises:
        ValueError: as `fit`.

    Reference:
        Novikoff (1962), On convergence proofs on perceptrons.

    Example:
        >>> margin([0.0, 2.0], [[5.0, 1.0], [0.0, -3.0]], [1, -1])
        Array(1., dtype=float32)
    """
    features, signs = as_signs("perceptron.margin", x, y)
    sides = signs * outputs("perceptron.margin", w, features)
    return safe_divide(jnp.min(sides), jnp.linalg.norm(jnp.asarray(w, features.dtype)))


def mistake_bound(w: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """Novikoff's bound on the mistakes of `fit`, whatever the order of the examples: (R / gamma)^2.

    R = max_i |x_i|, gamma the margin of ANY separator w; the separator of the largest margin gives the least bound.

    Args:
        w: weights (D,) that are right about every example.
        x: features (N, D), the always-on feature among them if the perceptron has it.
        y: labels (N,), each -1 or +1.

    Returns:
        (), infinite where w does not separate the examples: then nothing is said.

    Raises:
        ValueError: as `fit`.

    Reference:
        Novikoff (1962), On convergence proofs on perceptrons, theorem 1.

    Example:
        >>> mistake_bound([0.0, 2.0], [[3.0, 4.0], [0.0, -1.0]], [1, -1])
        Array(25., dtype=float32)
    """
    gamma = margin(w, x, y)
    features, _ = as_signs("perceptron.mistake_bound", x, y)
    squares = jnp.max(jnp.sum(jnp.square(features), axis=1))
    return jnp.where(gamma > 0, squares / jnp.square(gamma), jnp.inf)


@functools.partial(jax.jit, static_argnames="passes")
def _trace(x: Array, y: Array, passes: int) -> tuple[Array, Array]:
    def step(w: Array, i: Array) -> tuple[Array, tuple[Array, Array]]:
        w, mistake = update(w, x[i], y[i])
        return w, (w, mistake)

    start = jnp.zeros_like(x[0])
    _, (after, mistakes) = lax.scan(step, start, jnp.arange(passes * x.shape[0]) % x.shape[0])
    return jnp.concatenate([start[None], after]), mistakes


@functools.partial(jax.jit, static_argnames="steps")
def _pocket(x: Array, y: Array, key: Key, steps: int) -> Pocket:
    def right(w: Array) -> Array:
        return jnp.sum(predict(w, x) == y, dtype=jnp.int32)

    def step(carry: tuple[Array, Pocket], i: Array) -> tuple[tuple[Array, Pocket], None]:
        w, best = carry
        w, mistake = update(w, x[i], y[i])
        correct = lax.cond(mistake, right, lambda w: jnp.int32(-1), w)
        better = correct > best.correct
        mistakes = best.mistakes + mistake.astype(jnp.int32)
        return (w, Pocket(jnp.where(better, w, best.w), jnp.maximum(correct, best.correct), mistakes)), None

    start = jnp.zeros_like(x[0])
    drawn = jax.random.randint(key, (steps,), 0, x.shape[0])
    (_, best), _ = lax.scan(step, (start, Pocket(start, right(start), jnp.int32(0))), drawn)
    return best


@functools.partial(jax.jit, static_argnames="passes")
def _averaged(x: Array, y: Array, passes: int) -> Array:
    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        w, total = carry
        w, _ = update(w, x[i], y[i])
        return (w, total + w), None

    start, steps = jnp.zeros_like(x[0]), passes * x.shape[0]
    (_, total), _ = lax.scan(step, (start, start), jnp.arange(steps) % x.shape[0])
    return total / steps
