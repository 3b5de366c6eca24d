"""Every rule and wrapper of `jaxnn.optim` on 8 devices: where its state lies, and that its numbers are those of one."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import optim
from jaxnn.compare.cases import all_cases
from jaxnn.compare.cases.first_order import of_three_examples
from tests.helpers import float64, random, slow

CASES = all_cases()
STEPS = 3


def lookahead(opt: Any) -> optim.Optimizer:
    """Lookahead as a rule of the parameters alone: its slow ones begin, and are kept, as the state's."""
    look = optim.lookahead(opt, 2, 0.5)

    def init(params: Any) -> Any:
        return look.init(params), optim.LookaheadParams.init_synced(params)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        inner, pair = state
        updates, inner = look.update(grads, inner, pair)
        return updates.fast, (inner, optim.apply_updates(pair, updates))

    return optim.Optimizer(init, update)


def measured(opt: Any) -> Any:
    return optim.chain(optim.scale(-0.1), opt)


OURS: dict[str, Callable[[], Any]] = {
    "adafactor": lambda: optim.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9),
    "scale_by_factored_rms": lambda: measured(optim.scale_by_factored_rms(min_dim_size_to_factor=2)),
    "galore": lambda: optim.galore(0.1, 3, 2),
    "scale_by_galore": lambda: measured(optim.scale_by_galore(3, 2, shorter_side=True)),
    "quantized_state": lambda: optim.quantized_state(optim.adam(0.1), min_size=8, block_size=32),
    "add_decayed_weights": lambda: measured(optim.add_decayed_weights(0.1)),
    "chain": lambda: optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1)),
    "named_chain": lambda: optim.named_chain(("clip", optim.clip_by_global_norm(1.0)), ("adam", optim.adam(0.1))),
    "identity": lambda: measured(optim.identity()),
    "lookahead": lambda: lookahead(optim.adam(0.1)),
    "nesterov_lookahead": lambda: optim.nesterov_lookahead(0.1),
    "dynamic_loss_scale": lambda: optim.dynamic_loss_scale(optim.adam(0.1)),
    "master_weights": lambda: optim.master_weights(optim.adam(0.1)),
    "monitor": lambda: measured(optim.monitor({"norm": optim.global_norm, "all": lambda u: u})),
    "measure_with_ema": lambda: measured(optim.monitor({"norm": optim.measure_with_ema(optim.global_norm, 0.9)})),
    "scale": lambda: optim.scale(-0.1),
    "scale_by_learning_rate": lambda: optim.scale_by_learning_rate(0.1),
    "scale_by_schedule": lambda: optim.scale_by_schedule(lambda count: -0.1 / (1 + count)),
    "scale_by_shampoo": lambda: measured(optim.scale_by_shampoo(graft=None, update_every=2, max_dim=8)),
    "shampoo": lambda: optim.shampoo(0.1, update_every=1),
    "scale_by_soap": lambda: measured(optim.scale_by_soap(precondition_frequency=2, precondition_1d=True)),
    "soap": lambda: optim.soap(0.1, precondition_frequency=1),
    "scale_by_sophia": lambda: measured(optim.scale_by_sophia()),
    "set_to_zero": optim.set_to_zero,
    "stateless": lambda: measured(optim.stateless(lambda updates, params: updates)),
    "stateless_with_tree_map": lambda: optim.stateless_with_tree_map(lambda update, param: -0.1 * update),
    "stochastic_rounding": lambda: optim.stochastic_rounding(optim.adam(0.1), key=jax.random.key(0)),
    "with_extra_args_support": lambda: optim.with_extra_args_support(optim.adam(0.1)),
    "differentially_private_aggregate": lambda: of_three_examples(
        optim.differentially_private_aggregate(0.5, 0.1, key=1)
    ),
}
"""Those without a case against optax, and those whose case would leave out what matters here."""
NO_RULE = {"hutchinson_estimator_diag_hessian"}
"""Its updates are no steps; `sophia` runs it."""
MATRICES = {"scale_by_muon", "orthogonalize_via_newton_schulz"}
RULES = {name: OURS.get(name, lambda name=name: CASES[name].ours(optim)) for name in sorted({*CASES, *OURS})}
MAIN = [name for name in RULES if ":" not in name]
FIXED_LOSS = [name for name in MAIN if name in CASES and CASES[name].fixed_loss]

