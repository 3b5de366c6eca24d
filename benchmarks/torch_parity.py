"""Parity of our rules with torch.optim's: the table of rules that both have, and the function that runs both.

    python -m benchmarks.optimizer_parity     # prints this table too if torch is installed

A `TorchCase` names a rule of ours and torch's with the arguments that make their definitions agree. Where they differ
with the arguments of the same names, a case of its own describes the difference and names the case that restores
equality. Each rule follows its own trajectory for 100 steps in float64 on a non-convex, noisy loss; parameters and all
common state fields are compared after every step. Omitted: `maximize` (negate the gradients), SparseAdam (no sparse
arrays here), foreach, fused and capturable (the same mathematics).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import optim
from jaxnn.compare.parity import field, random_loss
from jaxnn.types import Array, Key, Params, Shape

ARRAYS: tuple[Shape, ...] = ((5, 3), (4,), (), (3, 2, 2, 4))
MATRICES: tuple[Shape, ...] = ((3, 5), (4, 4), (6, 2))


@dataclasses.dataclass(frozen=True)
class Difference:
    """Largest differences over all steps: relative and in ulp, of the parameters and of each state field."""

    params: float
    params_ulp: float
    state: Mapping[str, float]

    @property
    def largest(self) -> float:
        """The largest relative difference of all."""
        return max([self.params, *self.state.values()])


@dataclasses.dataclass(frozen=True)
class TorchCase:
    """One rule of ours, with settings, and the torch optimizer that it should equal.

    Attributes:
        ours: makes our rule from the namespace `jaxnn.optim`.
        rule, arguments: the class in torch.optim, and its arguments.
        fields: our state field -> torch's, or a function of torch's state of one tensor. A leaf for which torch has no
            such field is not compared.
        differs: the difference of the definitions in words; "" where they agree.
        restored_by: name of the case whose arguments restore equality, if those here do not.
        shapes: of the parameters.
        wide: whether torch's casts to bfloat16, which would hide smaller differences, are disabled.
        steps: number of steps.
    """

    ours: Callable[[Any], optim.Optimizer]
    rule: str
    arguments: Mapping[str, Any]
    fields: Mapping[str, str | Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    differs: str = ""
    restored_by: str = ""
    shapes: tuple[Shape, ...] = ARRAYS
    wide: bool = False
    steps: int = 100

    @property
    def theirs(self) -> str:
        """The call in torch, for the table.

        Example:
            >>> TorchCase(lambda library: library.sgd(0.1), "SGD", {"lr": 0.1}).theirs
            'SGD(lr=0.1)'
        """
        return f"{self.rule}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


MOMENTS = {"count": "step", "mu": "exp_avg", "nu": "exp_avg_sq"}
SQUARES = {"count": "step", "nu": "square_avg"}


def with_l2(library: Any, weight_decay: float, rule: optim.Optimizer) -> optim.Optimizer:
    """The rule after the L2 penalty that torch's coupled weight_decay adds to the gradient."""
    return library.chain(library.add_decayed_weights(weight_decay), rule)


def steps_taken(count: Array) -> Array:
    """The number t of the update, from 1, in the dtype of the run."""
    return (count + 1).astype(float)


def nu_weight(count: Array) -> Array:
    """sqrt(1 - 0.999^t): the square root of Adam's bias correction of nu."""
    return jnp.sqrt(1 - 0.999 ** steps_taken(count))


def dampened(library: Any) -> optim.Optimizer:
    """torch's dampening: every gradient but the first is multiplied by 0.7 before it enters the trace."""
    weight = library.scale_by_schedule(lambda count: jnp.where(count == 0, 1.0, 0.7))
    return library.chain(weight, library.sgd(0.05, momentum=0.9))


def torch_amsgrad(library: Any) -> optim.Optimizer:
    """AMSGrad with bias correction of nu after the maximum: by the learning rate and eps."""
    return library.inject_hyperparams(library.amsgrad)(
        lambda count: 0.1 * nu_weight(count), eps=lambda count: 1e-8 * nu_weight(count), bias_correction_nu=False
    )


