"""Argument checks that raise at trace time and say what they got, what they expected and the remedy.

In the message, `where` is the function, `name` its argument, and `remedy` the last sentence.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import missing
from jaxnn.types import Array, DTypeLike, PyTree


def concrete_number(value: Any) -> float | None:
    """The value as a Python float if it is concrete, None if it is traced or an array with axes.

    Checks of hyperparameters use this: a traced learning rate passes unchecked and meets no Python branch.

    Example:
        >>> concrete_number(0.5)
        0.5
    """
    if isinstance(value, jax.core.Tracer):
        return None
    return float(value) if jnp.ndim(value) == 0 else None


def count_of(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, in the singular for 1; `plural` where it is not noun + "s".

    Example:
        >>> count_of(1, "mistake"), count_of(1200, "pass", "passes"), count_of(0, "epoch")
        ('1 mistake', '1,200 passes', '0 epochs')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def require_number(where: str, name: str, value: Any) -> None:
    """Raise unless the value is one real number, concrete or traced.

    Raises:
        TypeError: a string, None, a complex number or anything else that is not a real number.
        ValueError: an array with axes, which would broadcast against what it multiplies.

    Example:
        >>> require_number("sgd", "learning_rate", jnp.ones(4))
        Traceback (most recent call last):
        ValueError: sgd: learning_rate must be one number, got an array of shape (4,). For several, ...
    """
    if isinstance(value, str | bytes) or not hasattr(value, "__float__") or jnp.iscomplexobj(value):
        raise TypeError(f"{where}: {name} must be a real number, got {value!r} ({type(value).__name__}).")
    if jnp.ndim(value) != 0:
        raise ValueError(
            f"{where}: {name} must be one number, got an array of shape {jnp.shape(value)}. For several, "
            "use jax.vmap over it."
        )


def require_between(where: str, name: str, value: Any, low: float, high: float, *, open_high: bool = False) -> None:
    """Raise ValueError unless low <= value <= high (value < high if `open_high`); a traced number passes.

    Raises:
        TypeError: not a real number.
        ValueError: outside, or an array with axes.

    Example:
        >>> require_between("dropout", "rate", 1.5, 0, 1, open_high=True)
        Traceback (most recent call last):
        ValueError: dropout: rate must lie in [0, 1), got 1.5.
    """
    require_number(where, name, value)
    number = concrete_number(value)
    if number is None:
        return
    if not (low <= number < high or (number == high and not open_high)):
        end = ")" if open_high else "]"
        raise ValueError(f"{where}: {name} must lie in [{low:g}, {high:g}{end}, got {number:g}.")


def require_positive(where: str, name: str, value: Any) -> None:
    """Raise ValueError unless the value is one finite number > 0, TypeError if not a real number; a traced one passes.

    Example:
        >>> require_positive("coverage", "deviation", 0.0)
        Traceback (most recent call last):
        ValueError: coverage: deviation must be a finite number > 0, got 0.
    """
    require_number(where, name, value)
    number = concrete_number(value)
    if number is not None and not 0 < number < math.inf:
        raise ValueError(f"{where}: {name} must be a finite number > 0, got {number:g}.")


def require_positive_int(where: str, name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int; ValueError if it is less than `minimum`, TypeError if it is not an int (nor are 3.0, True).

    Example:
        >>> require_positive_int("dense", "features", 0)
        Traceback (most recent call last):
        ValueError: dense: features must be at least 1, got 0.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{where}: {name} must be an int, got {value!r} ({type(value).__name__}).")
    number = int(value.__index__())
    if number < minimum:
        raise ValueError(f"{where}: {name} must be at least {minimum}, got {number}.")
    return number


def require_floating(where: str, name: str, dtype: DTypeLike, remedy: str = "") -> None:
    """Raise TypeError unless `dtype` is a real floating dtype.

    Example:
        >>> require_floating("dense", "x", jnp.int32, "Convert it: x.astype(jnp.float32).")
        Traceback (most recent call last):
        TypeError: dense: x must have a floating dtype, got int32. Convert it: x.astype(jnp.float32).
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{where}: {name} must have a floating dtype, got {jnp.dtype(dtype).name}. {remedy}".rstrip())


def require_integer(where: str, name: str, dtype: DTypeLike, remedy: str = "") -> None:
    """Raise TypeError unless `dtype` is an integer dtype.

    Example:
        >>> require_integer("embedding", "x", jnp.float32)
        Traceback (most recent call last):
        TypeError: embedding: x must have an integer dtype, got float32.
    """
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{where}: {name} must have an integer dtype, got {jnp.dtype(dtype).name}. {remedy}".rstrip())