QUICK = [
    "adam", "ema", "trace", "accumulate", "kahan", "master_weights", "average_params", "scale_by_lbfgs", "soap", "muon",
    "schedule_free",
]  # fmt: skip
STRUCTURED = (
    "adafactor", "flatten", "galore", "lbfgs", "muon", "muon_with_roles", "orthogonalize_via_newton_schulz",
    "quantized_state", "scale_by_galore", "scale_by_shampoo", "scale_by_soap", "shampoo", "sm3", "soap",
)  # fmt: skip
"""Rules that look at an array as more than its entries."""
EVALUATING = {"sam", "sophia", "scale_by_sophia", *FIXED_LOSS}
QUICK_NUMBERS = ("muon", "scale_by_lbfgs")
_REST = [name for name in MAIN if name not in STRUCTURED]
ELEMENTWISE = [tuple(_REST[first::4]) for first in range(4)]
"""All others, in four programs: one of all of them takes longer to compile."""
PARTS = [STRUCTURED, *ELEMENTWISE]
SOME_AND_ALL = [
    pytest.param(QUICK_NUMBERS, id="quick"),
    pytest.param(("galore",), id="galore", marks=pytest.mark.slow),
    pytest.param(STRUCTURED, id="all", marks=pytest.mark.proof),
]
STILL = {"set_to_zero"}


def values(name: str) -> Any:
    """Parameters in which every unfolding of an array has full rank."""
    if name in MATRICES:
        return {"w": random(0, 16, 16), "parts": (random(1, 8, 8), random(2, 16, 16)), "nothing": None}
    kernel = random(3, 8, 2, 2, 16) if name in STRUCTURED else random(3, 16)
    return {"w": random(0, 16, 16), "parts": (random(1, 16), random(2), kernel), "nothing": None}


def specs(name: str) -> Any:
    """As FSDP would divide them: one axis of each array among all devices, scalars whole on each."""
    if name in MATRICES:
        return {"w": P("x", None), "parts": (P(None, "x"), P("x", None)), "nothing": None}
    kernel = P(None, None, None, "x") if name in STRUCTURED else P("x")
    return {"w": P("x", None), "parts": (P("x"), P(), kernel), "nothing": None}


@functools.cache
def mesh(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("x",), axis_types=(kind,))


