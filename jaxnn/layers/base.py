"""The `Layer`: a pair of pure functions, with the metadata for backward rules, tables and drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import as_array, as_arrays, require_key
from jaxnn.layers.sequences import Sequences
from jaxnn.types import Array, DType, Key, Params, Shape, State

Example: TypeAlias = Shape | jax.ShapeDtypeStruct | Array | Any
"""One example, without the batch axis: its shape (of float32), or anything with a shape and a dtype; of padded
sequences, or of sequences with a context, a `Sequences` of these."""


@dataclass(frozen=True, eq=False)
class Kind:
    """The key by which a layer's backward rule is found: one object per kind of layer, compared by identity.

    Example:
        >>> Kind("dense")
        Kind('dense')
    """

    name: str

    def __repr__(self) -> str:
        return f"Kind({self.name!r})"


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer or a network: two pure functions and their metadata.

    Attributes:
        init: `init(key, example) -> (params, state)`; `example` is the shape of ONE input, e.g. (28, 28, 1), or an
            array or `jax.ShapeDtypeStruct` if the dtype is not float32.
        apply: `apply(params, state, x, *, key=None, train=False) -> (y, state)`, x and y with a leading batch axis.
        kind: the key object by which a backward rule is found.
        options: the static settings of the layer.
        parts: the layers that it is composed of; empty for a leaf.
        sequences: whether `apply` takes `Sequences` itself; any other layer is applied to their values.

    Layers are compared and hashed by identity, so they can be static arguments of `jax.jit`.

    A custom layer is made from two functions (without state or randomness, by `stateless`). `apply` takes the key and
    the mode, and returns the pair (y, state):

        >>> def init(key, example):  # example.shape is that of one input, without the batch
        ...     return {"w": jnp.ones(example.shape[-1:])}, {"steps": jnp.zeros(())}
        >>> def apply(params, state, x, *, key=None, train=False):
        ...     return x * params["w"][None, :], {"steps": state["steps"] + train}
        >>> scaling = Layer(init, apply, Kind("scaling"))
        >>> params, state = scaling.init(jax.random.key(0), (3,))
        >>> scaling.apply(params, state, jnp.ones((2, 3)), train=True)[1]
        {'steps': Array(1., dtype=float32)}

    Raises:
        TypeError: `kind` is not a `Kind`; from `init`: the key is not a typed key, or the example has no shape.
        ValueError: from `init`: the key is None or an array of keys, or a bare shape has a size < 1.

    Example:
        >>> from jaxnn.layers import Dense
        >>> layer = Dense(4)
        >>> params, state = layer.init(jax.random.key(0), (3,))
        >>> layer.predict(params, state, jnp.ones((2, 3))).shape
        (2, 4)
    """

    init: Callable[[Key, Any], tuple[Params, State]]
    apply: Callable[..., tuple[Array, State]]
    kind: Kind
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Layer, ...] = ()
    sequences: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Kind):
            raise TypeError(f'Layer: kind must be a Kind, such as Kind("mine"), got {self.kind!r}.')
        init, apply = self.init, self.apply

        def checked_init(key: Key, example: Example) -> tuple[Params, State]:
            require_key(f"{self.kind.name}.init", key)
            one = as_example(example)
            return init(key, one if self.sequences or not isinstance(one, Sequences) else one.values)

        def applied(
            params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
        ) -> tuple[Any, State]:
            if self.sequences or not isinstance(x, Sequences):
                return apply(params, state, x, key=key, train=train)
            y, state = pair_of(self, apply(params, state, x.counted, key=key, train=train))
            return x.with_outputs(y), state

        object.__setattr__(self, "init", checked_init)
        object.__setattr__(self, "apply", applied)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Raise TypeError: a layer is not a function or factory."""
        raise TypeError(
            f"{self.kind.name} is a layer already and is not called: write it without parentheses in serial(...), and "
            "apply it with layer.apply(params, state, x) or layer.predict(params, state, x)."
        )

    def predict(self, params: Params, state: State, x: Array | Sequences) -> Any:
        """The output in evaluation mode: no key, no randomness; running statistics are used, not updated.

        Example:
            >>> from jaxnn.layers import Relu
            >>> Relu.predict((), (), jnp.array([[-1.0, 2.0]]))
            Array([[0., 2.]], dtype=float32)
        """
        return pair_of(self, self.apply(params, state, as_batch("predict", "x", x), key=None, train=False))[0]

    def __repr__(self) -> str:
        settings = [f"{name}={_brief(value)}" for name, value in self.options.items()]
        return f"{self.kind.name}({', '.join([*map(repr, self.parts), *settings])})"


def stateless(
    kind: Kind,
    apply: Callable[[Params, Array], Array],
    init: Callable[[Key, jax.ShapeDtypeStruct], Params] = lambda key, example: (),
    **options: Any,
) -> Layer:
    """A leaf layer without state or randomness, from `apply(params, x) -> y`.

    Args:
        kind: its key object.
        apply: the forward function, without the key and the mode that it would ignore.
        init: `init(key, example) -> params`; without it the layer has no parameters.
        options: the static settings, for rules and tables.

    Example:
        >>> double = stateless(Kind("double"), lambda params, x: 2 * x)
        >>> double.predict((), (), jnp.ones((1, 2)))
        Array([[2., 2.]], dtype=float32)
    """

    def layer_init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        return init(key, example), ()

    def layer_apply(
        params: Params, state: State, x: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, State]:
        return apply(params, x), state

    return Layer(layer_init, layer_apply, kind, MappingProxyType(options))


def pair_of(layer: Layer, result: Any) -> tuple[Array, State]:
    """The result of a layer's `apply`, checked: a custom layer may have forgotten the state."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{layer.kind.name}: apply must return the pair (y, state), got {type(result).__name__}.")
    return result


