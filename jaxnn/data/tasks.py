"""Synthetic tasks on sequences, drawn anew for every batch: what an architecture can remember, count and look up.

| task | what is asked at a position | inputs, targets |
|---|---|---|
| `copying` | the symbols read before a delay | tokens; tokens |
| `adding` | the sum of the two marked numbers | (n, T, 2) floats; (n, 1) |
| `parity` | whether the ones so far are odd in number | bits; bits |
| `induction` | the token that followed the last time | tokens; the next token |
| `sorting` | the next of the tokens in ascending order | tokens; the next token |
| `dyck` | the type of the bracket that closes next | tokens; the next token |

Targets of tokens are labels in [0, `vocabulary(task)`), and -1 at a position without one:
`functools.partial(losses.softmax_cross_entropy, ignore_index=-1)` is the loss. Every example has the same length T.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn.checks import require_positive_int
from jaxnn.data.draws import Draws
from jaxnn.types import Array, Key, PyTree

NONE = -1
"""The label of a position without a target."""


def vocabulary(task: Draws) -> int:
    """The number of tokens V of a task on tokens: those of x and the labels of y are in [0, V).

    Raises:
        ValueError: the task's inputs are not tokens, as those of `adding`.

    Example:
        >>> vocabulary(copying(steps=1)), vocabulary(parity(steps=1))
        (10, 2)
    """
    found = getattr(task.draw, "vocabulary", None)
    if not isinstance(found, int):
        raise ValueError(f"vocabulary: the inputs of {task.draw!r} are not tokens of one of these tasks.")
    return found


@dataclasses.dataclass(frozen=True)
class Task:
    """The settings of a draw, ints of at least 1."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            require_positive_int(type(self).__name__.lower(), field.name, getattr(self, field.name))


@dataclasses.dataclass(frozen=True)
class Copying(Task):
    """Draws examples of `copying`."""

    symbols: int
    length: int
    delay: int

    @property
    def vocabulary(self) -> int:
        """K symbols, the blank and the go signal."""
        return self.symbols + 2

    def __call__(self, key: Key, arrays: PyTree, n: int) -> tuple[Array, Array]:
        seen = _tokens(key, n, self.length, self.symbols)
        blank = _filled(n, self.delay - 1, self.symbols), _filled(n, self.length, self.symbols)
        x = jnp.concatenate([seen, blank[0], _filled(n, 1, self.symbols + 1), blank[1]], axis=1)
        return x, jnp.concatenate([_filled(n, self.length + self.delay, NONE), seen], axis=1)


def copying(symbols: int = 8, length: int = 8, delay: int = 16, *, steps: int) -> Draws:
    """Recall a sequence of symbols after a delay.

    x = s_1 .. s_L, D - 1 blanks, the go signal, L blanks;   y = s_1 .. s_L at the last L positions

    A memoryless guess costs log K nats a position; in the paper the blanks before are targets, too.

    In Arjovsky et al. a tanh RNN does not beat the guess at delays from 100 on and an LSTM only at 100, since gradients
    through the delay vanish; a unitary recurrence learns longer ones. A recurrent state must hold L log2 K bits;
    attention looks the symbols up at any distance (Jelassi et al.). The gates of one layer of the linear recurrence see
    the present token only, not its place, by which the symbols have to be kept apart.

    Args:
        symbols: K >= 1; blank is token K, go is K + 1, the vocabulary K + 2.
        length: L, symbols to recall.
        delay: D >= 1, positions from the last symbol to the go signal.
        steps: batches of one epoch.

    Returns:
        Draws of x (n, 2L + D) int32 and y (n, 2L + D) int32, symbols in [0, K) or -1.

    References:
        Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory (the first tasks of this kind).
        Arjovsky, M., Shah, A. & Bengio, Y. (2016). Unitary evolution recurrent neural networks, section 4.1.
        Jelassi, S., Brandfonbrener, D., Kakade, S. M. & Malach, E. (2024). Repeat after me: transformers are better
        than state space models at copying.

    Example:
        >>> x, y = copying(2, 3, 2, steps=1).batch(jax.random.key(0), 1)
        >>> x, y
        (Array([[1, 0, 0, 2, 3, 2, 2, 2]], dtype=int32), Array([[-1, -1, -1, -1, -1,  1,  0,  0]], dtype=int32))
    """
    return Draws((), Copying(symbols, length, delay), steps)


