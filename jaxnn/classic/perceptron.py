"""Rosenblatt's perceptron: one threshold unit that learns from its mistakes, with the pocket and averaged variants.

Features x are (N, D). For a bias prepend the constant feature, `perceptron.fit(neurons.with_bias(x), y)`:
the first weight is then the bias. Labels y are (N,), each -1 or +1. ValueError: shapes do not match, or a concrete
label is neither -1 nor +1 (with a traced one weights become NaN, and `pocket` keeps those before that).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.activations import perceptron_sign
from jaxnn.checks import count_of, require_key, require_positive_int
from jaxnn.classic.neurons import as_signs, outputs
from jaxnn.numerics import safe_divide
from jaxnn.types import Array, ArrayLike, Key

Update: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Array]]
"""(weights, x (D,), y ()) -> (weights, whether the example was misclassified, () bool)."""


class Fit(NamedTuple):
    """The result of an online rule that learns from mistakes.

    Attributes:
        w: the weights, (D,); (D, K) of the multi-class rule.
        mistakes: the number of mistakes, each followed by an update; () int32.
        passes: the number of passes, a pass without a mistake included; () int32.
        converged: whether the last pass was without a mistake, so that w classifies every example correctly; () bool.
        cycles: whether the weights after some pass equal those before it or before an earlier one: proof that the rule
            cycles forever, since a pass is a function of its initial weights; () bool.
    """

    w: Array
    mistakes: Array
    passes: Array
    converged: Array
    cycles: Array

    def describe(self) -> str:
        """Whether the fit converged, in words; for a single one, not for many under vmap.

        Raises:
            ValueError: the fields have a leading axis of fits.
        """
        if self.mistakes.ndim:
            raise ValueError(
                f"Fit.describe: expected one fit, got fits of shape {self.mistakes.shape}. Take one by "
                "jax.tree.map(lambda leaf: leaf[i], found)."
            )
        two = self.w.ndim == 1
        instead = "pocket or averaged" if two else "logistic.softmax_fit"
        effort = f"{count_of(int(self.mistakes), 'mistake')} in {count_of(int(self.passes), 'pass', 'passes')}"
        if self.converged:
            return f"converged: {effort}, the last without one"
        if self.cycles:
            return (
                f"did not converge and never will: {effort}, and the weights repeat, so no weights separate the "
                f"examples with a positive margin. Use {instead}, or more features."
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
        (...), -1.0 or +1.0, float32 (float64 for float64 x); NaN where w.x is NaN.

    Reference: Rosenblatt (1958), The perceptron: a probabilistic model for information storage and organization in the
        brain.

    Example:
        >>> predict([1.0, -1.0], [[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
        Array([ 1.,  1., -1.], dtype=float32)
    """
    return perceptron_sign(outputs("perceptron.predict", w, x))


