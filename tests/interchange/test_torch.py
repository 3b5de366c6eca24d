"""Parameters of PyTorch's modules in our networks: equal outputs, exact round trips, and converters that are broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
import torch
from torch import nn

from jaxnn import interchange, models
from jaxnn.interchange import conversion, layout, torch_forms
from jaxnn.interchange.host import host_array
from jaxnn.layers import (
    LSTM,
    BatchNorm,
    Dense,
    Kind,
    Layer,
    attention,
    batch_norm,
    conv,
    conv_transpose,
    dense,
    gru,
    layer_norm,
)
from tests.helpers import float64
from tests.interchange.torch_cases import CASES, Case, converted, inputs, module_of, outputs, predicted

SHORT = ("dense", "CNN", "encoder, norm first", "images of vectors")
EACH = [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in CASES]


def difference(name: str, dtype: Any) -> float:
    """The largest difference between our outputs and the module's, relative to the largest output."""
    module = module_of(name)
    module = module if dtype is np.float64 else CASES[name].theirs().eval()
    module.load_state_dict(module_of(name).state_dict())
    x = inputs(name, dtype)
    expected = outputs(name, module, x)
    got = predicted(name, *converted(name, module), x)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    return float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))


@pytest.mark.parametrize("name", EACH)
def test_outputs_are_those_of_torch(name: str) -> None:
    assert difference(name, np.float32) < 1e-6
    with float64():
        assert difference(name, np.float64) < 2e-15


@pytest.mark.parametrize("name", EACH)
def test_back_in_torch_outputs_are_the_same(name: str) -> None:
    """All arrays are exactly what they were, but biases that torch only adds."""
    case, module = CASES[name], module_of(name)
    before = module.state_dict()
    with float64():
        names = interchange.torch_names(case.ours, before, case.example, names=case.names)
        params, state = converted(name, module)
        back = interchange.to_torch(case.ours, params, state, case.example, names=names)
        again = interchange.from_torch(case.ours, back, case.example, names=names)
        jax.tree.map(np.testing.assert_array_equal, again, (params, state))
    other = case.theirs().double().eval()
    other.load_state_dict({key: torch.from_numpy(x) for key, x in back.items()})
    for key, x in before.items():
        if "bias_ih" not in key and "bias_hh" not in key:
            assert back[key].dtype == x.numpy().dtype
            np.testing.assert_array_equal(back[key], x.numpy(), err_msg=key)
    x = inputs(name)
    np.testing.assert_allclose(outputs(name, other, x), outputs(name, module, x), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_layers_have_the_names_of_a_sequential_of_the_same_structure() -> None:
    net = CASES["CNN"].ours
    params, state = net.init(jax.random.key(0), (8, 12, 3))
    module = CASES["CNN"].theirs().eval()
    arrays = interchange.to_torch(net, params, state, (8, 12, 3))
    module.load_state_dict({key: torch.from_numpy(x) for key, x in arrays.items()})
    x = inputs("CNN", np.float32)
    np.testing.assert_allclose(outputs("CNN", module, x), net.predict(params, state, x), rtol=1e-5, atol=1e-6)


def test_running_statistics_move_as_in_torch() -> None:
    """Momentum and the unbiased variance agree: after a step of training the state is torch's."""
    module, x = CASES["batch norm"].theirs(), inputs("batch norm", np.float32)
    params, state = converted("batch norm", module)
    _, state = CASES["batch norm"].ours.apply(params, state, x, train=True)
    module.train()(torch.from_numpy(np.moveaxis(x, -1, 1)))
    np.testing.assert_allclose(state["var"], module.running_var, rtol=1e-5)
    np.testing.assert_allclose(state["mean"], module.running_mean, rtol=1e-5, atol=1e-7)


def reads(kind: Kind, change: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]) -> Any:
    """A mutant: of one kind, what is read from theirs is changed."""
    form = torch_forms.FORMS[kind]

    def broken(layer: Layer, theirs: dict[str, Any]) -> dict[str, Any]:
        ours = form.read(layer, theirs)
        return ours | change(ours, theirs)

    return torch_forms.FORMS, kind, form._replace(read=broken)


MUTANTS = {
    "a dense weight not transposed": ("square", reads(dense.KIND, lambda ours, theirs: {"w": theirs["weight"]})),
    "height and width exchanged": ("CNN", reads(conv.KIND, lambda ours, theirs: {"w": np.swapaxes(ours["w"], 0, 1)})),
    "a kernel reversed": ("transposed 1-D", reads(conv_transpose.KIND, lambda ours, theirs: {"w": ours["w"][::-1]})),
    "scale is shift": ("layer norm", reads(layer_norm.KIND, lambda ours, theirs: {"scale": ours["shift"]})),
    "mean is variance": ("batch norm", reads(batch_norm.KIND, lambda ours, theirs: {"mean": theirs["running_var"]})),
    "values are queries": ("attention, causal", reads(attention.KIND, lambda ours, theirs: {"wv": ours["wq"]})),
    "one bias of two": ("GRU", reads(gru.KIND, lambda ours, theirs: {"b": theirs["bias_ih"]})),
    "features in the order of here": ("CNN", (layout.__dict__, "channels_first_order", lambda shape: None)),
    "the order not inverted": (
        "CNN",
        (conversion.__dict__, "arranged", lambda site, orders, inverse=False: layout.arranged(site, orders)),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_converter_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, (table, key, broken) = MUTANTS[name]
    if case == "square":
        monkeypatch.setitem(CASES, case, Case(Dense(3), lambda: nn.Linear(3, 3), (3,)))
    assert difference(case, np.float32) < 1e-6
    monkeypatch.setitem(table, key, broken)
    assert difference(case, np.float32) > 1e-2


def test_half_precision_is_kept_and_memory_is_not_shared() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).bfloat16()
    net = models.serial(Dense(2), BatchNorm())
    params, state = interchange.from_torch(net, module.state_dict(), (3,))
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"bfloat16"}
    assert {str(x.dtype) for x in jax.tree.leaves(state)} == {"float32"}
    exact = module[0].weight.detach().float().numpy().T
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(np.asarray(params[0]["w"], np.float32), exact)
    assert interchange.to_torch(net, params, state, (3,))["0.weight"].dtype == jnp.bfloat16


