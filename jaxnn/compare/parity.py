"""Parity of our optimizers with optax's, run side by side: on the same gradients or on their own trajectories.

A `Case` holds a rule of ours and its optax counterpart with the arguments that make their definitions agree (`pair`
makes one of any two optimizers); `measure` runs both for some steps on a random pytree or on a problem and returns a
`Parity`: the differences of parameters and common state fields at each step, and the cost of each rule.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnn import optim, tree
from jaxnn.checks import nearest_name, require_positive_int
from jaxnn.compare.course import (
    Course,
    Gradients,
    Step,
    gradient_program,
    problem_course,
    random_course,
    random_loss,
    random_params,
)
from jaxnn.compare.differences import Cost, Parity, differences
from jaxnn.compare.problems import Problem
from jaxnn.optim.base import call_update
from jaxnn.optim.chain import require_transformation
from jaxnn.types import Array, DTypeLike, Params, PyTree

__all__ = [
    "Case",
    "Cost",
    "Gradients",
    "Parity",
    "as_extra",
    "field",
    "measure",
    "pair",
    "random_loss",
    "random_params",
    "same",
    "shared_fields",
]


PROBLEM_TOLERANCE, LOOSEST = 1e-9, 1e-2
"""Bounds of `default_tolerance`: the smallest on a problem, and the largest in a narrow dtype."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One rule of ours, with settings, and the optax transformation that it should equal.

    Attributes:
        ours: makes our rule from the namespace `jaxnn.optim`.
        theirs: makes the optax transformation.
        differs: the difference of the definitions in words, and how the arguments here restore equality; "" where they
            agree.
        fields: our state field -> optax's, where the names differ; "" excludes ours from the comparison. States are
            compared where they are NamedTuples, as optax's are.
        matrices: whether the pytree holds only matrices (for rules defined on them).
        positive: whether the initial parameters are positive.
        fixed_loss: whether all steps use the same loss (for gradients "own"), as line searches expect; else each step
            has new noise, or a new minibatch.
        steps: number of steps.
        tolerance: largest relative difference allowed in float64.
    """

    ours: Callable[[Any], optim.Optimizer]
    theirs: Callable[[], Any]
    differs: str = ""
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    matrices: bool = False
    positive: bool = False
    fixed_loss: bool = False
    steps: int = 100
    tolerance: float = 1e-12


def same(name: str, *args: Any, note: str = "", fields: Mapping[str, str] | None = None, **kwargs: Any) -> Case:
    """A case with the same name and arguments here and in optax (or optax.contrib); `note` is its `differs`."""
    theirs = getattr(optax, name, None) or getattr(optax.contrib, name)
    return Case(
        lambda library: getattr(library, name)(*args, **kwargs), lambda: theirs(*args, **kwargs), note, fields or {}
    )


def pair(ours: Any, theirs: Any, **settings: Any) -> Case:
    """A case of any two optimizers, such as a rule of your own and optax's.

    Args:
        ours, theirs: optimizers of `jaxnn.optim`, of optax, or any objects with init and update.
        settings: other attributes of `Case`.

    Raises:
        TypeError: one of them is not an optimizer, or a setting does not exist.
        ValueError: the number of steps is less than 1.

    Example:
        >>> measure(pair(optim.sgd(0.1), optax.sgd(0.1), steps=3)).equal
        True
    """
    require_transformation("pair", "ours", ours)
    require_transformation("pair", "theirs", theirs)
    known = [f.name for f in dataclasses.fields(Case)][2:]
    for name in settings:
        if name not in known:
            raise TypeError(f"pair: no setting {name!r}{nearest_name(name, known)}; there are: {', '.join(known)}.")
    require_positive_int("pair", "steps", settings.get("steps", 1))
    return Case(lambda library: ours, lambda: theirs, **settings)


def measure(
    case: Case,
    gradients: Gradients = "own",
    *,
    problem: Problem | None = None,
    dtype: DTypeLike = jnp.float64,
    seed: int = 0,
    tolerance: float | None = None,
    library: ModuleType | SimpleNamespace = optim,
) -> Parity:
    """Run both rules of a case, alternating step by step, and compare parameters and state after every step.

    One compiled program computes the gradients of both; the update of each (with the addition to the parameters) is a
    program of its own, whose compilation and steps are timed.

    Args:
        case: the two rules; `pair` makes one.
        gradients: "own": each rule receives the gradient at its own parameters; "same": both receive one
            random sequence.
        problem: both run on its training loss, e.g. `problems.load("digits-mlp")`; None for a random pytree and a
            random noisy loss.
        dtype: of parameters, data and gradients; float64 is enabled for the run.
        seed: of the pytree or the initial parameters, the noise, the order of the data and random layers.
        tolerance: largest relative difference that counts as equal; None for `default_tolerance`.
        library: the namespace passed to `case.ours`; tests replace it by a mutated module.

    Raises:
        TypeError: case is not a Case, problem not a Problem, or a rule not an optimizer.
        ValueError: unknown gradients; a name in `fields` that is no state field; a common state field differs in
            structure or shape; a rule changes the structure or shapes of its parameters or state; the case needs
            matrices or positive parameters, which the problem does not have.

    Example:
        >>> found = measure(dataclasses.replace(same("sgd", 0.1), steps=5))
        >>> found.equal, found.leaves[0], found.max_difference.shape
        (True, 'params/parts/0', (5, 4))
    """
    known = get_args(Gradients)
    if gradients not in known:
        raise ValueError(f"measure: gradients must be one of {known}, got {gradients!r}.")
    if not isinstance(case, Case):
        raise TypeError(f"measure: expected a Case, such as pair(mine, optax.adam(1e-3)), got {type(case).__name__}.")
    if problem is not None and not isinstance(problem, Problem):
        raise TypeError(f'measure: problem must be a Problem, such as problems.load("digits-mlp"), got {problem!r}.')
    with jax.enable_x64(True):
        if problem is None:
            course = random_course(jnp.dtype(dtype), matrices=case.matrices, positive=case.positive, seed=seed)
        else:
            course = problem_course(problem, jnp.dtype(dtype), seed=seed)
            _require_fit(case, course.params)
        steps = course.steps(case.steps)
        if case.fixed_loss and gradients == "own":
            steps = itertools.repeat(next(steps), case.steps)
        first = next(steps)
        ours, theirs = (_Run(opt, course, gradients, first) for opt in (case.ours(library), case.theirs()))
        with ThreadPoolExecutor() as pool:  # XLA compiles without the GIL: both at once on two cores
            list(pool.map(_Run.compile, (ours, theirs)))
        fields = shared_fields(ours.state, theirs.state, case.fields)
        own = {name: name for name in fields}
        found = []
        for i, step in enumerate(itertools.chain([first], steps)):
            for run in (ours, theirs) if i % 2 == 0 else (theirs, ours):  # neither always has warm caches
                run.step(step)
            found.append(differences(_compared(ours, own), _compared(theirs, fields)))
    if tolerance is None:
        tolerance = default_tolerance(case, problem, dtype)
    return Parity(
        found[0].names,
        np.stack([step.max_difference for step in found]),
        np.stack([step.mean_difference for step in found]),
        np.maximum.accumulate(np.stack([step.entry for step in found])),
        jnp.dtype(dtype).name,
        _eps(dtype),
        tolerance,
        ours.cost(),
        theirs.cost(),
        case.differs,
    )


def default_tolerance(case: Case, problem: Problem | None = None, dtype: DTypeLike = jnp.float64) -> float:
    """The default of `measure`: the largest relative difference that counts as equal.

    On the random pytree in float64 it is the case's own. On a problem it is at least 1e-9: rounding grows along the
    trajectory of a network. In a narrower dtype it is the same multiple of eps, and at most 1e-2, or the tolerance in
    float64 if that is larger. Correct trajectories may exceed that within a hundred steps: compare on the same
    gradients there, or for few steps.
    """
    double = case.tolerance if problem is None else max(case.tolerance, PROBLEM_TOLERANCE)
    return min(double * _eps(dtype) / _eps(jnp.float64), max(double, LOOSEST))


def as_extra(transformation: Any) -> Any:
    """The transformation as one that accepts extra arguments and ignores those that it does not know."""
    return optax.with_extra_args_support(transformation)


def shared_fields(ours: Any, theirs: Any, renamed: Mapping[str, str]) -> dict[str, str]:
    """The common state fields: {our name: optax's name}; ValueError for a renamed field that a state lacks."""
    names = {name: renamed.get(name, name) for name in _fields(ours)}
    unknown = {name for name in renamed if name not in names} | {
        their for name, their in names.items() if name in renamed and their and their not in _fields(theirs)
    }
    if unknown:
        raise ValueError(
            f"parity: no state field {sorted(unknown)}; ours {list(_fields(ours))}, theirs {list(_fields(theirs))}. "
            "Fields are those of NamedTuples."
        )
    return {name: their for name, their in names.items() if their and their in _fields(theirs)}


def field(state: Any, name: str) -> Any:
    """The field of that name in a nested state: the first, outer before inner; KeyError if there is none."""
    return _fields(state)[name]


def _fields(state: Any) -> dict[str, Any]:
    """The fields with arrays of all NamedTuples in a state; of equal names the first, outer before inner."""
    found: dict[str, Any] = {}
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        found |= {name: value for name, value in zip(state._fields, state, strict=True) if jax.tree.leaves(value)}
    children = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    for child in children:
        found = _fields(child) | found
    return found


class _Run:
    """The run of one rule: parameters, state, its compiled update and its timings."""

    def __init__(self, opt: Any, course: Course, gradients: Gradients, first: Step) -> None:
        require_transformation("measure", "a rule", opt)
        self._gradients = gradient_program(course.loss, gradients)
        self.params, self.state = course.params, jax.tree.map(jnp.asarray, opt.init(course.params))
        value, grads = self._gradients(self.params, first)
        began = time.perf_counter()
        self._lowered, self.state = _lowered(_updater(opt, course), grads, value, self.params, self.state, first)
        self._compile_seconds = time.perf_counter() - began
        self._seconds: list[float] = []

    def compile(self) -> None:
        began = time.perf_counter()
        with jax.enable_x64(True):  # a thread-local setting
            self._update = self._lowered.compile()
        self._compile_seconds += time.perf_counter() - began

    def step(self, step: Step) -> None:
        value, grads = jax.block_until_ready(self._gradients(self.params, step))
        began = time.perf_counter()
        self.params, self.state = jax.block_until_ready(self._update(grads, value, self.params, self.state, step))
        self._seconds.append(time.perf_counter() - began)

    def cost(self) -> Cost:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))
        return Cost(statistics.median(self._seconds), self._compile_seconds, size)