def as_batch(where: str, name: str, x: Any) -> Any:
    """Inputs as JAX arrays: one array (N, ...), or `Sequences` of them."""
    if isinstance(x, Sequences):
        return as_arrays(where, name, x)
    if isinstance(x, tuple) and all(hasattr(part, "shape") for part in x):
        raise TypeError(
            f"{where}: {name} must be one array or Sequences, got a tuple of {len(x)} arrays. Target and source of an "
            "encoder-decoder network are Sequences(target, context=Sequences(source))."
        )
    return as_array(where, name, x)


def as_example(example: Example) -> Any:
    """The shape and dtype of one example, a `Sequences` of them for `Sequences`; a bare shape means float32."""
    if hasattr(example, "shape") and hasattr(example, "dtype"):
        return jax.ShapeDtypeStruct(example.shape, example.dtype)
    if isinstance(example, Sequences):
        return jax.tree.map(as_example, example)
    if not isinstance(example, tuple | list) or not all(hasattr(n, "__index__") for n in example):
        raise TypeError(
            f"init: expected the shape of ONE example, such as (28, 28, 1) or (784,), got {example!r}. "
            "For inputs that are not float32 pass jax.ShapeDtypeStruct(shape, dtype)."
        )
    sizes = tuple(int(n) for n in example)
    if any(n < 1 for n in sizes):
        raise ValueError(f"init: every axis of an example must have size >= 1, got {sizes}; leave out the batch axis.")
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def output_example(layer: Layer, params: Params, state: State, example: Example) -> Any:
    """The shape and dtype of one output, by abstract evaluation of `predict` on a batch of one."""
    batch = jax.tree.map(lambda one: jax.ShapeDtypeStruct((1, *one.shape), one.dtype), as_example(example))
    y = jax.eval_shape(layer.predict, params, state, batch)
    return jax.tree.map(lambda y: jax.ShapeDtypeStruct(y.shape[1:], y.dtype), y)


def param_dtype(example: jax.ShapeDtypeStruct) -> DType:
    """The dtype of parameters for such an example: its own if floating, else float32."""
    return example.dtype if jnp.issubdtype(example.dtype, jnp.floating) else jnp.dtype(jnp.float32)


def param(where: str, params: Params, name: str) -> Array:
    """params[name], or a ValueError that says what params should be."""
    if not isinstance(params, Mapping) or name not in params:
        got = (
            f"a dict of {sorted(params)}"
            if isinstance(params, Mapping)
            else f"a {type(params).__name__} {params!r:.40}"
        )
        raise ValueError(
            f"{where}: params must be a dict with {name!r}, as init makes it, got {got}. "
            "A layer's or network's init returns the pair (params, state): pass them separately."
        )
    return params[name]


def require_net(where: str, net: Any) -> None:
    """Raise TypeError unless `net` is a Layer."""
    if not isinstance(net, Layer):
        hint = (
            " Call it first, as in models.cnn(). A model of another library becomes one by train.from_flax, "
            "train.from_equinox or layers.stateless(layers.Kind(name), apply, init)."
            if callable(net)
            else ""
        )
        raise TypeError(f"{where}: net must be a Layer, such as models.serial(...), got {net!r:.100}.{hint}")


def name_of(layer: Layer) -> str:
    """The name of a layer in tables: that of an activation's function, else that of its kind.

    Example:
        >>> from jaxnn.layers import Dense, PRelu, Tanh
        >>> name_of(Dense(2)), name_of(Tanh), name_of(PRelu())
        ('dense', 'tanh', 'prelu')
    """
    if "form" in layer.options:
        return str(layer.options["form"])
    return str(getattr(layer.options.get("function"), "__name__", layer.kind.name))


def _brief(value: Any) -> str:
    """An option as a table shows it: functions by name."""
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    return repr(value) if not isinstance(value, np.ndarray | jax.Array) else f"array{value.shape}"