@dataclasses.dataclass(frozen=True)
class Adding(Task):
    """Draws examples of `adding`."""

    length: int

    def __call__(self, key: Key, arrays: PyTree, n: int) -> tuple[Array, Array]:
        half = self.length // 2
        of_values, of_first, of_second = jax.random.split(key, 3)
        values = jax.random.uniform(of_values, (n, self.length))
        first = jax.random.randint(of_first, (n, 1), 0, half)
        second = jax.random.randint(of_second, (n, 1), half, self.length)
        places = lax.broadcasted_iota(first.dtype, (1, self.length), 1)
        markers = ((places == first) | (places == second)).astype(values.dtype)
        return jnp.stack([values, markers], axis=2), jnp.sum(values * markers, axis=1, keepdims=True)


def adding(length: int = 50, *, steps: int) -> Draws:
    """The sum of two marked numbers of a sequence, a regression.

    x_t = (v_t, m_t), v_t uniform on [0, 1), m_t = 1 at one position of each half and 0 elsewhere;   y = sum_t m_t v_t

    The constant 1 has a mean squared error of 1/6 = 0.167, the variance of y. A tanh RNN stays near it at lengths of
    some hundreds (Le et al.), since its gradient vanishes; an LSTM solves 1,000 (Hochreiter & Schmidhuber, with the
    first marker among the first ten, and unequal lengths). A linear recurrence that holds h without a marker, f = 1,
    and reads with f = a at one ends at (1 - a) (a v_1 + v_2): nearly equal weights only for a near 1.

    Args:
        length: T >= 2.
        steps: batches of one epoch.

    Returns:
        Draws of x (n, T, 2) and y (n, 1), both float32 (float64 if `jax.enable_x64` is on).

    References:
        Hochreiter, S. & Schmidhuber, J. (1997). Long short-term memory, experiment 4.
        Le, Q. V., Jaitly, N. & Hinton, G. E. (2015). A simple way to initialize recurrent networks of rectified linear
        units, section 4.1 (a marker in each half).

    Example:
        >>> x, y = adding(4, steps=1).batch(jax.random.key(0), 2)
        >>> x.shape, x[..., 1].sum(axis=1), bool(((x[..., 0] * x[..., 1]).sum(axis=1) == y[:, 0]).all())
        ((2, 4, 2), Array([2., 2.], dtype=float32), True)
    """
    return Draws((), Adding(require_positive_int("adding", "length", length, 2)), steps)


@dataclasses.dataclass(frozen=True)
class Parity(Task):
    """Draws examples of `parity`."""

    length: int
    vocabulary = 2

    def __call__(self, key: Key, arrays: PyTree, n: int) -> tuple[Array, Array]:
        x = _tokens(key, n, self.length, 2)
        return x, jnp.cumsum(x, axis=1, dtype=jnp.int32) % 2


def parity(length: int = 32, *, steps: int) -> Draws:
    """The parity of the bits read so far: y_t = (x_1 + .. + x_t) mod 2.

    The simplest state that a network must track: a finite automaton of two states, which one tanh unit or LSTM cell
    can hold for any length. The output of soft attention depends on one bit by O(1 / T), so a transformer whose
    parameters do not grow with T is sure of its answer at no large T (Hahn); it can count by a uniform average and
    layer normalization (Chiang & Cholak), which gradient descent rarely finds. A linear recurrence h -> f h + c
    needs f = -1 at a one; with gates in [0, 1], as those of `LinearRecurrence`, no number of layers computes parity at
    all lengths in finite precision (Sarrof et al.; Grazzi et al.), and diagonal recurrences in general cannot track the
    states of harder automata (Merrill et al.).

    Args:
        length: T.
        steps: batches of one epoch.

    Returns:
        Draws of x (n, T) int32 and y (n, T) int32, both 0 or 1; each position has a target. The vocabulary is 2.

    References:
        Hahn, M. (2020). Theoretical limitations of self-attention in neural sequence models.
        Chiang, D. & Cholak, P. (2022). Overcoming a theoretical limitation of self-attention.
        Merrill, W., Petty, J. & Sabharwal, A. (2024). The illusion of state in state-space models.
        Sarrof, Y., Veitsman, Y. & Hahn, M. (2024). The expressive capacity of state space models: a formal language
        perspective.
        Grazzi, R., Siems, J., Zela, A., Franke, J. K. H., Hutter, F. & Pontil, M. (2025). Unlocking state-tracking in
        linear RNNs through negative eigenvalues.

    Example:
        >>> parity(6, steps=1).batch(jax.random.key(1), 1)
        (Array([[0, 1, 0, 1, 0, 0]], dtype=int32), Array([[0, 1, 1, 0, 0, 0]], dtype=int32))
    """
    return Draws((), Parity(length), steps)


