"""Every public name of optax and its submodules is here with the same arguments, or in a table that says why not."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxnn
from jaxnn import optim

OTHER_STATE = "a state: ours has another name, or the rule keeps none"
PROTOCOL = "a protocol of functions: ours are in jaxnn.types"
STATES = (
    "AdaptiveGradClipState", "AddDecayedWeightsState", "ClipByGlobalNormState", "ClipState",
    "MultiTransformState", "NonNegativeParamsState", "ScaleByAdaDeltaState",
    "ScaleByAdamState", "ScaleByAdanState", "ScaleByAmsgradState", "ScaleByBeliefState", "ScaleByLionState",
    "ScaleByNovogradState", "ScaleByRStdDevState", "ScaleByRmsState", "ScaleByRpropState", "ScaleByRssState",
    "ScaleBySM3State", "ScaleByScheduleState", "ScaleByTrustRatioState", "ScaleState", "COCOBState",
    "ScaleByAdemamixState", "ScaleBySimplifiedAdEMAMixState",
)  # fmt: skip
PLACES = {
    "losses": "losses",
    "microbatching": "microbatching",
    "perturbations": "perturbations",
    "projections": "projections",
    "schedules": "schedules",
    "transforms": "optim",
    "tree": "tree",
    "tree_utils": "tree",
}
"""Which room has the names of which submodule of optax; names that it lacks are in `optim` or in a table below."""

OUR_CONVENTION = (
    "cosine_distance", "kl_divergence", "log_cosh", "perceptron_loss", "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
)  # fmt: skip
"""Losses that were ours before: one number for each example; optax's argument names give optax's values."""

NOT_HERE = {
    **dict.fromkeys(STATES, OTHER_STATE),
    "multi_normal": "a distribution for perturbations of the parameters; here jaxnn.perturbations.Normal",
    "assignment.base_hungarian_algorithm": "the assignment problem, no part of training: scipy.optimize has it",
    "assignment.hungarian_algorithm": "the assignment problem, no part of training: scipy.optimize has it",
    "experimental.aggregating": "experimental in optax; statistics of single examples' gradients are per_example's",
    "schedules.StatefulSchedule": PROTOCOL,
    "second_order.fisher_diag": "deprecated in optax; per_example.second_moment",
    "second_order.hessian_diag": "deprecated in optax; optim.sophia has an estimator",
    "second_order.hvp": "deprecated in optax; jax.jvp of jax.grad",
    "transforms.ConditionFn": PROTOCOL,
    "transforms.unitwise_clip": "a step of adaptive_grad_clip, which optax exports by accident",
    "transforms.unitwise_norm": "a step of adaptive_grad_clip, which optax exports by accident",
}

DIFFERENT_DEFAULTS = {
    ("microbatch", "accumulator"): "SUM, of our AccumulationType",
    ("lbfgs", "linesearch"): "our zoom search, with the same settings",
    ("MultiSteps", "accumulator_dtype"): "None, since float32 rounds float64 gradients",
    ("sophia", "hessian_diagonal_fn"): "None stands for a new Hutchinson estimator; optax makes one at import",
}


def theirs(name: str) -> Any:
    """optax's object of that name, whether or not it is marked as deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(optax, name) if name in dir(optax) else getattr(optax.contrib, name)


def public(module: Any) -> list[str]:
    """Public names that are no modules."""
    return [n for n in dir(module) if not n.startswith("_") and not inspect.ismodule(theirs(n))]


NAMES = sorted({*public(optax), *public(optax.contrib)})


def has_arguments(value: Any) -> bool:
    """Whether it is a function or a class made by calling it; types and states are not compared."""
    is_class = inspect.isclass(value) and not getattr(value, "_is_protocol", False)
    return inspect.isfunction(value) or (is_class and not issubclass(value, tuple) and "__init__" in vars(value))


SHARED = [name for name in NAMES if hasattr(optim, name) and has_arguments(theirs(name))]