def torch_asgd(library: Any) -> optim.Optimizer:
    """SGD with L2 penalty and a decaying rate, and the mean of its iterates from step t0 + 2 on, t0 = 20."""
    rule = library.sgd(lambda count: 0.05 / (1 + 0.01 * 0.05 * count.astype(float)) ** 0.75)
    return library.average_params(with_l2(library, 0.01, rule), start=21)


def torch_adafactor(library: Any, **arguments: Any) -> optim.Optimizer:
    """Adafactor with torch's learning rate min(lr, 1 / sqrt(t)), lr = 0.05."""
    return library.adafactor(lambda count: jnp.minimum(0.05, steps_taken(count) ** -0.5), 2, **arguments)


def torch_muon(library: Any, nesterov: bool) -> optim.Optimizer:
    """Muon on momentum without bias correction, for matrices (outputs, inputs), as torch's are."""
    numbers = library.MuonDimensionNumbers(reduction_axis=1, output_axis=0)
    rule = library.muon(
        0.02, beta=0.0, eps=0.0, weight_decay=0.1, nesterov=False, muon_weight_dimension_numbers=lambda params: numbers
    )
    return library.chain(library.trace(0.95, nesterov), library.scale(0.05), rule)


CASES: dict[str, TorchCase] = {
    "sgd": TorchCase(lambda library: library.sgd(0.1), "SGD", {"lr": 0.1}),
    "sgd: momentum": TorchCase(
        lambda library: library.sgd(0.05, momentum=0.9), "SGD", {"lr": 0.05, "momentum": 0.9},
        {"trace": "momentum_buffer"},
    ),
    "sgd: nesterov": TorchCase(
        lambda library: library.sgd(0.05, momentum=0.9, nesterov=True), "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True}, {"trace": "momentum_buffer"},
    ),
    "sgd: weight_decay": TorchCase(
        lambda library: with_l2(library, 0.01, library.sgd(0.05, momentum=0.9)), "SGD",
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}, {"trace": "momentum_buffer"},
    ),
    "sgd: dampening": TorchCase(
        lambda library: library.sgd(0.05, momentum=0.9), "SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3},
        differs="dampening weighs every gradient but the first by 1 - dampening; ours has no such argument, and "
        "scale_by_schedule before sgd does the same",
        restored_by="sgd: dampening by scale_by_schedule",
    ),
    "sgd: dampening by scale_by_schedule": TorchCase(
        dampened, "SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}, {"trace": "momentum_buffer"}
    ),
    "adam": TorchCase(lambda library: library.adam(0.1), "Adam", {"lr": 0.1}, MOMENTS),
    "adam: weight_decay": TorchCase(
        lambda library: with_l2(library, 0.01, library.adam(0.1, b1=0.8, b2=0.95, eps=1e-3)), "Adam",
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.01}, MOMENTS,
    ),
    "amsgrad": TorchCase(
        lambda library: library.amsgrad(0.1), "Adam", {"lr": 0.1, "amsgrad": True},
        differs="torch takes the maximum of nu and corrects its bias afterwards, so that the maximum shrinks after all",
        restored_by="amsgrad: corrected after the maximum",
    ),
    "amsgrad: corrected after the maximum": TorchCase(
        torch_amsgrad, "Adam", {"lr": 0.1, "amsgrad": True}, MOMENTS | {"nu_max": "max_exp_avg_sq"}
    ),
    "adamw": TorchCase(
        lambda library: library.adamw(0.1, weight_decay=0.05), "AdamW", {"lr": 0.1, "weight_decay": 0.05}, MOMENTS,
        differs="the default weight_decay: 0.01 in torch, 0.0001 here",
    ),
    "nadam": TorchCase(
        lambda library: library.nadam(0.1), "NAdam", {"lr": 0.1},
        differs="torch's b1 of the look-ahead rises, b1 (1 - 0.96^(t momentum_decay) / 2), as Dozat's (2016) may; ours "
        "is constant, which is torch's for momentum_decay -> infinity",
        restored_by="nadam: constant momentum",
    ),
    "nadam: constant momentum": TorchCase(
        lambda library: library.nadam(0.1), "NAdam", {"lr": 0.1, "momentum_decay": 1e9}, MOMENTS
    ),
    "nadamw": TorchCase(
        lambda library: library.nadamw(0.1, weight_decay=0.05), "NAdam",
        {"lr": 0.1, "weight_decay": 0.05, "momentum_decay": 1e9, "decoupled_weight_decay": True}, MOMENTS,
    ),
    "radam": TorchCase(
        lambda library: library.radam(0.1, b2=0.95, eps=1e-3), "RAdam", {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-3},
        differs="torch adds eps to the root of nu before its bias is corrected: eps / sqrt(1 - b2^t) here",
        restored_by="radam: eps before the correction",
    ),
    "radam: eps before the correction": TorchCase(
        lambda library: library.inject_hyperparams(library.radam)(
            0.1, b2=0.95, eps=lambda count: 1e-3 / jnp.sqrt(1 - 0.95 ** steps_taken(count))
        ),
        "RAdam", {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-3}, MOMENTS,
    ),
    "radam: decoupled decay": TorchCase(
        lambda library: library.chain(
            library.scale_by_radam(eps=0.0), library.add_decayed_weights(0.05), library.scale_by_learning_rate(0.1)
        ),
        "RAdam", {"lr": 0.1, "eps": 0.0, "weight_decay": 0.05, "decoupled_weight_decay": True}, MOMENTS,
    ),
    "adamax": TorchCase(
        lambda library: library.adamax(0.1), "Adamax", {"lr": 0.1}, MOMENTS | {"nu": "exp_inf"}
    ),
    "adamax: weight_decay": TorchCase(
        lambda library: with_l2(library, 0.01, library.adamax(0.1, b1=0.8, b2=0.9, eps=1e-3)), "Adamax",
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.01}, MOMENTS | {"nu": "exp_inf"},
    ),
    "adagrad": TorchCase(
        lambda library: library.adagrad(0.5, eps=1e-3), "Adagrad",
        {"lr": 0.5, "initial_accumulator_value": 0.1, "eps": 1e-3},
        differs="torch adds eps to the root and starts the sum at 0; ours adds it under the root and starts at 0.1",
        restored_by="adagrad: no eps",
    ),
    "adagrad: no eps": TorchCase(
        lambda library: library.adagrad(0.5, eps=0.0), "Adagrad",
        {"lr": 0.5, "initial_accumulator_value": 0.1, "eps": 0.0}, {"count": "step", "sum_of_squares": "sum"},
    ),
    "adagrad_as_published": TorchCase(
        lambda library: library.adagrad_as_published(0.5), "Adagrad", {"lr": 0.5, "eps": 0.0},
        {"count": "step", "sum_of_squares": "sum"},
    ),
    "adagrad: lr_decay": TorchCase(
        lambda library: with_l2(
            library, 0.01, library.adagrad(lambda count: 0.5 / (1 + 0.02 * count.astype(float)), eps=0.0)
        ),
        "Adagrad",
        {"lr": 0.5, "lr_decay": 0.02, "weight_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 0.0},
        {"count": "step", "sum_of_squares": "sum"},
    ),
    "adadelta": TorchCase(
        lambda library: library.adadelta(), "Adadelta", {"lr": 1.0},
        {"count": "step", "e_g": "square_avg", "e_x": "acc_delta"},
    ),
    "adadelta: weight_decay": TorchCase(
        lambda library: library.adadelta(0.5, rho=0.8, eps=1e-3, weight_decay=0.01), "Adadelta",
        {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.01},
        {"count": "step", "e_g": "square_avg", "e_x": "acc_delta"},
    ),
    "rmsprop": TorchCase(
        lambda library: library.rmsprop(0.05, decay=0.99, eps=1e-3), "RMSprop", {"lr": 0.05, "eps": 1e-3},
        differs="torch adds eps to the root: eps_in_sqrt=False; its decay, alpha, is 0.99 by default, ours 0.9",
        restored_by="rmsprop: eps outside the root",
    ),
    "rmsprop: eps outside the root": TorchCase(
        lambda library: library.rmsprop(0.05, decay=0.99, eps=1e-3, eps_in_sqrt=False), "RMSprop",
        {"lr": 0.05, "eps": 1e-3}, SQUARES,
    ),
    "rmsprop: momentum": TorchCase(
        lambda library: with_l2(
            library, 0.01, library.rmsprop(0.02, decay=0.9, eps=1e-8, eps_in_sqrt=False, momentum=0.9)
        ),
        "RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.9, "weight_decay": 0.01},
        SQUARES | {"trace": lambda state: -0.02 * state["momentum_buffer"]},
    ),
    "rmsprop: centered": TorchCase(
        lambda library: library.rmsprop(0.05, decay=0.9, eps=1e-3, eps_in_sqrt=False, centered=True, momentum=0.5),
        "RMSprop", {"lr": 0.05, "alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.5},
        SQUARES | {"mu": "grad_avg", "trace": lambda state: -0.05 * state["momentum_buffer"]},
    ),
    "rprop": TorchCase(
        lambda library: library.rprop(0.01), "Rprop", {"lr": 0.01},
        {
            "count": "step", "step_sizes": "step_size",
            "prev_updates": lambda state: state["prev"].sign() * state["step_size"],
        },
    ),
    "rprop: bounds": TorchCase(
        lambda library: library.rprop(0.01, 0.4, 1.5, 0.004, 0.05), "Rprop",
        {"lr": 0.01, "etas": (0.4, 1.5), "step_sizes": (0.004, 0.05)},
        {
            "count": "step", "step_sizes": "step_size",
            "prev_updates": lambda state: state["prev"].sign() * state["step_size"],
        },
    ),
    "rprop: outside the bounds": TorchCase(
        lambda library: library.rprop(0.2, max_step_size=0.05), "Rprop", {"lr": 0.2, "step_sizes": (1e-6, 0.05)},
        differs="torch cuts the first step size to the bounds; ours is the learning rate as it is",
        restored_by="rprop: bounds",
    ),
    "asgd": TorchCase(
        torch_asgd, "ASGD", {"lr": 0.05, "lambd": 0.01, "t0": 20}, {"average": "ax"},
        differs="no rule of ours: average_params(start=t0 + 1) around an L2 penalty lambd and a decaying sgd does the "
        "same",
    ),
    "adafactor": TorchCase(
        lambda library: library.adafactor(0.05, 2, weight_decay_rate=0.1), "Adafactor",
        {"lr": 0.05, "weight_decay": 0.1}, shapes=(*MATRICES, (4,), ()),
        differs="torch's rate is min(lr, 1 / sqrt(t)) and multiplies the decay; it bounds v below where ours adds eps "
        "to the squares; it factors the last two axes of every array, ours the longest two if they have 128 entries",
        restored_by="adafactor: torch's rate",
    ),
    "adafactor: torch's rate": TorchCase(
        lambda library: torch_adafactor(library, weight_decay_rate=0.05 * 0.1, eps=0.0), "Adafactor",
        {"lr": 0.05, "weight_decay": 0.1},
        {"count": "step", "v": "variance"}, shapes=(*MATRICES, (4,), ()),
    ),
    "adafactor: rows": TorchCase(
        lambda library: torch_adafactor(library, eps=0.0, decay_rate=0.6, clipping_threshold=1.5), "Adafactor",
        {"lr": 0.05, "beta2_decay": -0.6, "d": 1.5},
        {"count": "step", "v_row": "row_var", "v_col": "col_var"}, shapes=((3, 5), (4, 4), (2, 6)),
    ),
    "muon": TorchCase(
        lambda library: library.muon(0.02, weight_decay=0.1), "Muon", {"lr": 0.02, "weight_decay": 0.1},
        shapes=MATRICES, wide=True,
        differs="torch's matrices have outputs as rows, its momentum no correction of the bias, and it orthogonalizes "
        "in bfloat16 whatever the dtype (left out here); ours does so in float32 or float64",
        restored_by="muon: momentum by trace",
    ),
    "muon: in bfloat16": TorchCase(
        lambda library: torch_muon(library, True), "Muon", {"lr": 0.02, "weight_decay": 0.1, "eps": 0.0},
        shapes=MATRICES, steps=10,
        differs="the same rule, orthogonalized in bfloat16 by torch",
        restored_by="muon: momentum by trace",
    ),
    "muon: momentum by trace": TorchCase(
        lambda library: torch_muon(library, True), "Muon", {"lr": 0.02, "weight_decay": 0.1, "eps": 0.0},
        {"trace": lambda state: state["momentum_buffer"] / 0.05}, shapes=MATRICES, wide=True,
    ),
    "muon: no nesterov": TorchCase(
        lambda library: library.muon(
            0.02, eps=0.0, nesterov=False,
            muon_weight_dimension_numbers=lambda params: library.MuonDimensionNumbers(1, 0),
        ),
        "Muon", {"lr": 0.02, "weight_decay": 0.0, "eps": 0.0, "nesterov": False},
        {"mu": "momentum_buffer"}, shapes=MATRICES, wide=True,
    ),
}  # fmt: skip


def measure_torch(case: TorchCase, library: Any = optim, *, seed: int = 0) -> Difference:
    """Run both rules of a case on their own trajectories and report their largest differences over all steps.

    Args:
        case: the two rules.
        library: the namespace passed to `case.ours`; tests replace it by a mutated module.
        seed: of the parameters and the noise in the loss.

    Returns:
        Difference, relative to the largest |entry| of torch's array so far; a difference of NaN counts as infinity.
    """
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), len(case.shapes) + 1)
        start = [jax.random.normal(key, shape) for key, shape in zip(keys[1:], case.shapes, strict=True)]
        steps = jax.random.split(keys[0], case.steps)
        opt = case.ours(library)
        ours = [
            (params, {name: field(state, name) for name in case.fields}) for params, state in _ours(opt, start, steps)
        ]
        theirs = list(_theirs(case, start, steps))
    found: dict[str, float] = {}
    largest: dict[tuple[str, int], float] = {}
    for (params, state), (arrays, states) in zip(ours, theirs, strict=True):
        pairs = {("", i): (params[i], arrays[i]) for i in range(len(arrays))}
        for name, their in case.fields.items():
            for i, kept in enumerate(states):
                if callable(their) or their in kept:
                    mine = state[name] if name == "count" else jax.tree.leaves(state[name])[i]
                    pairs[name, i] = (mine, their(kept) if callable(their) else kept[their])
        for (name, i), (mine, yours) in pairs.items():
            a, b = np.ravel(np.asarray(mine, np.float64)), np.ravel(np.asarray(yours, np.float64))
            largest[name, i] = size = max(largest.get((name, i), 1e-30), float(np.max(np.abs(b))))
            gap = float(np.max(np.abs(a - b))) / size
            found[name] = max(found.get(name, 0.0), gap if np.isfinite(gap) else float("inf"))
    missing = sorted(set(case.fields) - set(found))
    if missing:
        raise ValueError(f"torch parity: torch's {case.rule} keeps nothing that corresponds to {missing}.")
    params_difference = found.pop("")
    return Difference(params_difference, params_difference / float(np.finfo(np.float64).eps), found)


