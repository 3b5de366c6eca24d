"""What a user may get wrong, and what the message says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import per_example
from jaxnn.per_example import record

PARAMS = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}
X, Y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1], np.int32)


def of_one(p: Any, x: Any, y: Any) -> Any:
    return -jax.nn.log_softmax(x @ p["w"] + p["b"])[y]


def of_batch(p: Any, x: Any, y: Any) -> Any:
    """A batched loss: needs an axis of examples in x and y."""
    logits = jnp.einsum("nd,dk->nk", x, p["w"]) + p["b"]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))


def each_of_batch(p: Any, x: Any, y: Any) -> Any:
    return jnp.square(x @ p["w"] - y)


def test_a_batched_loss_is_told_how_to_be_one_of_a_single_example() -> None:
    with pytest.raises(Exception, match=r".") as caught:
        record(of_batch)(PARAMS, X, Y)
    notes = "\n".join(caught.value.__notes__)
    assert "calls the loss with ONE example" in notes
    assert "model(params, x[None])[0]" in notes
    assert "float32[3], int32[]" in notes


def test_a_loss_of_several_numbers() -> None:
    with pytest.raises(ValueError, match=r"must be one number, of shape \(\), got shape \(2,\)") as caught:
        record(each_of_batch)(PARAMS, X, Y)
    assert "ONE example" in "\n".join(caught.value.__notes__)


def test_a_loss_that_is_no_real_number() -> None:
    with pytest.raises(TypeError, match="must be a real floating number, got int32"):
        record(lambda p, x, y: y)(PARAMS, X, Y)
    with pytest.raises(TypeError, match="complex64"):
        record(lambda p, x, y: x[0] + 1j)(PARAMS, X, Y)


def test_aux_without_has_aux_and_has_aux_without_aux() -> None:
    with pytest.raises(TypeError, match="has_aux=True"):
        record(lambda p, x, y: (of_one(p, x, y), x))(PARAMS, X, Y)
    with pytest.raises(TypeError, match=r"must return a pair \(loss, aux\)"):
        record(of_one, has_aux=True)(PARAMS, X, Y)


@pytest.mark.parametrize(("result", "name"), [(None, "NoneType"), ({"loss": 1.0}, "dict")])
def test_a_loss_that_returns_something_else(result: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"must return one number, got {name}"):
        record(lambda p, x, y: result)(PARAMS, X, Y)


def test_an_argument_named_twice() -> None:
    with pytest.raises(ValueError, match="each argument once"):
        record(of_one, argnums=(0, 0))(PARAMS, X, Y)


def test_parameters_that_are_not_real_floating_numbers() -> None:
    with pytest.raises(TypeError, match=r"argument 0\['step'\] of int32.*mark it False in trainable"):
        record(of_one)({**PARAMS, "step": np.zeros((), np.int32)}, X, Y)
    with pytest.raises(TypeError, match="key<fry>"):
        record(of_one)({**PARAMS, "key": jax.random.key(0)}, X, Y)
    kept = {"w": True, "b": True, "step": False}
    norms = jax.eval_shape(
        lambda *args: per_example.norms(record(of_one, trainable=kept)(*args)),
        {**PARAMS, "step": np.zeros((), np.int32)}, X, Y,
    )  # fmt: skip
    assert norms.shape == (4,)


def test_parameters_that_are_no_arrays() -> None:
    with pytest.raises(TypeError, match=r"argument 0\['f'\] is not an array but .*Function.*equinox.partition"):
        record(of_one)({**PARAMS, "f": jnp.tanh}, X, Y)
    with pytest.raises(TypeError, match=r"argument 2.*is not an array but str"):
        record(of_one)(PARAMS, X, "labels")


def test_numbers_of_examples_that_differ() -> None:
    with pytest.raises(ValueError, match=r"same number of examples, got \{'argument 1': 4, 'argument 2': 3\}"):
        record(of_one)(PARAMS, X, Y[:3])


def test_no_example_at_all() -> None:
    with pytest.raises(ValueError, match="no argument has an axis of examples"):
        record(lambda p: jnp.sum(p["w"]))(PARAMS)
    with pytest.raises(ValueError, match=r"argument 1 of shape \(\) has no axis 0"):
        record(of_one)(PARAMS, np.float32(1), Y)


@pytest.mark.slow
def test_an_empty_batch_is_a_tape_of_no_example() -> None:
    tape = record(of_one)(PARAMS, X[:0], Y[:0])
    assert per_example.norms(tape).shape == (0,)
    with pytest.raises(ValueError, match="at least 1 example"):
        per_example.clipped_grad(tape, 1.0)


def test_axes() -> None:
    with pytest.raises(ValueError, match="an entry for each of the 3 arguments"):
        record(of_one, in_axes=(None, 0))(PARAMS, X, Y)
    with pytest.raises(ValueError, match=r"in_axes\[0\] must be None: parameters are shared"):
        record(of_one, in_axes=(0, 0, 0))(PARAMS, X, Y)
    with pytest.raises(ValueError, match=r"argument 2 of shape \(4,\) has no axis 1"):
        record(of_one, in_axes=(None, 0, 1))(PARAMS, X, Y)
    with pytest.raises(
        ValueError, match=r"in_axes\[1\] must be an axis, None, or a pytree of these that is a prefix of the argument"
    ):
        record(of_one, in_axes=(None, {"x": 0}, 0))(PARAMS, X, Y)
    with pytest.raises(ValueError, match="argnums must name some of the 3 arguments"):
        record(of_one, argnums=3)(PARAMS, X, Y)


def test_lists_of_numbers_in_the_place_of_an_array() -> None:
    with pytest.raises(ValueError, match=r"argument 1 is a list of numbers.* Pass numpy\.asarray of it"):
        record(of_one)(PARAMS, X.tolist(), Y.tolist())
    with pytest.raises(ValueError, match="argument 2 is a tuple of numbers"):
        record(of_one)(PARAMS, X, (0, 1, 0, 1))


def test_trainable() -> None:
    with pytest.raises(ValueError, match="trainable must be True or a pytree of booleans"):
        record(of_one, trainable={"w": True})(PARAMS, X, Y)
    with pytest.raises(TypeError, match="Python booleans, got 'yes'"):
        record(of_one, trainable={"w": "yes", "b": True})(PARAMS, X, Y)


def test_weights() -> None:
    with pytest.raises(ValueError, match=r"one weight for each of 4 examples, shape \(4,\), got shape \(3,\)"):
        jax.eval_shape(lambda p: record(of_one)(p, X, Y, weights=np.ones(3)), PARAMS)


def test_side_effects() -> None:
    def printing(p: Any, x: Any, y: Any) -> Any:
        jax.debug.print("{}", x)
        return of_one(p, x, y)

    with pytest.raises(ValueError, match="side effects"):
        record(printing)(PARAMS, X, Y)


def test_batch_statistics_by_axis_name() -> None:
    def normalized(p: Any, x: Any, y: Any) -> Any:
        return of_one(p, x - jax.lax.pmean(x, "batch"), y)

    with pytest.raises(ValueError, match=r"axis name of vmap.*evaluation mode"):
        record(normalized)(PARAMS, X, Y)


def test_batch_statistics_of_flax_are_told() -> None:
    nn = pytest.importorskip("flax.linen")
    net = nn.BatchNorm(use_running_average=False)
    variables = jax.jit(net.init)(jax.random.key(0), X)

    def f(p: Any, x: Any, y: Any) -> Any:
        return jnp.sum(net.apply({**variables, "params": p}, x[None]))

    with pytest.raises(Exception, match="batch_stats") as caught:
        record(f)(variables["params"], X, Y)
    assert "running statistics in evaluation mode" in "\n".join(caught.value.__notes__)


def test_not_a_function() -> None:
    with pytest.raises(TypeError, match="loss must be a function of one example"):
        record(PARAMS)  # type: ignore[arg-type]