def arguments(value: Any) -> list[inspect.Parameter]:
    """Its arguments but `*links` and the like, whose names no caller writes."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in inspect.signature(value).parameters.values() if p.kind not in variadic]


def same_default(a: Any, b: Any) -> bool:
    """Equal, or both functions (which the parity of the rules compares)."""
    if inspect.isfunction(a) and inspect.isfunction(b):
        return True
    if isinstance(a, type(jnp.float32)) or isinstance(b, type(jnp.float32)):
        return a is not None and b is not None and jnp.dtype(a) == jnp.dtype(b)
    return type(a) is type(b) and a == b


def faults(name: str, mine: Any, optaxs: Any) -> list[str]:
    """What a call that is written for optax would trip over."""
    positional = [p for p in arguments(mine) if p.kind is not p.KEYWORD_ONLY]
    by_name = {p.name: p for p in arguments(mine)}
    found = []
    for i, p in enumerate(arguments(optaxs)):
        match = by_name.get(p.name)
        if match is None:
            found.append(f"{p.name} is missing")
        elif p.kind is not p.KEYWORD_ONLY and (i >= len(positional) or positional[i].name != p.name):
            found.append(f"{p.name} is not argument {i}")
        elif (name, p.name) not in DIFFERENT_DEFAULTS and not same_default(match.default, p.default):
            found.append(f"{p.name} is {match.default!r} by default, in optax {p.default!r}")
    known = {p.name for p in arguments(optaxs)}
    return found + [f"{p.name} is positional, but optax has it not" for p in positional if p.name not in known]


def submodule_names() -> list[tuple[str, str]]:
    """(submodule, public name) of all that optax's public submodules hold."""
    found = []
    for module in sorted(n for n in dir(optax) if inspect.ismodule(getattr(optax, n)) and not n.startswith("_")):
        for name in dir(getattr(optax, module)):
            value = getattr(getattr(optax, module), name)
            library = inspect.ismodule(value) and not value.__name__.startswith("optax")
            if not name.startswith("_") and not library and name != "annotations":
                found.append((module, name))
    return found


SUBMODULE_NAMES = submodule_names()


def places_of(module: str, name: str) -> list[str]:
    """Where a name of optax (module "" for optax itself and optax.contrib) is in jaxnn."""
    rooms = ["optim", "losses"] if module in ("", "contrib") else [PLACES.get(module, "optim"), "optim"]
    short = name.removeprefix("tree_") if module == "tree_utils" else name
    names = dict.fromkeys([short, name, f"tree_{name}" if module == "tree" else name])
    return [f"{r}.{n}" for r in dict.fromkeys(rooms) for n in names if hasattr(room(r), n)]


def room(name: str) -> Any:
    return importlib.import_module(f"{jaxnn.__name__}.{name}")


def fail_at(wrong: dict[str, list[str]]) -> None:
    """Fail with a line for each name at which something is wrong."""
    if lines := [f"{name}: {', '.join(found)}" for name, found in wrong.items() if found]:
        pytest.fail("\n".join(lines))


def misplaced(places: list[str], listed: bool) -> list[str]:
    """What is wrong with a name that is at these places of ours, and listed as not here, or not."""
    if bool(places) != listed:
        return []
    return [f"is at {place}, but in the table of what is not here" for place in places] or ["is not here"]


def test_every_name_is_here_or_in_a_table() -> None:
    fail_at({name: misplaced(places_of("", name), name in NOT_HERE) for name in NAMES})


def test_every_name_of_a_submodule_is_here_or_in_a_table() -> None:
    def is_listed(module: str, name: str) -> bool:
        return f"{module}.{name}" in NOT_HERE or (module in ("contrib", "schedules", "transforms") and name in NOT_HERE)

    fail_at({f"{m}.{n}": misplaced(places_of(m, n), is_listed(m, n)) for m, n in SUBMODULE_NAMES})


def test_arguments_of_submodules_are_optaxs() -> None:
    wrong = {}
    for module, name in SUBMODULE_NAMES:
        optaxs = getattr(getattr(optax, module), name)
        if inspect.isfunction(optaxs) and name not in OUR_CONVENTION and (places := places_of(module, name)):
            r, _, ours = places[0].partition(".")
            if name == "convex_kl_divergence":
                optaxs = optax.losses.generalized_kl_divergence  # what the deprecated name passes its arguments to
            found = faults(name, getattr(room(r), ours), optaxs)
            defaults = ("make_perturbed_fun", "microbatch", "micro_vmap", "micro_grad")  # ours of the same kind
            wrong[f"{module}.{name}"] = [f for f in found if not (name in defaults and "by default" in f)]
    assert len(wrong) > 150
    fail_at(wrong)


def test_our_losses_take_optaxs_calls() -> None:
    """By optax's argument names, with the same values: these calls can mean nothing else."""

    @jax.jit
    def values(y: Any, d: Any) -> Any:
        found = {}
        for name in OUR_CONVENTION:
            ours, optaxs = (getattr(module, name) for module in (room("losses"), optax.losses))
            target = jnp.sign(d - 0.3) if name == "perceptron_loss" else d
            given = dict(zip(list(inspect.signature(optaxs).parameters)[:2], (y, target), strict=True))
            found[name] = ours(**given), optaxs(**given), ours(y, target)
        return found

    y, d = np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), np.array([[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]])
    for name, (named, expected, placed) in values(np.float32(y), np.float32(d)).items():
        np.testing.assert_allclose(named, expected, rtol=1e-5, atol=1e-6, err_msg=name)
        assert placed.shape == (2,), name