def placed(names: Any, kind: AxisType | None) -> dict[str, Any]:
    """For each rule its parameters: on one device for None, else divided among 8."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    whole = {name: jax.tree.map(lambda x: np.asarray(x, dtype), values(name)) for name in names}
    if kind is None:
        return whole
    return {
        name: jax.tree.map(lambda x, spec: jax.device_put(x, NamedSharding(mesh(kind), spec)), whole[name], specs(name))
        for name in names
    }


def target(path: Any, x: Any, step: Any) -> Any:
    """What the parameters are drawn to: other numbers for every entry, and at every step."""
    places = [jax.lax.broadcasted_iota(x.dtype, x.shape, axis) for axis in range(x.ndim)]
    phase = sum(((2.7 + 1.9 * axis) * place * (place + 1) for axis, place in enumerate(places)), 0.3 + 0 * x)
    return jnp.sin(phase + 1.7 * step + len(path))


def stepped(rules: dict[str, Any], params: dict[str, Any], states: dict[str, Any], step: Any) -> Any:
    """Each rule's parameters and state after one update, with gradients of full rank.

    They are one sequence for all rules, which is less to compile than a loss for each; those that evaluate the loss
    themselves have its gradients.
    """
    new = {}
    for name, opt in rules.items():

        def loss(params: Any, *_: Any, at: Any = 0.0 * step if name in FIXED_LOSS else step) -> Any:
            def leaf(path: Any, p: Any) -> Any:
                away = p - target(path, p, at)
                return jnp.sum(away**2) / 2 + jnp.sum(jnp.cos(away))

            return sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(leaf, params)), 3.0)

        if name in EVALUATING:
            value, grads = jax.value_and_grad(loss)(params[name])
        else:
            value, grads = 3.0 + step, gradients(params[name], step)
        extra = {"value": value, "grad": grads, "value_fn": loss, "obj_fn": loss, "grad_fn": jax.grad(loss)}
        updates, state = opt.update(grads, states[name], params[name], **extra)
        new[name] = optim.apply_updates(params[name], updates), state
    return {name: pair[0] for name, pair in new.items()}, {name: pair[1] for name, pair in new.items()}


def gradients(params: Any, step: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, p: target(path, jnp.zeros_like(p), step), params)


def run(names: tuple[str, ...], params: dict[str, Any], over: Callable[[Any], Any] = lambda program: program) -> Any:
    """Parameters and states after `STEPS` updates of each rule, all in one program that is not optimized."""
    rules = {name: RULES[name]() for name in names}

    def program(params: Any, states: Any) -> Any:
        def body(carry: Any, step: Any) -> tuple[Any, None]:
            return stepped(rules, *carry, step), None

        return jax.lax.scan(body, (params, states), jnp.arange(STEPS, dtype=float))[0]

    states = initial(names, params)
    return jax.jit(over(program), compiler_options={"xla_backend_optimization_level": 0})(params, states)


@functools.cache
def on_one_device(names: tuple[str, ...]) -> Any:
    """Parameters after `STEPS` updates of each rule in float64."""
    return run(names, placed(names, None))[0]


def initial(names: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {name: RULES[name]().init(params[name]) for name in names}


def replicated(program: Callable[..., Any]) -> Callable[..., Any]:
    """The program inside `shard_map`, with its default checks, where every device has all parameters."""
    return jax.shard_map(program, mesh=mesh(AxisType.Auto), in_specs=P(), out_specs=P())


def misplaced(name: str, state: Any, params: Any) -> list[str]:
    """Arrays of a state that lie on one device, or are a parameter's (by path and shape) and lie not as it does."""
    own = [(jax.tree_util.keystr(path), p) for path, p in jax.tree_util.tree_leaves_with_path(params)]
    found = []
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        place = jax.tree_util.keystr(path)
        # A factor of one axis lies as that axis does, be its shape the parameter's or not.
        factor = re.search(r"\.(statistics|bases|preconditioners)\[", place)
        models = [p for end, p in own if place.endswith(end) and p.shape == x.shape and not factor]
        wrong = not all(x.sharding.is_equivalent_to(p.sharding, x.ndim) for p in models)
        if wrong or (x.size >= 16 and len(x.sharding.device_set) < 8):
            found.append(f"{name} {place} {x.shape} {x.sharding}")
    return found


def test_every_rule_is_here() -> None:
    """A rule is a public function that returns an Optimizer."""
    functions = [f for f in vars(optim).values() if inspect.isfunction(f)]
    rules = {f.__name__ for f in functions if f.__annotations__.get("return") == "Optimizer"}
    assert len(rules) >= 140
    assert rules - set(RULES) == NO_RULE


