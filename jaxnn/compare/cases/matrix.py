"""Rules for matrices, against optax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from jaxnn.compare.cases.adaptive import decaying
from jaxnn.compare.parity import Case
from jaxnn.types import Array, Params, PyTree

COEFFICIENTS = (3.4445, -4.7750, 2.0315)

CONVOLUTION = ((0, 1, 2), 3)

STACKED = ((2,), (3,))

ROLES = {"w": "head", "parts": ("vector", "vector", "hidden"), "nothing": None}


def numbers(kind: Any, *axes: Any) -> Any:
    """params -> `kind(*axes)` for arrays with 4 axes, `kind()` for matrices, None for the rest; `kind` is a type."""

    def tree(params: Params) -> PyTree:
        return jax.tree.map(lambda p: {2: kind(), 4: kind(*axes)}.get(p.ndim), params)

    return tree


def muon_case(name: str, rate: Any, *args: Any, axes: Any = None, differs: str = "", **kwargs: Any) -> Case:
    """A case of `muon`; optax keeps an additional state for a scheduled rate."""
    argument = "muon_weight_dimension_numbers" if name == "muon" else "weight_dimension_numbers"

    def with_axes(kind: Any) -> dict[str, Any]:
        return kwargs | ({} if axes is None else {argument: numbers(kind, *axes)})

    return Case(
        lambda library: getattr(library, name)(rate, *args, **with_axes(library.MuonDimensionNumbers)),
        lambda: getattr(optax.contrib, name)(rate, *args, **with_axes(optax.contrib.MuonDimensionNumbers)),
        differs,
        fields={"inner_states": "", "inner_state": ""} if callable(rate) else {},
    )


def muon_direction(rate: float = 0.02, **kwargs: Any) -> Case:
    """A case of `scale_by_muon`, whose default axes optax accepts for a single array only."""

    def theirs() -> Any:
        axes = numbers(optax.contrib.MuonDimensionNumbers, 0, 1)
        return optax.chain(optax.contrib.scale_by_muon(weight_dimension_numbers=axes, **kwargs), optax.scale(-rate))

    return Case(
        lambda library: library.chain(library.scale_by_muon(**kwargs), library.scale(-rate)),
        theirs,
        "None means matrices here; optax accepts None for a single array only",
        matrices=True,
    )


def orthogonal_case(preconditioning: Any, ns_steps: int = 5) -> Case:
    """A case of `orthogonalize_via_newton_schulz`, which optax has only inside its `scale_by_muon`."""

    def ours(library: Any) -> Any:
        def leaf(x: Array) -> Array:
            return library.orthogonalize_via_newton_schulz(x, COEFFICIENTS, ns_steps, preconditioning)

        return library.chain(library.stateless(lambda u, p: jax.tree.map(leaf, u)), library.scale(-0.002))

    def theirs() -> Any:
        direction = optax.contrib.scale_by_muon(
            COEFFICIENTS,
            ns_steps,
            0.0,
            nesterov=False,
            preconditioning=preconditioning,
            weight_dimension_numbers=numbers(optax.contrib.MuonDimensionNumbers, 0, 1),
        )
        return optax.chain(direction, optax.scale(-0.002))

    return Case(ours, theirs, "optax's is not public: its scale_by_muon with beta=0", matrices=True)


def muon_by_role(rate: Any, **kwargs: Any) -> Case:
    """A case of `muon_with_roles` against a partition of optax's rules."""

    def theirs() -> Any:
        axes = numbers(optax.contrib.MuonDimensionNumbers, *CONVOLUTION)
        hidden = optax.contrib.muon(rate, muon_weight_dimension_numbers=axes, **kwargs)
        rest = {"head": optax.adamw(0.03, weight_decay=0.0), "vector": optax.adamw(0.01, weight_decay=0.0)}
        return optax.partition({"hidden": hidden} | rest, ROLES)

    return Case(
        lambda library: library.muon_with_roles(
            rate, ROLES, adam_learning_rate=0.01, head_learning_rate=0.03, **kwargs
        ),
        theirs,
        "optax has no roles: its rules in a partition",
        fields={"inner_states": "", "inner_state": ""},
    )


SINGLE = (
    "optax decomposes in float32 even for float64 parameters, as svd_dtype=float32 does, and fails on None leaves, "
    "which the comparison removes from its arguments"
)

MATRIX = (0, 1)

KERNEL = (-2, (0, 1, 3))

"""(reduction_axis, output_axis) of a matrix, and of an HWIO kernel whose input channels are reduced."""


def without_none(inner: Any) -> Any:
    """An optax transformation applied to the list of a pytree's leaves."""

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        leaves, structure = jax.tree.flatten(updates)
        updates, state = inner.update(leaves, state, None if params is None else jax.tree.leaves(params))
        return jax.tree.unflatten(structure, updates), state

    return optax.GradientTransformation(lambda params: inner.init(jax.tree.leaves(params)), update)