def test_arguments_and_defaults_are_optaxs() -> None:
    assert len(SHARED) > 150
    fail_at({name: faults(name, getattr(optim, name), theirs(name)) for name in SHARED})


def test_the_tables_hold_nothing_stale() -> None:
    assert not set(NOT_HERE) - set(NAMES) - {f"{m}.{n}" for m, n in SUBMODULE_NAMES}
    assert set(PLACES) | {"assignment", "contrib", "experimental", "second_order"} == {m for m, _ in SUBMODULE_NAMES}
    assert set(OUR_CONVENTION) <= set(dir(optax.losses))
    for name, argument in DIFFERENT_DEFAULTS:
        default = {p.name: p.default for p in arguments(theirs(name))}[argument]
        assert not same_default({p.name: p.default for p in arguments(getattr(optim, name))}[argument], default)


def test_pairs_and_schedules_are_here_by_optaxs_names() -> None:
    assert optim.LookaheadParams._fields == optax.LookaheadParams._fields
    assert len(SHARED) >= 100
    schedules = importlib.import_module("jaxnn.schedules")
    assert all(getattr(optim, name) is getattr(schedules, name) for name in schedules.__all__)


def test_a_wrong_signature_is_found() -> None:
    def right(a: Any, b: float = 1.0, *, c: bool = False) -> None: ...

    def swapped(b: Any, a: float = 1.0, *, c: bool = False) -> None: ...

    def other(a: Any, b: float = 2.0, *, c: int = 0, extra: int = 1) -> None: ...

    def short(a: Any, d: float = 1.0) -> None: ...

    assert faults("f", right, right) == []
    assert len(faults("f", swapped, right)) == 2
    assert len(faults("f", other, right)) == 2
    assert len(faults("f", short, right)) == 3


def test_states_of_the_same_name_begin_with_optaxs_fields() -> None:
    """So that `count, mu, nu = state` and `state[0]` mean what they mean in optax."""
    theirs = states_of_optax()
    shared = {
        name: getattr(optim, name) for name in optim.__all__ if name in theirs and name != "InjectHyperparamsState"
    }
    assert len(shared) >= 30
    wrong = {
        name: (ours._fields, theirs[name])
        for name, ours in shared.items()
        if ours._fields[: len(theirs[name])] != theirs[name]
    }
    assert not wrong


def states_of_optax() -> dict[str, tuple[str, ...]]:
    """The fields of every named tuple in any module of optax, private ones included."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "optax":
            for key, value in vars(module).items():
                if inspect.isclass(value) and issubclass(value, tuple) and hasattr(value, "_fields"):
                    found[key] = value._fields
    return found


def test_types_for_annotations_and_isinstance() -> None:
    def init(params: optim.Params) -> optim.OptState:
        return optim.EmptyState()

    def update(
        updates: optim.Updates, state: optim.OptState, params: optim.Params | None = None
    ) -> tuple[optim.Updates, optim.OptState]:
        return -0.5 * updates, state

    plain = optim.GradientTransformation(init, update)
    assert not isinstance(plain, optim.GradientTransformationExtraArgs)
    with_extra = (optim.sgd(1.0), optim.chain(plain), optim.with_extra_args_support(plain), optim.identity())
    for opt in with_extra:
        assert isinstance(opt, optim.GradientTransformation)
        assert isinstance(opt, optim.GradientTransformationExtraArgs)
        assert tuple(opt) == (opt.init, opt.update)
    assert not isinstance(optax.sgd(1.0), optim.GradientTransformation)
    updates, state = optim.chain(plain, optax.scale(2.0)).update(jnp.ones(2), (init(None), optax.EmptyState()))
    assert updates.tolist() == [-1.0, -1.0]
    assert isinstance(state[0], optim.EmptyState)
    injected = optim.inject_hyperparams(optim.sgd)(0.5).init(jnp.ones(2))
    assert isinstance(injected, optim.InjectHyperparamsState)


STATELESS = (
    optim.identity(), optim.set_to_zero(), optim.scale(2.0), optim.clip(1.0), optim.clip_by_global_norm(1.0),
    optim.clip_by_block_rms(1.0), optim.adaptive_grad_clip(0.1), optim.centralize(), optim.keep_params_nonnegative(),
    optim.normalize(), optim.scale_by_trust_ratio(), optim.normalize_by_update_norm(),
    optim.scale_by_param_block_norm(), optim.scale_by_param_block_rms(), optim.stateless(lambda u, p: u),
    optim.stateless_with_tree_map(lambda u, p: u),
)  # fmt: skip


def test_what_keeps_nothing_keeps_an_empty_state() -> None:
    params = {"w": np.ones((2, 3), np.float32)}
    for opt in STATELESS:
        state = opt.init(params)
        assert isinstance(state, optim.EmptyState)
        assert isinstance(jax.eval_shape(opt.update, params, state, params)[1], optim.EmptyState)