@pytest.mark.parametrize(
    ("names", "kind", "jit"),
    [
        (QUICK, AxisType.Auto, True),
        (["adam", "master_weights", "soap"], AxisType.Explicit, False),
        pytest.param(MAIN, AxisType.Auto, False, marks=pytest.mark.proof),
        *slow(
            (QUICK, AxisType.Explicit, False),
            (MAIN, AxisType.Auto, True),
            (MAIN, AxisType.Explicit, True),
            (STRUCTURED, AxisType.Explicit, False),
        ),
    ],
)
def test_states_lie_as_their_parameters(names: Any, kind: AxisType, jit: bool) -> None:
    params = placed(names, kind)
    init = functools.partial(initial, names)
    states = (jax.jit(init) if jit else init)(params)
    assert [line for name in names for line in misplaced(name, states[name], params[name])] == []


def test_each_device_holds_an_eighth_of_adams_moments() -> None:
    params = jax.device_put(np.ones((1024, 64), np.float32), NamedSharding(mesh(AxisType.Auto), P("x")))
    opt = optim.chain(optim.ema(0.9), optim.trace(0.9), optim.master_weights(optim.accumulate(optim.adam(0.1), 2)))
    for init in (opt.init, jax.jit(opt.init)):
        held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(init(params)))
        assert held <= 6 * params.nbytes / 8 + 64  # ema, trace, the master weights, accumulated gradients, mu, nu


@pytest.mark.parametrize(
    ("kind", "jit"), [(AxisType.Explicit, True), *slow((AxisType.Explicit, False), (AxisType.Auto, False))]
)
def test_what_is_derived_from_an_axis_is_divided_as_the_axis_is(kind: AxisType, jit: bool) -> None:
    w = jax.device_put(np.ones((16, 8), np.float32), NamedSharding(mesh(kind), P("x")))

    def shares(tree: Any) -> list[tuple[int, ...]]:
        return [x.addressable_shards[0].data.shape for x in jax.tree.leaves(tree)]

    rules = {
        "shampoo": optim.shampoo(0.1),
        "soap": optim.soap(0.1),
        "sm3": optim.sm3(0.1),
        "adafactor": optim.adafactor(0.1, min_dim_size_to_factor=8),
        "lbfgs": optim.scale_by_lbfgs(3),
        "galore": optim.galore(0.1, 4),
        "quantized": optim.quantized_state(optim.sgd(0.1, momentum=0.9), min_size=8, block_size=16),
    }

    def states(w: Any) -> Any:
        return {name: opt.init(w) for name, opt in rules.items()}

    of = (jax.jit(states) if jit else states)(w)
    assert shares(of["shampoo"].statistics) == [(2, 16), (8, 8)]
    assert shares(of["soap"].bases) == [(2, 16), (8, 8)]
    assert shares(of["sm3"].mu) == [(2,), (8,)]
    assert shares((of["adafactor"].v_row, of["adafactor"].v_col)) == [(8,), (2,)]
    assert shares(of["lbfgs"].diff_params_memory) == [(3, 2, 8)]
    assert shares(of["galore"].projector) == [(2, 4)]
    assert shares((of["quantized"].inner_state.trace, of["quantized"].scales.trace)) == [(2, 8), (1,)]


@pytest.mark.parametrize(
    "names",
    [pytest.param(names, marks=pytest.mark.slow if names is ELEMENTWISE[0] else pytest.mark.proof) for names in PARTS],
    ids=lambda names: names[0],
)
def test_parameters_divided_by_the_compiler_move_as_on_one_device(names: tuple[str, ...]) -> None:
    with float64():
        params = placed(names, AxisType.Auto)
        after, states = run(names, params)
        assert_moved_alike(names, after)
        assert [line for name in names for line in misplaced(name, states[name], params[name])] == []


@pytest.mark.parametrize("names", SOME_AND_ALL)
def test_parameters_divided_by_their_types_move_as_on_one_device(names: tuple[str, ...]) -> None:
    """Rules whose programs differ from those for Auto axes; the others are traced, which is where they would raise."""
    with float64():
        after, _ = run(names, placed(names, AxisType.Explicit))
        assert_moved_alike(names, after)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["explicit", "shard_map"])
