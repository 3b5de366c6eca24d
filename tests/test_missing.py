"""A missing name says which is meant; nothing else about a module changes."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys

import pytest

import jaxnn
from jaxnn import missing
from tests.public_names import NAMES

MEANT = [
    ("layers", "LSTMCell", "jaxnn.layers.LSTM"),
    ("models", "load_state_dict", "jaxnn.interchange.from_torch?"),
    ("layers", "ConvLSTM", "a loss of your own (jaxnn has no convolutional recurrent layers)"),
    ("layers", "MultiheadAttention", "jaxnn.layers.Attention"),
    ("models", "TransformerEncoder", "jaxnn.models.transformer"),
    ("layers", "Linear", "jaxnn.layers.Dense"),
    ("layers", "Conv2d", "jaxnn.layers.Conv"),
    ("layers", "ReLU", "jaxnn.layers.Relu"),
    ("layers", "BatchNorm1d", "jaxnn.layers.BatchNorm"),
    ("layers", "Sequential", "jaxnn.models.serial"),
    ("layers", "mlp", "jaxnn.models.mlp"),
    ("layers", "Dens", "jaxnn.layers.Dense"),
    ("losses", "nll_loss", "jaxnn.losses.softmax_cross_entropy"),
    ("losses", "CrossEntropyLoss", "jaxnn.losses.softmax_cross_entropy"),
    ("losses", "BCEWithLogitsLoss", "jaxnn.losses.sigmoid_binary_cross_entropy"),
    ("losses", "MSE", "jaxnn.losses.mse"),
    ("losses", "accuracy", "jaxnn.metrics.accuracy"),
    ("losses", "softmax_cross_entropi", "jaxnn.losses.softmax_cross_entropy"),
    ("optim", "Adam", "jaxnn.optim.adam"),
    ("optim", "AdamW", "jaxnn.optim.adamw"),
    ("optim", "SGD", "jaxnn.optim.sgd"),
    ("optim", "LBFGS", "jaxnn.optim.lbfgs"),
    ("optim", "l2_loss", "jaxnn.losses.l2_loss"),
    ("optim", "clip_grad_norm_", "jaxnn.optim.clip_by_global_norm"),
    ("optim", "CosineAnnealingLR", "jaxnn.schedules.cosine_decay_schedule"),
    ("initializers", "kaiming_normal_", "jaxnn.initializers.he_normal"),
    ("activations", "swish", "jaxnn.activations.silu"),
    ("metrics", "acuracy", "jaxnn.metrics.accuracy"),
    ("train", "DataLoader", "jaxnn.data.make_dataset"),
    ("tape", "adamw", "jaxnn.optim.adamw"),
    ("classic", "perceptrons", "jaxnn.classic.perceptron"),
    ("", "optmi", "jaxnn.optim"),
    ("", "nn", "jaxnn.layers"),
    ("", "adam", "jaxnn.optim.adam"),
    ("", "second_order", "jax.hessian (jaxnn has no second_order)"),
    ("", "assignment", "scipy.optimize.linear_sum_assignment (jaxnn has no assignment)"),
    ("", "contrib", "jaxnn.optim, which has all names of optax.contrib"),
    ("optim", "contrib", "mean jaxnn.optim, which has all names of optax.contrib"),
    ("optim", "losses", "jaxnn.losses?"),
    ("optim", "tree", "jaxnn.tree?"),
    ("optim", "projections", "jaxnn.projections?"),
    ("optim", "perturbations", "jaxnn.perturbations?"),
    ("optim", "second_order", "jax.hessian"),
    ("optim", "hvp", "jax.jvp"),
    ("optim", "fisher_diag", "jaxnn.per_example.second_moment?"),
    ("optim", "hungarian_algorithm", "scipy.optimize.linear_sum_assignment"),
    ("optim", "tree_add", "jaxnn.tree.add?"),
    ("optim", "tree_get", "jaxnn.tree.get?"),
    ("tree", "tree_map", "Did you mean jax.tree.map?"),
    ("tree", "tree_add", "jaxnn.tree.add?"),
    ("tree", "tree_get", "jaxnn.tree.get?"),
    ("tree", "tree_l2_norm", "jaxnn.tree.norm?"),
    ("tree", "tree_bias_correction", "bias_correction?"),
    ("tree", "map_params", "jaxnn.optim.tree_map_params?"),
    ("backprop", "grad", "jaxnn.backprop.value_and_grad?"),
    ("optim", "ScaleByAdamState", "jaxnn.optim.AdamState?"),
    ("optim", "ScaleByAdaDeltaState", "jaxnn.optim.AdadeltaState?"),
    ("optim", "ScaleByRmsState", "jaxnn.optim.RMSpropState?"),
    ("optim", "ScaleByRssState", "jaxnn.optim.AdagradState?"),
    ("optim", "ScaleByBeliefState", "jaxnn.optim.BeliefState?"),
    ("optim", "ScaleByDistanceOverGradientsState", "jaxnn.optim.DistanceOverGradientsState?"),
    ("optim", "COCOBState", "jaxnn.optim.CocobState?"),
    ("", "Linear", "jaxnn.layers.Dense"),
]


@pytest.mark.parametrize(("room", "name", "meant"), MEANT, ids=[f"{r}-{n}" for r, n, _ in MEANT])
def test_the_name_that_is_meant(room: str, name: str, meant: str) -> None:
    module = importlib.import_module(f"jaxnn.{room}" if room else "jaxnn")
    with pytest.raises(AttributeError) as error:
        getattr(module, name)
    text = str(error.value)
    assert text.startswith(f"module '{module.__name__}' has no attribute '{name}'. Did you mean ")
    assert meant in text


def test_no_name_is_suggested_twice() -> None:
    for theirs in missing.FOREIGN.values():
        for name in theirs.split(", "):
            for room in ("", "layers", "losses", "optim", "initializers"):
                found = missing.suggestions(f"jaxnn.{room}".rstrip("."), name)
                assert len(set(found)) == len(found), (room, name, found)


def test_nothing_alike_suggests_nothing() -> None:
    with pytest.raises(AttributeError, match=r"^module 'jaxnn.losses' has no attribute 'qqqqzzzz'\.$"):
        jaxnn.losses.qqqqzzzz  # noqa: B018


@pytest.mark.parametrize("room", jaxnn.ROOMS)
def test_every_room_suggests_and_is_otherwise_as_it_was(room: str) -> None:
    module = importlib.import_module(f"jaxnn.{room}")
    if room != "missing":
        with pytest.raises(AttributeError, match=r"Did you mean .*jaxnn\.optim\.adamw"):
            getattr(module, "Adam_W")  # noqa: B009
    assert not hasattr(module, "Adam_W")
    assert getattr(module, "Adam_W", 3) == 3
    for dunder in ("__wrapped__", "__path_hook__", "_private"):
        with pytest.raises(AttributeError, match=f"^module 'jaxnn.{room}' has no attribute '{dunder}'$"):
            missing.suggest(f"jaxnn.{room}")(dunder)
        assert not hasattr(module, dunder)
    with pytest.raises(ImportError, match="cannot import name 'Adam_W'"):
        exec(f"from jaxnn.{room} import Adam_W")
    assert inspect.getmodule(module) is module
    assert dict(inspect.getmembers(module))


@pytest.mark.parametrize("room", NAMES)
def test_every_public_name_of_0_1_is_there_or_was_renamed(room: str) -> None:
    module = importlib.import_module(f"jaxnn.{room}")
    gone = {name for name in NAMES[room].split() if not hasattr(module, name)}
    assert gone == {old.partition(".")[2] for old in missing.RENAMED if old.startswith(f"{room}.")}


@pytest.mark.parametrize(("old", "new"), missing.RENAMED.items())
def test_a_renamed_name_says_so(old: str, new: tuple[str, str]) -> None:
    room, _, name = old.partition(".")
    assert name in NAMES[room].split()
    with pytest.raises(AttributeError) as error:
        getattr(importlib.import_module(f"jaxnn.{room}"), name)
    place, version = new
    assert str(error.value).endswith(f"has no attribute '{name}': it was renamed to jaxnn.{place} in {version}.")
    assert callable(pkgutil.resolve_name(f"jaxnn.{place.replace('.', ':', 1)}"))


def test_pickles_of_functions_and_errors() -> None:
    assert pickle.loads(pickle.dumps(jaxnn.losses.log_cosh)) is jaxnn.losses.log_cosh
    with pytest.raises(AttributeError) as error:
        jaxnn.layers.Linear  # noqa: B018
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_every_target_of_the_table_is_there() -> None:
    for ours in missing.FOREIGN:
        room, _, name = ours.partition("(")[0].strip().partition(".")
        if room in jaxnn.ROOMS:
            module = importlib.import_module(f"jaxnn.{room}")
            assert not name or hasattr(module, name), ours


def test_no_name_of_the_table_is_ours_in_the_room_it_leads_to() -> None:
    for ours, theirs in missing.FOREIGN.items():
        room = ours.partition(".")[0]
        for name in theirs.split(", "):
            assert name not in missing.public_names().get(room, ()), name


def test_names_are_read_without_imports() -> None:
    code = """
import sys, jaxnn.missing
print(jaxnn.missing.suggestions("jaxnn.layers", "adamw"), [m for m in sys.modules if m.startswith("jaxnn.")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['jaxnn.optim.adamw'] ['jaxnn.missing']"