def _updater(opt: Any, course: Course) -> Callable[..., tuple[Params, Any]]:
    """The update of one rule and its application, with every extra argument that rules use."""

    def update(grads: PyTree, value: Array, params: Params, state: Any, step: Step) -> tuple[Params, Any]:
        # optax's line searches reject an extra argument that value_fn does not name.
        def value_fn(params: Params, grad_fn: Any = None, obj_fn: Any = None) -> Array:
            return course.loss(params, step)

        def grad_fn(params: Params) -> PyTree:
            return jax.grad(value_fn)(params)

        extra = {"value": value, "grad": grads, "value_fn": value_fn, "grad_fn": grad_fn, "obj_fn": value_fn}
        updates, state = call_update(opt, grads, state, params, extra)
        return optax.apply_updates(params, updates), state

    return update


def _lowered(update: Callable[..., Any], grads: PyTree, value: Array, params: Params, state: Any, step: Step) -> Any:
    """The lowered update, and the state in the dtypes it keeps: optax may widen a half-precision state at first."""

    def lower(state: Any) -> tuple[Any, Any]:
        made = jax.jit(update).lower(grads, value, _shapes(params), _shapes(state), step)
        new_params, new_state = made.out_info
        for name, before, after in (("parameters", params, new_params), ("state", state, new_state)):
            if _forms(before) != _forms(after):
                raise ValueError(
                    f"measure: a rule must keep the structure and the shapes of its {name}; an update turns "
                    f"{_forms(before)} into {_forms(after)}."
                )
        return made, new_state

    made, kept = lower(state)
    if _shapes(kept) != _shapes(state):
        state = jax.tree.map(lambda s, k: s.astype(k.dtype), state, kept)
        made, _ = lower(state)
    return made, state


def _eps(dtype: DTypeLike) -> float:
    return float(jnp.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _shapes(values: PyTree) -> PyTree:
    """Shapes and dtypes without weak types, so that a weakly typed initial state does not change the program."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), values)


def _forms(values: PyTree) -> dict[str, tuple[int, ...]]:
    return {name: a.shape for name, a in tree.named_leaves(values).items()}


def _compared(run: _Run, names: Mapping[str, str]) -> PyTree:
    """The compared parts of a run: its parameters, and state fields by our names."""
    fields = _fields(run.state)
    return {"params": run.params, "state": {mine: fields[name] for mine, name in names.items()}}


def _require_fit(case: Case, params: Params) -> None:
    """Raise ValueError if a case needs matrices or positive parameters, which a problem does not have."""
    for name, leaf in tree.named_leaves(params).items():
        if case.matrices and leaf.ndim != 2:
            raise ValueError(f"measure: the case needs a pytree of matrices, but params/{name} has shape {leaf.shape}.")
        if case.positive and not bool(jnp.all(leaf > 0)):
            raise ValueError(f"measure: the case needs positive parameters, but params/{name} has others.")