def test_every_rule_can_be_traced(where: str) -> None:
    """Types of an Explicit mesh, and the checks of `shard_map`, are of no concern to the compiler."""
    params = placed(MAIN, AxisType.Explicit if where == "explicit" else None)
    states = jax.eval_shape(functools.partial(initial, MAIN), params) if where == "shard_map" else initial(MAIN, params)
    rules = {name: RULES[name]() for name in MAIN}

    def program(params: Any, states: Any) -> Any:
        return jax.lax.scan(
            lambda carry, step: (stepped(rules, *carry, step), None), (params, states), jnp.arange(2.0)
        )[0]

    after, _ = jax.eval_shape(replicated(program) if where == "shard_map" else program, params, states)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, params)


@pytest.mark.parametrize("names", SOME_AND_ALL)
def test_replicated_parameters_in_shard_map_move_as_on_one_device(names: tuple[str, ...]) -> None:
    with float64():
        after, states = run(names, placed(names, None), replicated)
        assert_moved_alike(names, after)
        assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(states))


@pytest.mark.slow
def test_bases_of_equal_eigenvalues_hang_on_rounding_and_on_nothing_else() -> None:
    """In float32, with gradients of rank 8 and 3: for the second SOAP and GaLore part from themselves on ONE device, as
    far as they would on several, when gradients change by 1e-6; for the first they do neither."""
    rules = {"soap": optim.soap(0.1, precondition_frequency=2), "galore": optim.galore(0.1, rank=4, update_proj_gap=2)}

    def program(grads: Any) -> Any:
        def body(carry: Any, g: Any) -> tuple[Any, None]:
            moved = {}
            for name, opt in rules.items():
                for rank, (w, state) in carry[name].items():
                    updates, state = opt.update(g[rank], state, w)
                    moved[name, rank] = optim.apply_updates(w, updates), state
            return {name: {rank: moved[name, rank] for rank in carry[name]} for name in rules}, None

        start = {
            name: {rank: (jnp.ones((8, 8)), opt.init(jnp.ones((8, 8)))) for rank in grads}
            for name, opt in rules.items()
        }
        end = jax.lax.scan(body, start, grads)[0]
        return {(name, rank): end[name][rank][0] for name in rules for rank in grads}

    left, right = (np.linalg.qr(random(seed, 8, 8))[0] for seed in (0, 1))
    whole = left * np.arange(8, 0, -1) @ right + 0.1 * random(2, 4, 8, 8)
    low = left[:, :3] * np.array([3.0, 2.0, 1.0]) @ (right[:3] + 0.1 * random(3, 4, 3, 8))
    grads = {8: jnp.asarray(whole, jnp.float32), 3: jnp.asarray(low, jnp.float32)}
    nearby = {rank: g * (1 + 1e-6 * random(4, 4, 8, 8, dtype=np.float32)) for rank, g in grads.items()}
    alone = jax.jit(program)
    here, near, there = alone(grads), alone(nearby), jax.jit(replicated(program))(grads)
    for name in rules:
        assert np.max(np.abs(near[name, 8] - here[name, 8])) < 1e-3
        assert np.max(np.abs(np.asarray(there[name, 8]) - np.asarray(here[name, 8]))) < 1e-3
        assert np.max(np.abs(near[name, 3] - here[name, 3])) > 1e-2


def assert_moved_alike(names: tuple[str, ...], after: dict[str, Any]) -> None:
    """The parameters are those of one device, and some of each rule's are not where they began."""
    for name in names:
        trees = after[name], on_one_device(names)[name], values(name)
        got, expected, first = map(jax.tree.leaves, trees)
        for g, e in zip(got, expected, strict=True):
            # Eigenvectors and singular vectors: rounding over gaps between the values.
            tolerance = 1e-6 if "soap" in name else 1e-8 if "galore" in name else 1e-9
            np.testing.assert_allclose(g, e, rtol=tolerance, atol=tolerance, err_msg=name)
        assert name in STILL or not all(map(np.allclose, expected, first)), name
