"""What does not fit is refused with what was expected, what is there and what to do; nothing is matched by chance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import interchange, models
from jaxnn.layers import (
    GRU,
    LSTM,
    Attention,
    BatchNorm,
    Conv,
    Dense,
    Embedding,
    Flatten,
    GatedDense,
    GroupNorm,
    Kind,
    Layer,
    LinearRecurrence,
    Relu,
    Reshape,
    Swish,
    stateless,
    tied,
)

NET = models.serial(Dense(4), Relu, Dense(2))
SHAPES = {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (2, 4), "b.bias": (2,)}
TOKENS = jax.ShapeDtypeStruct((5,), jnp.int32)


def entries(**changed: Any) -> dict[str, np.ndarray]:
    """A state_dict for NET, with entries added, of other shapes, or left out (None); "_" stands for "."."""
    shapes = SHAPES | {name.replace("_", "."): shape for name, shape in changed.items()}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items() if shape is not None}


@pytest.mark.parametrize(
    ("given", "names", "told"),
    [
        (
            entries(b_bias=None),
            None,
            r"from_torch: the network and the arrays of PyTorch differ. Expected, for layers of ours: 2 \(dense\) "
            r"weight \(2, 4\), bias \(2,\). Left over: 'b' weight \(2, 4\). Make both networks alike.*names=\{path of",
        ),
        (entries(c_weight=(7,)), None, r"differ. Left over: 'c' weight \(7,\)"),
        (entries(b_weight=(2, 5)), None, r"2 \(dense\) weight \(2, 4\), bias \(2,\). Left over: 'b' weight \(2, 5\)"),
        (entries(mask=(9,)), None, r"Left over: '' mask \(9,\)"),
        (entries(), {"0": "b"}, r"layer 0 \(dense\): 'b.weight' must be \(4, 3\), got \(2, 4\)"),
        (entries(), {"0": "aa"}, r"layer 0 \(dense\) needs 'aa.weight', which is missing \(did you mean 'a.weight'"),
        (entries(), {"1": "a"}, r"names has '1', where the network has no layer with.*0 \(dense\), 2 \(dense\)"),
        (entries(), {"0": ("a", "b")}, r"layer 0 \(dense\) is one module of PyTorch, got names for several"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_listed(given: Any, names: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        interchange.from_torch(NET, given, (3,), names=names)


def test_many_differences_are_cut() -> None:
    with pytest.raises(ValueError, match=r"; and 6 more. Make both"):
        interchange.from_torch(NET, entries() | {f"x{i}.weight": np.ones(1) for i in range(12)}, (3,))


def test_layers_are_matched_in_the_order_of_entries_or_by_names() -> None:
    net = models.serial(Dense(3), Dense(3))
    given = {
        f"{name}.{kind}": np.full(shape, value)
        for name, value in (("z", 1.0), ("a", 2.0))
        for kind, shape in (("weight", (3, 3)), ("bias", 3))
    }
    assert interchange.torch_names(net, given, (3,)) == {"0": "z", "1": "a"}
    swapped, _ = interchange.from_torch(net, given, (3,), names={"0": "a"})
    assert [float(p["b"][0]) for p in swapped] == [2.0, 1.0]


def custom(name: str) -> Layer:
    return stateless(Kind(name), lambda params, x: x * params["s"], lambda key, example: {"s": jnp.ones(())})


@pytest.mark.parametrize(
    ("net", "example", "told"),
    [
        (LinearRecurrence(3), (5, 3), r"no layer such as the network \(linear_recurrence\); what it has: dense, conv"),
        (models.serial(Relu, custom("gain")), (3,), r"has no layer such as 1 \(gain\); what it has: dense"),
        (GatedDense(3), (3,), r'\(gated_dense\) is several modules in .*names=\{"": \("\.\.\.", "\.\.\."\)\}'),
        (GRU(3, reset_after=False), (5, 3), r"layer the network \(gru\): .* resets after.*GRU\(\.\.\., reset_after="),
        (Swish(), (3,), r"layer the network \(parametric_activation\): "),
    ],
)  # fmt: skip
def test_a_layer_that_the_other_library_has_not_is_named(net: Layer, example: Any, told: str) -> None:
    params, state = net.init(jax.random.key(0), example)
    with pytest.raises(ValueError, match=f"to_torch: .*{told}"):
        interchange.to_torch(net, params, state, example)
    with pytest.raises(ValueError, match=f"to_linen: .*{told}"):
        interchange.to_linen(net, params, state)
    with pytest.raises(ValueError, match=f"from_torch: .*{told}"):
        interchange.from_torch(net, {}, example)
    with pytest.raises(ValueError, match=f"from_linen: .*{told}"):
        interchange.from_linen(net, {"params": {}}, example)


@pytest.mark.parametrize("how", [{"kv_heads": 1}, {"head_features": 3}, {"qk_norm": True}])
def test_attention_that_torch_has_not_needs_names(how: Any) -> None:
    net = Attention(2, **how)
    params, state = net.init(jax.random.key(0), (5, 8))
    with pytest.raises(ValueError, match=r"MultiheadAttention has no qk_norm, kv_heads and.*names=\{path"):
        interchange.to_torch(net, params, state, (5, 8))
    names = {"": tuple(f"{name}_proj" for name in ("q", "k", "v", "o", "qn", "kn"))}
    back = interchange.to_torch(net, params, state, (5, 8), names=names)
    again, _ = interchange.from_torch(net, back, (5, 8), names=names)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize(
    ("net", "example", "told"),
    [
        (models.serial(Conv(4, 2), Flatten, GroupNorm(2), Dense(2)), (3, 4, 2), r"at 2 \(group_norm\), it gets"),
        (
            models.serial(Conv(4, 2), Flatten, models.residual(Dense(24)), Dense(2)),
            (3, 4, 2),
            r"at 2 \(residual\), its branches have features in different orders after Flatten",
        ),
        (
            models.serial(Conv(4, 2), Flatten, models.stack(models.serial(Dense(24)), 2), Dense(2)),
            (3, 4, 2),
            r"at 2 \(stack\), one block of it does not keep the order",
        ),
        (models.serial(Reshape(2, 2, 3), Conv(2, 1)), (12,), r"at 0 \(reshape\), no dense layer makes the features"),
        (
            models.serial(Dense(12), models.parallel(models.serial(Reshape(2, 2, 3), Conv(2, 1), Flatten), Dense(2))),
            (5,),
            r"at 1/0/0 \(reshape\), no dense layer makes the features",
        ),
        (models.serial(Conv(4, 1), Reshape(2, 3, 8), Conv(2, 1)), (3, 4, 2), r"at 1 \(reshape\), it makes \(2, 3, 8\)"),
    ],
)  # fmt: skip
def test_an_order_of_features_that_cannot_be_followed_is_refused(net: Layer, example: Any, told: str) -> None:
    params, state = net.init(jax.random.key(0), example)
    with pytest.raises(ValueError, match=f"to_torch: {told}.*put a Dense next to Flatten or Reshape"):
        interchange.to_torch(net, params, state, example)
    interchange.to_linen(net, params, state)  # flax has channels last


def test_a_layer_tied_to_one_of_permuted_features_is_refused() -> None:
    layer = Dense(24)
    net = models.serial(Conv(4, 2), Flatten, layer, Relu, tied(layer))
    with pytest.raises(
        ValueError, match=r"the layer at 2 has features of an image in PyTorch's order, where the one at 4"
    ):
        interchange.to_torch(net, *net.init(jax.random.key(0), (3, 4, 2)), (3, 4, 2))


def test_positions_of_an_image_as_a_sequence_keep_their_order() -> None:
    net = models.serial(Conv(4, 2), Reshape(-1, 4), Attention(2), Flatten, Dense(2))
    params, state = net.init(jax.random.key(0), (3, 4, 2))
    weight = interchange.to_torch(net, params, state, (3, 4, 2))["4.weight"]
    np.testing.assert_array_equal(weight, params[4]["w"].T)


def test_a_tied_matrix_is_read_once_and_must_be_equal() -> None:
    embed = Embedding(7, 4)
    net = models.serial(embed, Relu, tied(embed))
    table = np.arange(28, dtype=np.float32).reshape(7, 4)
    both = {"in.weight": table, "out.weight": table.copy()}
    assert interchange.torch_names(net, both, TOKENS) == {"0": "in", "2": "out"}
    params, state = interchange.from_torch(net, {"in.weight": table}, TOKENS)
    np.testing.assert_array_equal(params[0]["w"], table)
    written = interchange.to_torch(net, params, state, TOKENS, names={"0": "in", "2": "out"})
    assert sorted(written) == ["in.weight", "out.weight"]
    with pytest.raises(ValueError, match=r"Left over: 'out' weight \(7, 4\)"):
        interchange.from_torch(net, both | {"out.weight": table + 1}, TOKENS)


def test_state_of_decoding_and_names_that_meet_are_refused() -> None:
    net = models.serial(LSTM(3))
    params, state = net.init(jax.random.key(0), (5, 3))
    with pytest.raises(ValueError, match=r"the state of lstm holds a cache or carry of `models.begin`. Pass the"):
        interchange.to_linen(net, params, models.begin(net, params, state, 2))
    params, state = NET.init(jax.random.key(0), (3,))
    with pytest.raises(ValueError, match=r"two layers write 'a.weight', the second is 2 \(dense\). Give each a module"):
        interchange.to_torch(NET, params, state, (3,), names={"0": "a", "2": "a"})
    with pytest.raises(ValueError, match=r"to_torch: names has '5', where the network has no layer with parameters"):
        interchange.to_torch(NET, params, state, (3,), names={"5": "a"})


@pytest.mark.parametrize(
    ("example", "told"),
    [
        (
            (4,),
            r"params must be those of the network for such an example; '0/w' must be \(4, 4\), got \(3, 4\). Pass what",
        ),
        ((3,), r"'0/b' must be \(4,\), got none"),
    ],
)
def test_parameters_of_another_network_are_refused(example: Any, told: str) -> None:
    params, state = NET.init(jax.random.key(0), (3,))
    params = params if example == (4,) else ({"w": params[0]["w"]}, *params[1:])
    with pytest.raises(ValueError, match=f"to_torch: .*{told}"):
        interchange.to_torch(NET, params, state, example)


def test_arguments_that_are_something_else_are_refused() -> None:
    with pytest.raises(TypeError, match=r"from_torch: expected a dict of arrays by name, got list. Pass model"):
        interchange.from_torch(NET, [], (3,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"from_torch: 'a.weight' must be an array, got str"):
        interchange.from_torch(NET, entries() | {"a.weight": "w"}, (3,))
    with pytest.raises(TypeError, match="from_torch: net must be a Layer"):
        interchange.from_torch(Dense, {}, (3,))  # type: ignore[arg-type]
    composed = Layer(NET.init, NET.apply, Kind("mine"), parts=NET.parts)
    with pytest.raises(ValueError, match="mine is a composed layer of another library"):
        interchange.from_torch(composed, entries(), (3,))


def test_statistics_of_batch_norm_are_state() -> None:
    given = {"weight": np.full(3, 1.0), "bias": np.full(3, 2.0), "running_mean": np.full(3, 3.0),
             "running_var": np.full(3, 4.0), "num_batches_tracked": np.array(5)}  # fmt: skip
    params, state = interchange.from_torch(BatchNorm(), given, (3,))
    assert {name: float(x[0]) for name, x in {**params, **state}.items()} == {
        "scale": 1.0, "shift": 2.0, "mean": 3.0, "var": 4.0,
    }  # fmt: skip
    back = interchange.to_torch(BatchNorm(), params, state, (3,))
    assert set(back) == set(given)
    assert back["num_batches_tracked"].dtype == np.int64