@dataclasses.dataclass(frozen=True)
class Induction(Task):
    """Draws examples of `induction`."""

    symbols: int
    length: int
    shortest: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shortest <= self.length <= self.symbols:
            raise ValueError(
                "induction: the tokens of a sequence are distinct: shortest <= length <= symbols, got "
                f"{self.shortest}, {self.length}, {self.symbols}."
            )

    @property
    def vocabulary(self) -> int:
        """The symbols."""
        return self.symbols

    def __call__(self, key: Key, arrays: PyTree, n: int) -> tuple[Array, Array]:
        of_tokens, of_period = jax.random.split(key)
        every = lax.broadcasted_iota(jnp.int32, (n, self.symbols), 1)
        tokens = jax.random.permutation(of_tokens, every, axis=1, independent=True)
        period = jax.random.randint(of_period, (n, 1), self.shortest, self.length + 1, jnp.int32)
        places = lax.broadcasted_iota(jnp.int32, (n, 2 * self.length + 1), 1) % period
        z = jnp.take_along_axis(tokens, places, axis=1)
        return z[:, :-1], jnp.concatenate([_filled(n, self.length, NONE), z[:, self.length + 1 :]], axis=1)


def induction(symbols: int = 32, length: int = 16, *, shortest: int | None = None, steps: int) -> Draws:
    """A random sequence that repeats: the next token is the one that followed the present token the last time.

    x_t = s_(t mod P), t = 0 .. 2L - 1, s of P distinct tokens, P uniform on shortest .. L;   y_t = x_(t+1) for t >= L

    Two layers of attention solve it by an induction head: a head of the first writes the previous token to each
    position, one of the second attends to the position after the previous occurrence (Elhage et al., Olsson et al.).
    One layer needs a size that grows with the length (Sanford et al.). With P = L always (`shortest=length`) one head
    that looks L - 1 positions back is enough, so P varies by default. A recurrent network must hold all pairs of
    neighbours in its state.

    Args:
        symbols: V >= length, the vocabulary.
        length: L, the longest period; T = 2L.
        shortest: the shortest period; None for L / 2, rounded up; L for the same sequence twice.
        steps: batches of one epoch.

    Returns:
        Draws of x (n, 2L) int32 and y (n, 2L) int32, -1 in the first half.

    References:
        Elhage, N. et al. (2021). A mathematical framework for transformer circuits.
        Olsson, C. et al. (2022). In-context learning and induction heads.
        Sanford, C., Hsu, D. & Telgarsky, M. (2024). One-layer transformers fail to solve the induction heads task.

    Example:
        >>> induction(8, 3, shortest=3, steps=1).batch(jax.random.key(0), 1)
        (Array([[0, 2, 4, 0, 2, 4]], dtype=int32), Array([[-1, -1, -1,  2,  4,  0]], dtype=int32))
    """
    length = require_positive_int("induction", "length", length)
    return Draws((), Induction(symbols, length, (length + 1) // 2 if shortest is None else shortest), steps)


@dataclasses.dataclass(frozen=True)
class Sorting(Task):
    """Draws examples of `sorting`."""

    symbols: int
    length: int

    @property
    def vocabulary(self) -> int:
        """The symbols and the separator."""
        return self.symbols + 1

    def __call__(self, key: Key, arrays: PyTree, n: int) -> tuple[Array, Array]:
        given = _tokens(key, n, self.length, self.symbols)
        ordered = jnp.sort(given, axis=1)
        x = jnp.concatenate([given, _filled(n, 1, self.symbols), ordered[:, :-1]], axis=1)
        return x, jnp.concatenate([_filled(n, self.length, NONE), ordered], axis=1)


def sorting(symbols: int = 16, length: int = 12, *, steps: int) -> Draws:
    """Tokens, a separator, and the tokens in ascending order, to be predicted one by one.

    x = a_1 .. a_L, the separator, b_1 .. b_(L-1);   y = b_1 .. b_L at the last L positions, b = sort(a)

    Teacher-forced: b_(j-1) is read where b_j is asked for. The next token is the smallest of a that is not used up: a
    head that attends to tokens just above the present one finds it, and repeated tokens have to be counted. A recurrent
    network must hold the counts of all K tokens; their order is of no use to it.

    Args:
        symbols: K, tokens 0 .. K - 1 drawn with replacement; the separator is K, the vocabulary K + 1.
        length: L.
        steps: batches of one epoch.

    Returns:
        Draws of x (n, 2L) int32 and y (n, 2L) int32, -1 at the first L positions.

    Reference: Graves, A., Wayne, G. & Danihelka, I. (2014). Neural Turing machines (priority sort).

    Example:
        >>> sorting(10, 3, steps=1).batch(jax.random.key(0), 1)
        (Array([[ 9,  0,  2, 10,  0,  2]], dtype=int32), Array([[-1, -1, -1,  0,  2,  9]], dtype=int32))
    """
    return Draws((), Sorting(symbols, length), steps)


@dataclasses.dataclass(frozen=True)
class Dyck(Task):
    """Draws examples of `dyck`."""

    types: int
    depth: int
    length: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length % 2:
            raise ValueError(f"dyck: a balanced word has an even length, got {self.length}.")

    @property
    def vocabulary(self) -> int:
        """Opening and closing brackets."""
        return 2 * self.types

    def __call__(self, key: Key, arrays: PyTree, n: int) -> tuple[Array, Array]:
        of_coins, of_types = jax.random.split(key)
        coins = jax.random.bernoulli(of_coins, shape=(self.length, n))
        types = _tokens(of_types, self.length, n, self.types)
        left = jnp.arange(self.length, 0, -1, dtype=jnp.int32)

        def step(carry: tuple[Array, Array], now: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
            (stack, depth), (coin, kind, left) = carry, now
            # As many brackets are open as positions are left: all that follow close.
            closes = ((depth > 0) & coin) | (depth == jnp.minimum(left, self.depth))
            top = jnp.take_along_axis(stack, jnp.maximum(depth - 1, 0)[:, None], axis=1)[:, 0]
            pushed = (lax.broadcasted_iota(jnp.int32, stack.shape, 1) == depth[:, None]) & ~closes[:, None]
            stack = jnp.where(pushed, kind[:, None], stack)
            return (stack, depth + jnp.where(closes, -1, 1)), jnp.where(closes, self.types + top, kind)

        first = _filled(n, self.depth, 0), jnp.zeros(n, jnp.int32)
        x = lax.scan(step, first, (coins, types, left))[1].T
        after = jnp.concatenate([x[:, 1:], _filled(n, 1, 0)], axis=1)
        return x, jnp.where(after >= self.types, after, NONE)


def dyck(types: int = 4, depth: int = 4, length: int = 32, *, steps: int) -> Draws:
    """Balanced brackets of k types and bounded depth: which bracket closes where one closes next.

    y_t = x_(t+1) if it closes a bracket, else -1

    The words are those of the language Dyck-(k, m). A fair coin opens or closes where both are possible: not at depth 0
    nor at depth m, nor where as many brackets are open as positions are left. Types are uniform.

    The type is that of the last bracket that is open; a guess is right in 1 / k of cases. Without a bound no fixed-size
    soft or hard attention recognizes all lengths (Hahn). With it, recurrent networks need O(m log k) units (Hewitt et
    al.) and transformers two layers and O(log k) features (Yao et al.): a head counts the depth, another attends to the
    last bracket opened at this depth.

    Args:
        types: k; token i opens a bracket of type i, k + i closes it; the vocabulary is 2k.
        depth: m, the largest number of open brackets.
        length: T, even.
        steps: batches of one epoch.

    Returns:
        Draws of x (n, T) int32 and y (n, T) int32, closing tokens in [k, 2k), or -1.

    References:
        Hahn, M. (2020). Theoretical limitations of self-attention in neural sequence models.
        Hewitt, J., Hahn, M., Ganguli, S., Liang, P. & Manning, C. D. (2020). RNNs can generate bounded hierarchical
        languages with optimal memory.
        Yao, S., Peng, B., Papadimitriou, C. & Narasimhan, K. (2021). Self-attention networks can process bounded
        hierarchical languages.

    Example:
        >>> dyck(2, 2, 6, steps=1).batch(jax.random.key(0), 1)
        (Array([[0, 2, 0, 2, 1, 3]], dtype=int32), Array([[ 2, -1,  2, -1,  3, -1]], dtype=int32))
    """
    return Draws((), Dyck(types, depth, length), steps)


def _tokens(key: Key, rows: int, columns: int, size: int) -> Array:
    """(rows, columns) int32, uniform in [0, size)."""
    return jax.random.randint(key, (rows, columns), 0, size, jnp.int32)


def _filled(rows: int, columns: int, token: int) -> Array:
    """(rows, columns) int32, all the same token."""
    return jnp.full((rows, columns), token, jnp.int32)