def test_sorted_names_are_matched_by_their_numbers() -> None:
    """As a file has them: "10" before "2"; torch's own order would be lost."""
    net = models.serial(*[Dense(3)] * 12)
    weights = {f"{i}.{kind}": np.full((3, 3) if kind == "weight" else 3, float(i)) for i in range(12)
               for kind in ("bias", "weight")}  # fmt: skip
    params, _ = interchange.from_torch(net, dict(sorted(weights.items())), (3,))
    assert [float(p["b"][0]) for p in params] == list(range(12))
    two = {name.replace("0.", "in.").replace("1.", "out."): weights[name] for name in list(weights)[:4]}
    net = models.serial(Dense(3), Dense(3))
    with pytest.raises(ValueError, match=r"'in' and 'out' have the same shapes, and their names.*names=\{path"):
        interchange.from_torch(net, dict(sorted(two.items())), (3,))
    params, _ = interchange.from_torch(net, dict(sorted(two.items())), (3,), names={"0": "out", "1": "in"})
    assert [float(p["b"][0]) for p in params] == [1.0, 0.0]


def test_directions_of_a_recurrent_module_are_in_their_order_when_sorted() -> None:
    net = models.serial(*[models.bidirectional(LSTM(3))] * 2)
    entries = nn.LSTM(6, 3, num_layers=2, bidirectional=True).state_dict()
    names = interchange.torch_names(net, dict(sorted(entries.items())), (5, 6))
    assert names == interchange.torch_names(net, entries, (5, 6))
    assert list(names.values()) == ["*_l0", "*_l0_reverse", "*_l1", "*_l1_reverse"]
    cell = interchange.torch_names(LSTM(4), nn.Sequential(nn.LSTMCell(3, 4)).state_dict(), (5, 3))
    assert cell == {"": "0.*"}
    of_one = nn.Sequential(nn.LSTM(3, 4)).state_dict()
    assert interchange.torch_names(LSTM(4), of_one, (5, 3), names={"": "0"}) == {"": "0.*_l0"}


def tensors() -> dict[str, tuple[Any, str]]:
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    parts = [torch.ones(2), torch.ones(3)]
    return {
        "sparse": (
            torch.eye(2).to_sparse(),
            r"must be dense, got the layout torch\.sparse_coo\. .* tensor\.to_dense\(\)",
        ),
        "meta": (torch.empty(2, device="meta"), "must have values, got a tensor on the device meta. Materialize it"),
        "quantized": (quantized, r"must be plain, got torch\.qint8\. Pass tensor\.dequantize\(\)"),
        "nested": (torch.nested.nested_tensor(parts), "must be one array, got a nested tensor. Pass its parts"),
        "lazy": (nn.LazyLinear(3).weight, "must be a plain tensor, got UninitializedParameter .*. Initialize it"),
        "half": (torch.ones(2, dtype=torch.complex32), r"must be a plain tensor, got Tensor of torch\.complex32"),
    }


@pytest.mark.filterwarnings("ignore")  # torch's, on features that it will rename
@pytest.mark.parametrize("name", ["sparse", "meta", "quantized", "nested", "lazy", "half"])
def test_a_tensor_without_plain_values_is_named(name: str) -> None:
    tensor, told = tensors()[name]
    with pytest.raises(TypeError, match=f"from_torch: 'a.weight' {told}") as caught:
        interchange.from_torch(Dense(2), {"a.weight": tensor}, (3,))
    assert "\n" not in str(caught.value)


def test_views_that_are_conjugated_or_negated_have_their_values() -> None:
    x = torch.tensor([1 + 2j, 3j]).conj()
    np.testing.assert_array_equal(host_array("f", "x", x), np.array([1 - 2j, -3j], np.complex64))
    np.testing.assert_array_equal(host_array("f", "x", x.imag), np.array([-2, -3], np.float32))


def test_integers_are_no_parameters_and_counters_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net, entries = models.serial(Dense(2), BatchNorm()), module.state_dict()
    assert entries["1.num_batches_tracked"].dtype == torch.int64
    interchange.from_torch(net, entries, (3,))
    for name, layer in (("0.weight", r"0 \(dense\)"), ("1.running_mean", r"1 \(batch_norm\)")):
        wrong = entries | {name: entries[name].to(torch.int8)}
        with pytest.raises(TypeError, match=f"'{name}' of layer {layer} must have a floating dtype, got int8. Convert"):
            interchange.from_torch(net, wrong, (3,))
