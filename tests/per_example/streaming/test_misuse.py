"""What a user may get wrong, and what the message says: got, expected, remedy, and the function that was called."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.per_example import (
    Directional,
    Margin,
    Part,
    Projection,
    SecondMoment,
    SqNorms,
    Statistic,
    Variance,
    clipped_value_and_grad,
    value_and_grad,
)

PARAMS = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}
X, Y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1], np.int32)


def of_one(p: Any, x: Any, y: Any) -> Any:
    return -jax.nn.log_softmax(x @ p["w"] + p["b"])[y]


def shapes(statistics: Any = None, x: Any = X, y: Any = Y, f: Any = of_one, weights: Any = None, **options: Any) -> Any:
    vg = value_and_grad(f, SqNorms() if statistics is None else statistics, **options)
    return jax.eval_shape(lambda p: vg(p, x, y, weights=weights), PARAMS)


def test_a_batched_loss() -> None:
    with pytest.raises(
        ValueError, match=r"^value_and_grad: the loss of one example must be one number.*\(2,\)"
    ) as caught:
        shapes(f=lambda p, x, y: jnp.square(x @ p["w"] - y))
    notes = "\n".join(caught.value.__notes__)
    assert "per_example.value_and_grad calls the loss with ONE example" in notes
    assert "float32[3], int32[]" in notes
    with pytest.raises(Exception, match=r".") as caught:
        shapes(f=lambda p, x, y: jnp.mean(jnp.einsum("nd,dk->nk", x, p["w"])))
    assert "model(params, x[None])[0]" in "\n".join(caught.value.__notes__)


def test_batch_statistics() -> None:
    with pytest.raises(ValueError, match=r"^value_and_grad: the loss uses an axis name of vmap.*evaluation mode"):
        shapes(f=lambda p, x, y: of_one(p, x - jax.lax.pmean(x, "batch"), y))


def test_what_a_loss_returns() -> None:
    with pytest.raises(TypeError, match=r"^value_and_grad: the loss must be a real floating number, got int32"):
        shapes(f=lambda p, x, y: y)
    with pytest.raises(TypeError, match=r"^value_and_grad: the loss returned a tuple.*has_aux=True"):
        shapes(f=lambda p, x, y: (of_one(p, x, y), x))
    with pytest.raises(TypeError, match=r"^value_and_grad: with has_aux=True the loss must return a pair"):
        shapes(has_aux=True)
    with pytest.raises(TypeError, match=r"^value_and_grad: the loss must return one number, got NoneType"):
        shapes(f=lambda p, x, y: None)


def test_side_effects() -> None:
    def printing(p: Any, x: Any, y: Any) -> Any:
        jax.debug.print("{}", x)
        return of_one(p, x, y)

    with pytest.raises(ValueError, match=r"^value_and_grad: the loss has side effects"):
        shapes(f=printing)


def test_examples() -> None:
    with pytest.raises(ValueError, match=r"^value_and_grad: all arguments must have the same number of examples, got"):
        shapes(y=Y[:3])
    with pytest.raises(ValueError, match=r"^value_and_grad: expected a batch of at least 1 example, got none"):
        shapes(x=X[:0], y=Y[:0])
    with pytest.raises(ValueError, match=r"^value_and_grad: argument 1 of shape \(\) has no axis 0"):
        shapes(x=np.float32(1))
    with pytest.raises(ValueError, match=r"^value_and_grad: argument 1 is a list of numbers"):
        shapes(x=X.tolist())


def test_weights() -> None:
    for weights in (np.ones(3), np.ones((4, 1)), 1.0):
        with pytest.raises(
            ValueError, match=r"^value_and_grad: expected one weight for each of 4 examples, shape \(4,\)"
        ):
            shapes(weights=weights)
    with pytest.raises(TypeError, match=r"^value_and_grad: weights must be real numbers, got complex64"):
        shapes(weights=np.ones(4, np.complex64))


def test_options_of_record() -> None:
    for options, error, message in [
        ({"argnums": 3}, ValueError, "argnums must name some of the 3 arguments"),
        ({"argnums": (0, 0)}, ValueError, "argnums must name each argument once"),
        ({"in_axes": (None, 0)}, ValueError, "in_axes must be None or a tuple with an entry for each of the 3"),
        ({"in_axes": (0, 0, 0)}, ValueError, r"in_axes\[0\] must be None"),
        ({"in_axes": (None, {"x": 0}, 0)}, ValueError, r"in_axes\[1\] must be an axis, None, or a pytree"),
        ({"trainable": {"w": True}}, ValueError, "trainable must be True or a pytree of booleans"),
        ({"trainable": {"w": "yes", "b": True}}, TypeError, "trainable must hold Python booleans"),
        ({"argnums": 2}, TypeError, "parameters must be of a real floating dtype, got argument 2 of int32"),
    ]:
        with pytest.raises(error, match=f"^value_and_grad: {message}"):
            shapes(**options)
    with pytest.raises(TypeError, match=r"^value_and_grad: argument 2 is not an array but str"):
        shapes(y="labels")


def test_what_is_no_loss_or_no_statistic() -> None:
    with pytest.raises(TypeError, match=r"^value_and_grad: loss must be a function of one example.*got dict"):
        value_and_grad(PARAMS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^value_and_grad: statistics must be.*got the class SqNorms"):
        value_and_grad(of_one, SqNorms)
    with pytest.raises(TypeError, match=r"a tuple or dict of them, got the class Margin"):
        value_and_grad(of_one, {"norms": SqNorms(), "margin": Margin})
    with pytest.raises(TypeError, match=r"got str"):
        value_and_grad(of_one, "sq_norms")


def test_what_a_statistic_of_a_users_own_returns() -> None:
    class Own(Statistic):
        def __init__(self, shape: Any, value: Any) -> None:
            self.shape, self.value = shape, value

        def prepare(self, param: Any, params: Any) -> Part:
            return Part(param.path, self.shape)

        def of_use(self, gradients: Any, part: Part) -> Any:
            return self.value(gradients)

        def combine(self, found: Any, batch: Any) -> Any:
            return found

    shapes(Own((), lambda g: g.materialized.sum(axis=1)))
    shapes(Own(None, lambda g: g.materialized.sum(axis=0)))
    with pytest.raises(ValueError, match=r"^value_and_grad: Own.of_use must return one value .* shape \(1,\), .* \(\)"):
        shapes(Own((), lambda g: g.materialized.sum()))
    with pytest.raises(
        ValueError, match=r"of shape \(1, 5\), as its Part says, got shape \(1, 1\); here with 1 example"
    ):
        shapes(Own((5,), lambda g: g.materialized[:, :1]))
    with pytest.raises(
        ValueError, match=r"the sum over examples, of the parameter's shape \(2,\), .* got shape \(4, 2\)"
    ):
        shapes(Own(None, lambda g: g.materialized))


def test_slots_that_do_not_sort() -> None:
    class Mixed(SqNorms):
        def prepare(self, param: Any, params: Any) -> Part:
            return Part(1 if param.path == "['w']" else "b")

    with pytest.raises(TypeError, match=r"^value_and_grad: the slots of Mixed must be of one type, which sorts"):
        shapes(Mixed())


def test_parameters_of_one_name() -> None:
    @jax.tree_util.register_pytree_with_keys_class
    class Two:
        def __init__(self, a: Any, b: Any) -> None:
            self.a, self.b = a, b

        def tree_flatten_with_keys(self) -> Any:
            key = jax.tree_util.GetAttrKey("x")
            return ((key, self.a), (key, self.b)), None

        @classmethod
        def tree_unflatten(cls, aux: Any, children: Any) -> Any:
            return cls(*children)

    with pytest.raises(ValueError, match=r"^value_and_grad: parameters must have paths of their own, .*\.x"):
        value_and_grad(lambda p, x: jnp.vdot(p.a + p.b, x))(Two(np.ones(2), np.ones(2)), X[:, :2])


def test_nothing_trained_in_groups_and_a_parameter_without_entries() -> None:
    frozen = clipped_value_and_grad(of_one, 1.0, groups="parameter", trainable=False)
    (losses, norms), total = jax.eval_shape(frozen, PARAMS, X, Y)
    assert (losses.shape, norms, total) == ((4,), {}, {"b": None, "w": None})
    params = PARAMS | {"none": np.zeros((0, 3), np.float32)}
    for statistic in (Projection(jax.random.key(0), 5), Projection(jax.random.key(0), per_layer=(2, 2))):
        vg = value_and_grad(lambda p, x, y: of_one(p, x, y) + jnp.sum(p["none"] @ x), statistic)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(vg(params, X, Y)[0][1]))


def test_groups() -> None:
    for by, message in [
        ("layers", 'groups must be None, "parameter", "layer" or a mapping .* got .layers.'),
        ({"a": "['z']"}, r"no parameter has a path that begins with .*'z'.*; there are"),
        ({"a": "['w']", "b": ["['b']", "['w']"]}, r"groups must be disjoint; \['w'\] is in 'a' and 'b'"),
        ({"a": []}, r"group 'a' must be a prefix of paths such as .*, or several, got \[\]"),
        ({"a": 0}, r"group 'a' must be a prefix of paths such as .*, or several, got 0"),
        ({"a": [0]}, r"or several, got \[0\]"),
    ]:
        with pytest.raises(ValueError, match=f"^SqNorms: .*{message}"):
            shapes(SqNorms(by=by))  # type: ignore[arg-type]


def test_projections() -> None:
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"^Projection: expected no more numbers than the parameters have.*8, got 9"):
        shapes(Projection(key, 9))
    with pytest.raises(ValueError, match=r"the largest parameter has entries, 6, got 8"):
        shapes(Projection(key, per_layer=(4, 2)))
    with pytest.raises(ValueError, match=r"the parameters have entries, 0, got 1"):
        shapes(Projection(key, 1), trainable=False)
    for options in ({}, {"k": 3, "per_layer": (2, 2)}):
        with pytest.raises(ValueError, match=r"^Projection: expected one of k and per_layer"):
            Projection(key, **options)  # type: ignore[arg-type]
    for pair in (4, (2, 2, 2), (2,)):
        with pytest.raises(ValueError, match=r"^Projection: per_layer must be a pair \(k1, k2\), got"):
            Projection(key, per_layer=pair)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^Projection: the number of projections must be at least 1, got 0"):
        Projection(key, 0)
    with pytest.raises(TypeError, match=r"^Projection: key must be a typed key, got 0"):
        Projection(0, 2)  # type: ignore[arg-type]


def test_directions() -> None:
    with pytest.raises(TypeError, match=r"^Directional: the direction must be real, got complex64 at \['b'\]"):
        shapes(Directional({"w": np.ones((3, 2)), "b": np.ones(2, np.complex64)}))
    for direction in (
        {"w": X[:3, :2]},
        {"w": np.ones((2, 3)), "b": np.ones(2)},
        [np.ones(2), np.ones((3, 2))],
        np.ones(8),
    ):
        with pytest.raises(
            ValueError, match=r"^Directional: the direction must be a pytree like the trained parameters"
        ):
            shapes(Directional(direction))
    with pytest.raises(ValueError, match=r"Directional"):
        shapes(Directional(PARAMS), trainable={"w": True, "b": False})


def test_variances() -> None:
    with pytest.raises(ValueError, match=r"^Variance: expected more than ddof=1 examples, got 1.*larger batch"):
        shapes(Variance(ddof=1), x=X[:1], y=Y[:1])
    with pytest.raises(ValueError, match=r"^Variance: expected a batch without weights.*SecondMoment"):
        shapes(Variance(), weights=np.ones(4))
    with pytest.raises(ValueError, match=r"^Variance: ddof must be at least 0, got -1"):
        Variance(ddof=-1)


def test_nothing_trained_has_norms_of_0() -> None:
    """As the tape of no parameter."""
    statistics = (SqNorms(), SqNorms(by="parameter"), Margin(), SecondMoment(), Directional({"w": None, "b": None}))
    vg = value_and_grad(of_one, statistics, trainable=False)
    (losses, found), grads = jax.jit(vg)(PARAMS, X, Y)
    assert losses.shape == (4,)
    assert [x.tolist() for x in (found[0], found[2], found[4])] == [[0.0] * 4] * 3
    assert found[1] == {}
    assert found[3] == grads == {"w": None, "b": None}