def update(w: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Rosenblatt's rule on one example: w <- w + y x if sign(w.x) differs from y, else w is unchanged.

    Args:
        w: weights (D,).
        x: features (D,).
        y: -1 or +1, in the dtype of w.

    Returns:
        (weights (D,), whether the example was misclassified, () bool).

    Reference: Rosenblatt (1958), as above; in this form Novikoff (1962), On convergence proofs on perceptrons.

    Example:
        >>> update(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array(-1.0))  # sign(0) = +1 is wrong here
        (Array([-1., -2.], dtype=float32), Array(True, dtype=bool))
    """
    mistake = predict(w, x) != y
    return jnp.where(mistake, w + y * x, w), mistake


def fit(x: ArrayLike, y: ArrayLike, *, passes: int = 1000) -> Fit:
    """Rosenblatt's algorithm: from w = 0, one example after the other, w <- w + y x on each mistake.

    It stops after a pass without a mistake, which comes after at most `mistake_bound` mistakes if the examples are
    separable (some w has a positive `margin`); when the weights repeat, which proves, up to rounding, that they are not
    (Brent's cycle detection: the weights after 0, 1, 2, 4, .. passes are compared with the later ones); or after
    `passes`.

    Args:
        passes: the largest number of passes through all examples.

    Returns:
        Fit. Under `jax.vmap` every field has a leading axis.

    Reference: Rosenblatt (1958), The perceptron; Minsky & Papert (1969), Perceptrons, chapter 11 (weights that repeat).

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
    """Repeat passes of an online rule until a pass is without a mistake, the weights cycle, or `passes` are done.

    Args:
        rule: `update`, or another rule that changes the weights only on a mistake.
        w: initial weights.
        x: features (N, D).
        y: targets (N,).
        passes: the largest number of passes; may be traced.

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
    """Every step of Rosenblatt's algorithm for a fixed number of passes: one `lax.scan`.

    Args:
        passes: number of passes through all examples.

    Returns:
        (weights (passes N + 1, D), row t before step t, the last after the last step;
        mistakes (passes N,) bool). Step t uses example t mod N.

    Example:
        >>> weights, mistakes = trace([[1.0], [2.0]], [1, -1], passes=2)
        >>> weights[:, 0].tolist(), mistakes.tolist()
        ([0.0, 0.0, -2.0, -1.0, -1.0], [False, True, True, False])
    """
    features, signs = as_signs("perceptron.trace", x, y)
    return _trace(features, signs, require_positive_int("perceptron.trace", "passes", passes))


class Pocket(NamedTuple):
    """The best weights of a run.

    Attributes:
        w: weights (D,) that classify the most examples correctly.
        correct: the number of correctly classified examples out of N, () int32.
        mistakes: the number of mistakes during the run, () int32.
    """

    w: Array
    correct: Array
    mistakes: Array


def pocket(x: ArrayLike, y: ArrayLike, *, key: Key, steps: int = 10_000) -> Pocket:
    """Rosenblatt's rule on randomly drawn examples, which keeps the weights that classify the most examples correctly.

    For examples that are not separable: the rule never settles, while the weights in the pocket only improve. New
    weights are evaluated on all examples (the ratchet). Gallant evaluates them only after a longer run without mistakes
    than that of the weights in the pocket.

    Args:
        key: typed random key of the examples drawn.
        steps: number of examples, drawn with replacement.

    Returns:
        Pocket. Ties keep the earlier weights; the initial ones are 0.

    Reference: Gallant (1990), Perceptron-based learning algorithms (the pocket algorithm with ratchet).

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

    Weights count in proportion to the steps that they last, so that the mean hardly depends on where the rule stops,
    whether the examples are separable or not.

    Args:
        passes: number of passes through all examples; it does not stop early.

    Returns:
        w (D,), for `predict`.

    Reference: Freund & Schapire (1999), Large margin classification using the perceptron algorithm (averaging as the
        cheap variant of voting).

    Example:
        >>> averaged([[1.0], [2.0]], [1, -1], passes=2)  # of 0, -2, -1, -1
        Array([-1.], dtype=float32)
    """
    features, signs = as_signs("perceptron.averaged", x, y)
    return _averaged(features, signs, require_positive_int("perceptron.averaged", "passes", passes))


def margin(w: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """The margin gamma = min_i y_i (w.x_i) / |w|; > 0 only if every example is classified correctly.

    Args:
        w: weights (D,); 0 has margin 0.

    Returns:
        (), in the units of x; negative or 0 if an example is misclassified (0: it lies on the border).

    Reference: Novikoff (1962), On convergence proofs on perceptrons.

    Example:
        >>> margin([0.0, 2.0], [[5.0, 1.0], [0.0, -3.0]], [1, -1])
        Array(1., dtype=float32)
    """
    features, signs = as_signs("perceptron.margin", x, y)
    sides = signs * outputs("perceptron.margin", w, features)
    return safe_divide(jnp.min(sides), jnp.linalg.norm(jnp.asarray(w, features.dtype)))


def mistake_bound(w: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """Novikoff's bound on the mistakes of `fit`, whatever the order of the examples: (R / gamma)^2.

    R = max_i |x_i|, gamma the margin of ANY separator w; the separator of the largest margin gives the smallest bound.

    Args:
        w: weights (D,) of positive `margin`.
        x: features (N, D), including the constant feature if the perceptron has one.

    Returns:
        (), infinite where the margin is not > 0.

    Reference: Novikoff (1962), On convergence proofs on perceptrons, theorem 1.

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