def as_numpy(where: str, name: str, value: Any) -> np.ndarray[Any, Any]:
    """Host data as a NumPy array in native byte order, with integers that fit the dtype that JAX gives them.

    JAX itself rejects other byte orders, and casts int64 to int32 silently: 2**32 + 1 becomes 1.

    Args:
        where, name: function and argument, for the message.
        value: an array, a number, nested lists of numbers, or anything else that NumPy converts.

    Returns:
        The array, copied only where needed.

    Raises:
        TypeError: a dict, strings, dates, objects, structured arrays.
        ValueError: a masked array, nested lists of different lengths, an integer outside the dtype that JAX gives it.

    Example:
        >>> as_numpy("fit", "y", [0, 2**32 + 1])
        Traceback (most recent call last):
        ValueError: fit: y must fit into int32, got 4294967297 at index (1,). JAX has no int64 unless ...
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{where}: {name} must be a plain array, got a masked one. Fill it, array.filled(value), or select rows."
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{where}: {name} must be one array, got ragged nested lists ({error}). Pad them to one length."
        ) from None
    if array.dtype.kind in "OSTUMm" or array.dtype.names is not None:
        got = type(value).__name__ + (f" of {array.dtype.name}" if array.ndim else "")
        raise TypeError(
            f"{where}: {name} must be an array of numbers, got {got}. Convert it, e.g. "
            "np.asarray(values, np.float32), or pass the array that it contains."
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind in "iu" and array.size:
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        limits = np.iinfo(dtype)
        if dtype != array.dtype and (array.max() > limits.max or array.min() < limits.min):
            index = tuple(int(i) for i in np.argwhere((array > limits.max) | (array < limits.min))[0])
            raise ValueError(
                f"{where}: {name} must fit into {dtype}, got {array[index]} at index {index}. JAX has no "
                f"{array.dtype} unless jax_enable_x64 is set."
            )
    return array


def as_array(where: str, name: str, value: Any) -> Array:
    """`value` as a JAX array.

    JAX arrays and tracers are unchanged, Python numbers weakly typed, lists that contain tracers stacked; anything else
    goes through `as_numpy`, with its errors.

    Example:
        >>> as_array("predict", "x", {"image": 1.0})
        Traceback (most recent call last):
        TypeError: predict: x must be an array of numbers, got dict. Convert it, ...
    """
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, bool | int | float | complex):
        return jnp.asarray(value)  # weakly typed, unlike a NumPy array
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        if isinstance(value, list | tuple):
            return jnp.asarray(value)
        raise TypeError(f"{where}: {name} must be an array of numbers, got {type(value).__name__}.")
    return jnp.asarray(as_numpy(where, name, value))


def as_arrays(where: str, name: str, tree: PyTree) -> PyTree:
    """The pytree with each leaf converted by `as_array`; a list is one leaf (an array), not a pytree of numbers.

    Example:
        >>> as_arrays("make_step", "x", {"image": [[1.0, 2.0]]})
        {'image': Array([[1., 2.]], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: as_array(where, name, leaf), tree, is_leaf=lambda leaf: isinstance(leaf, list))


def require_same_shape(where: str, **arrays: Array) -> None:
    """Raise ValueError unless all the named arrays have one shape: (4, 1) against (4,) never broadcasts silently.

    Example:
        >>> require_same_shape("mse", outputs=jnp.zeros((4, 1)), targets=jnp.zeros(4))
        Traceback (most recent call last):
        ValueError: mse: outputs and targets must have the same shape, got outputs (4, 1), targets (4,). ...
    """
    shapes = {name: jnp.shape(a) for name, a in arrays.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"{where}: {' and '.join(shapes)} must have the same shape, got {got}. "
            "Nothing is broadcast here: reshape one of them (x[:, None] adds an axis, x.squeeze(-1) removes one)."
        )


def require_leading_axis(
    where: str, name: str, tree: PyTree, remedy: str = "", *, size: str = "N", minimum: int = 1
) -> int:
    """The size of axis 0 that all arrays of a pytree share; in messages it is called `size`, by default "N".

    Raises:
        ValueError: no array, one without axes, two sizes, or less than the minimum.

    Example:
        >>> require_leading_axis("fit", "train x and y", (jnp.ones((3, 2)), jnp.ones(4)))
        Traceback (most recent call last):
        ValueError: fit: train x and y must be arrays (N, ...) with the same N >= 1, got shapes (3, 2), (4,).
    """
    shapes = [jnp.shape(x) for x in jax.tree.leaves(tree)]
    first = {shape[:1] for shape in shapes}
    if len(first) != 1 or first == {()} or shapes[0][0] < minimum:
        got = f"shapes {', '.join(map(str, shapes))}" if shapes else "no array"
        if shapes and first == {()}:
            remedy = f"A list is a pytree of numbers: convert it by np.asarray. {remedy}"
        expected = f"arrays ({size}, ...) with the same {size} >= {minimum}"
        raise ValueError(f"{where}: {name} must be {expected}, got {got}. {remedy}".rstrip())
    return shapes[0][0]


def require_key(where: str, key: Any) -> None:
    """Raise ValueError for None or an array of keys, TypeError for anything else but a typed random key.

    Example:
        >>> require_key("dropout", None)
        Traceback (most recent call last):
        ValueError: dropout: needs a random key, got None. Pass key=jax.random.key(0)...
    """
    if key is None:
        raise ValueError(
            f"{where}: needs a random key, got None. Pass key=jax.random.key(0), in training a new one for each step."
        )
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        got = f"an array of {key.dtype} {jnp.shape(key)}" if hasattr(key, "dtype") else f"{key!r}"
        raise TypeError(f"{where}: key must be a typed key, got {got}. Make one with jax.random.key(seed).")
    if jnp.ndim(key) != 0:
        raise ValueError(
            f"{where}: key must be one key, got an array of keys {jnp.shape(key)}. Pass one of them, keys[0], or "
            "jax.vmap over them."
        )


def require_function(where: str, name: str, value: Any, example: str, *, optional: bool = True) -> None:
    """Raise TypeError unless `value` is callable, or None if `optional`.

    Example:
        >>> require_function("mean_loss", "loss", "mse", "losses.mse", optional=False)
        Traceback (most recent call last):
        TypeError: mean_loss: loss must be a function, such as losses.mse; got 'mse'.
    """
    if not callable(value) and not (optional and value is None):
        end = ", or None" if optional else ""
        raise TypeError(f"{where}: {name} must be a function, such as {example}{end}; got {value!r}.")


def require_scalar_function(where: str, name: str, f: Any, x: PyTree, remedy: str) -> None:
    """Raise unless f(x) is one floating number: ValueError for another shape, TypeError for another dtype or a ufunc.

    Example:
        >>> require_scalar_function("minimize", "f", lambda x: x**2, jnp.ones(3), "Take the sum.")
        Traceback (most recent call last):
        ValueError: minimize: f must return one number, got shape (3,). Take the sum.
    """
    if isinstance(f, np.ufunc):  # it would fail on a traced array, in words of NumPy
        raise TypeError(f"{where}: {name} must be a function of JAX, got numpy.{f.__name__}. Pass jnp.{f.__name__}.")
    found: Any = jax.eval_shape(f, x)
    shape = jax.tree.map(jnp.shape, found)
    if shape != ():
        raise ValueError(f"{where}: {name} must return one number, got shape {shape}. {remedy}")
    require_floating(where, f"the value of {name}", found.dtype, "Compute it from x in floating point.")


def nearest_name(word: str, known: Iterable[str]) -> str:
    """A suffix for messages about an unknown name: the known names spelt alike; "" if there are none.

    Example:
        >>> nearest_name("adma", ["sgd", "adam"])
        " (did you mean 'adam'?)"
    """
    close = difflib.get_close_matches(word, list(known), n=3)
    alike = {name: difflib.SequenceMatcher(None, word, name).ratio() for name in close}
    *others, last = ["", *(repr(name) for name in close if alike[name] > max(alike.values()) - 0.1)]
    before = ", ".join(name for name in others if name)
    return f" (did you mean {before}{' or ' if before else ''}{last}?)" if last else ""


def pair(where: str, name: str, value: int | Sequence[int], dims: int = 2, minimum: int = 1) -> tuple[int, ...]:
    """An int, or `dims` ints, >= `minimum` as a tuple with one int per axis: 3 -> (3, 3); (3, 5) stays.

    Example:
        >>> pair("conv", "stride", 2)
        (2, 2)
    """
    if not hasattr(value, "__index__") and not hasattr(value, "__len__"):
        raise TypeError(f"{where}: {name} must be an int or {dims} ints, got {value!r}.")
    values = (value,) * dims if hasattr(value, "__index__") else tuple(value)  # type: ignore[arg-type]
    if len(values) != dims:
        raise ValueError(f"{where}: {name} must be an int or {dims} ints, got {value!r}.")
    return tuple(require_positive_int(where, name, v, minimum) for v in values)


if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
