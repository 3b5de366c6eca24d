"""What a statistic of per-example gradients computes in the backward pass, one use of a parameter at a time."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax

from jaxnn.checks import count_of
from jaxnn.numerics import EXACT, Precision
from jaxnn.per_example.blocks import explicit
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.clip import Clip
from jaxnn.per_example.forms import Form, joined
from jaxnn.per_example.measures import sq_norm, squares
from jaxnn.per_example.streaming.dense import SQ_NORMS, SQUARES, TOTAL, Moments
from jaxnn.per_example.streaming.together import flat_total, moments, moments_by_chunks
from jaxnn.tape import Use
from jaxnn.types import Array, DType, PyTree, Shape


class Parameter(NamedTuple):
    """A trained parameter: its path, such as "['w']", its shape and dtype."""

    path: str
    shape: Shape
    dtype: DType


class Part(NamedTuple):
    """What the uses of one parameter contribute to a statistic.

    Attributes:
        slot: the values of all parameters with this slot are added up; all of one type, which sorts.
        shape: that of the value of one example; None for a sum over examples, of the parameter's shape.
        like: a pytree of arrays of the parameter's shape that `of_use` needs; inside a loop over slices of the
            parameter it gets theirs.
        shared: a pytree of arrays that `of_use` gets unchanged.
    """

    slot: Hashable
    shape: Shape | None = ()
    like: PyTree = ()
    shared: PyTree = ()


class Batch(NamedTuple):
    """N, the number of examples; whether they have weights; how many of these are not 0 (may be traced); the paths of
    the parameters, and the treedef of the gradient."""

    examples: int
    weighted: bool
    kept: Any
    paths: tuple[str, ...]
    structure: Any

    def like_params(self, found: Mapping[Hashable, Any]) -> PyTree:
        """A pytree like the gradient from {path: value}."""
        return jax.tree.unflatten(self.structure, [found[path] for path in self.paths])


@dataclasses.dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients g_i of N examples with respect to a parameter, or to the slice that one iteration of a loop uses.

    Attributes:
        uses: its uses (`jaxnn.tape`), arrays (N, T, ...); g_i is the sum of their gradients.
        leaf: shape and dtype of the parameter or slice.
        examples: N.
        number: (number of the operation, number of the slice), an integer and an int32 array (): other parts of the
            parameter have other numbers.
        factors: c of the sum: (N,), or a function of the norms |g_i| (N,), element-wise; None for 1.
        wanted: the moments that all statistics together need.
        precision: of the products that form the sum alone; a gradient's is None, the ambient one, as in `jax.grad`.
    """

    uses: tuple[Use, ...]
    leaf: jax.ShapeDtypeStruct
    examples: int
    number: tuple[int, Any] = (0, 0)
    factors: Array | Clip | None = None
    wanted: frozenset[str] = frozenset()
    precision: Precision = EXACT

    @functools.cached_property
    def form(self) -> Form:
        """The form of g_i (`jaxnn.per_example.forms`)."""
        return joined(self.uses, self.leaf, self.examples)

    @functools.cached_property
    def _moments(self) -> Moments:
        """The wanted moments, from gradients that are formed once for all of them where that is cheaper."""
        if isinstance(self.form, Chunked):
            return moments_by_chunks(self.form, self.wanted, self.factors, self.precision)
        total = functools.partial(flat_total, self.uses, self.leaf, precision=self.precision)
        return moments(self.form, self.wanted, self.factors, total)

    @functools.cached_property
    def materialized(self) -> Array:
        """g_i of every example, (N, P), row-major: of all at once, where the other properties take chunks."""
        return explicit(self.form)

    @property
    def sq_norms(self) -> Array:
        """|g_i|^2, (N,)."""
        return self._moments[SQ_NORMS] if SQ_NORMS in self.wanted else sq_norm(self.form)

    @property
    def squares(self) -> Array:
        """sum_i g_i^2, (P,)."""
        return self._moments[SQUARES] if SQUARES in self.wanted else squares(self.form)

    @property
    def wide_total(self) -> Array:
        """sum_i c_i g_i, of the parameter's shape, in the accumulation dtype."""
        return self._moments[TOTAL].reshape(self.leaf.shape)

    @property
    def total(self) -> Array:
        """sum_i c_i g_i, of the shape and dtype of the parameter."""
        return self.wide_total.astype(self.leaf.dtype)