def _ours(opt: optim.Optimizer, params: Params, keys: Key) -> Iterator[tuple[Any, Any]]:
    """(parameters, state) after each step of ours."""
    update = jax.jit(lambda grads, state, params: _applied(params, *opt.update(grads, state, params)))
    state = opt.init(params)
    for key in keys:
        params, state = update(_grads(key, params), state, params)
        yield params, state


def _applied(params: Params, updates: Any, state: Any) -> tuple[Params, Any]:
    """The parameters after the updates, and the state."""
    return optim.apply_updates(params, updates), state


def _theirs(case: TorchCase, params: Params, keys: Key) -> Iterator[tuple[Any, Any]]:
    """(parameters, state of each) after each step of torch's, as copies."""
    import torch

    narrow = mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone) if case.wide else contextlib.nullcontext()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the dtype of the scalars that ASGD and NAdam keep
    try:
        tensors = [torch.tensor(np.asarray(p)).requires_grad_() for p in params]
        opt = getattr(torch.optim, case.rule)(tensors, **case.arguments)
        for key in keys:
            for tensor, grad in zip(tensors, _grads(key, [t.detach().numpy() for t in tensors]), strict=True):
                tensor.grad = torch.tensor(np.asarray(grad))
            with narrow:
                opt.step()
            kept = [{k: v.clone() for k, v in opt.state[t].items() if isinstance(v, torch.Tensor)} for t in tensors]
            yield [t.detach().clone() for t in tensors], kept
    finally:
        torch.set_default_dtype(usual)


@jax.jit
def _grads(key: Key, params: Params) -> Any:
    """The gradient of a noisy, non-convex loss, the same program for both."""
    return jax.grad(random_loss, argnums=1)(key, params)