def galore(*args: Any, base: Any = None, library: Any = optax.contrib, **settings: Any) -> Any:
    """Either library's galore, singular vectors in float32; `base` makes the inner rule from the library."""
    ours = library is not optax.contrib
    extra = {"svd_dtype": jnp.float32} if ours else {}
    made = library.galore(
        *args, base_optimizer=None if base is None else base(library if ours else optax), **settings, **extra
    )
    return made if ours else without_none(made)


def pair(*args: Any, **settings: Any) -> Case:
    """Both libraries' galore with the same arguments."""
    return Case(lambda library: galore(*args, library=library, **settings), lambda: galore(*args, **settings), SINGLE)


def kernels(library: Any) -> list[Any]:
    """Dimension numbers of the leaves of `random_params` in order: a vector, a number, a kernel and a matrix."""
    numbers = library.GaLoreDimensionNumbers
    return [None, None, numbers(*KERNEL), numbers(*MATRIX)]


def tree_of(leaves: list[Any]) -> PyTree:
    """The list of leaves as a pytree like `random_params`."""
    return {"nothing": None, "parts": tuple(leaves[:3]), "w": leaves[3]}


CASES: dict[str, Case] = {
    # Muon, with Adam for parameters that are not matrices
    "muon": muon_case("muon", 0.02),
    "muon: schedule": muon_case("muon", decaying, beta=0.8, eps=1e-3, weight_decay=0.1),
    "muon: convolution": muon_case("muon", 0.02, axes=CONVOLUTION, weight_decay=0.1),
    "muon: stacked": muon_case("muon", 0.02, axes=STACKED, adaptive=True),
    "muon: consistent rms": muon_case("muon", 0.02, axes=CONVOLUTION, consistent_rms=0.2, nesterov=False),
    "muon: dion": muon_case("muon", 0.02, "dion"),
    "muon: rows": muon_case("muon", 0.02, ((3.0, -3.2, 1.2), (1.5, -0.5, 0.0)), axes=CONVOLUTION),
    "muon: adam": muon_case(
        "muon", 0.02, adam_b1=0.8, adam_b2=0.95, adam_eps_root=1e-2, adam_weight_decay=0.1, adam_learning_rate=0.05
    ),
    "muon: mask": muon_case(
        "muon", 0.02, weight_decay=0.1, weight_decay_mask={"w": False, "parts": True, "nothing": None}, axes=STACKED
    ),
    "scale_by_muon": muon_direction(),
    "scale_by_muon: settings": muon_direction(
        ns_coeffs=(2.0, -1.5, 0.5), ns_steps=3, beta=0.7, eps=0.3, nesterov=False
    ),
    "scale_by_muon: adaptive": muon_direction(0.002, adaptive=True),
    "scale_by_muon: spectral": muon_direction(preconditioning="spectral"),
    "scale_by_muon: aol": muon_direction(0.002, preconditioning="aol"),
    "scale_by_muon: schatten": muon_direction(preconditioning="schatten"),
    "orthogonalize_via_newton_schulz": orthogonal_case("frobenius"),
    "orthogonalize_via_newton_schulz: spectral": orthogonal_case("spectral", 7),
    "orthogonalize_via_newton_schulz: aol": orthogonal_case("aol", 2),
    "orthogonalize_via_newton_schulz: schatten": orthogonal_case("schatten", 3),
    "muon_with_roles": muon_by_role(0.02),
    "muon_with_roles: settings": muon_by_role(0.02, beta=0.8, nesterov=False, weight_decay=0.1, consistent_rms=0.2),
    # GaLore; its singular vectors are computed in float32, as optax's are
    "galore": pair(0.05),
    "galore: low rank": pair(0.05, 2, 7, scale=0.5),
    "galore: matrices": Case(
        lambda library: galore(decaying, rank=2, update_proj_gap=5, library=library),
        lambda: galore(decaying, rank=2, update_proj_gap=5),
        SINGLE,
        matrices=True,
    ),
    "galore: decay": pair(
        0.05, 2, 10, weight_decay=0.1, base=lambda library: library.scale_by_adam(b1=0.8, b2=0.95, eps=1e-3)
    ),
    "galore: lion": pair(0.01, 1, 10, base=lambda library: library.scale_by_lion()),
    "galore: kernels": Case(
        lambda library: galore(0.05, 2, 10, library=library, weight_dimension_numbers=tree_of(kernels(library))),
        lambda: galore(0.05, 2, 10, weight_dimension_numbers=kernels(optax.contrib)),
        SINGLE,
    ),
    "galore: one for all": Case(
        lambda library: galore(
            0.05, 2, 10, library=library, weight_dimension_numbers=library.GaLoreDimensionNumbers(1, 0)
        ),
        lambda: galore(0.05, 2, 10, weight_dimension_numbers=optax.contrib.GaLoreDimensionNumbers(1, 0)),
        SINGLE,
        matrices=True,
    ),
    "scale_by_galore": Case(
        lambda library: library.chain(
            library.scale_by_galore(2, 9, svd_dtype=jnp.float32), library.scale_by_learning_rate(0.05)
        ),
        lambda: without_none(optax.chain(optax.contrib.scale_by_galore(2, 9), optax.scale_by_learning_rate(0.05))),
        SINGLE,
    ),
}