def value_of(statistic: Statistic, gradients: Gradients, part: Part) -> Array:
    """`statistic.of_use(gradients, part)`: (N, *part.shape), or the sum over examples, of the shape of the leaf.

    Raises:
        ValueError: a result of another shape.
    """
    value = statistic.of_use(gradients, part)
    summed = part.shape is None
    expected = gradients.leaf.shape if part.shape is None else (gradients.examples, *part.shape)
    # Moments come flat.
    shape = getattr(value, "shape", None)
    if shape != expected and not (summed and shape is not None and math.prod(shape) == math.prod(expected)):
        got = type(value).__name__ if shape is None else f"shape {shape}"
        what = "the sum over examples, of the parameter's shape" if summed else "one value for each example, of shape"
        raise ValueError(
            f"value_and_grad: {type(statistic).__name__}.of_use must return {what} {expected}, as its Part says, got "
            f"{got}; here with {count_of(gradients.examples, 'example')}."
        )
    return value.reshape(expected)


class Statistic(abc.ABC):
    """A statistic that `value_and_grad` computes inside the backward pass: three small functions.

    Uses of one parameter that are streamed are of disjoint entries (slices of a scanned stack), and their values are
    ADDED UP. What does not add up, as a maximum over entries, is put in a place of its own: shape (L,) for a stack of L
    slices, `jax.nn.one_hot(gradients.number[1], L)` times the value of a slice, and `combine` takes the maximum; norms
    by depth are found so too (examples/gpt_norms.py). A parameter with several uses of the same entries comes as ONE
    `Gradients` with all of them.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxnn.per_example import Part, Statistic, value_and_grad
        >>> class EntrySum(Statistic):  # the sum of the entries of each example's gradient
        ...     def prepare(self, param, params):
        ...         return Part(slot="all")
        ...     def of_use(self, gradients, part):
        ...         return gradients.materialized.sum(axis=1)
        ...     def combine(self, found, batch):
        ...         return found["all"]
        >>> vg = value_and_grad(lambda w, x: jnp.vdot(w, x), EntrySum())
        >>> vg(jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0]]))[0][1]
        Array([3., 7.], dtype=float32)
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """The moments of `Gradients` that `of_use` reads: "sq_norms", "squares". They are computed together."""

    adds_up: ClassVar[bool] = False
    """Whether values add up over parts of a parameter of any shapes, as squared norms do: then the output layer of
    `losses.chunked_softmax_cross_entropy` comes in chunks of classes, else in one piece."""

    degree: ClassVar[int | None] = None
    """k, where gradients c g have the statistic c^k of those of g, which the scaled losses of float16 need: 1 for what
    is linear or a norm, 2 for squares. None is unknown."""

    @abc.abstractmethod
    def prepare(self, param: Parameter, params: tuple[Parameter, ...]) -> Part | None:
        """What the uses of `param`, one of all trained `params`, contribute; None for nothing."""

    @abc.abstractmethod
    def of_use(self, gradients: Gradients, part: Part) -> Array:
        """The value of each example, (N, *part.shape), or the sum over examples, of the shape of `gradients.leaf`.

        `part` is what `prepare` returned; inside a loop `part.like` are the slices of this iteration."""

    @abc.abstractmethod
    def combine(self, found: dict[Hashable, Array], batch: Batch) -> PyTree:
        """The result from the values by slot, (N, *shape) or of the parameter's shape."""
