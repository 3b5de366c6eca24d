"""L-BFGS and line searches, against optax."""

from __future__ import annotations

import math
from typing import Any

import optax

from jaxnn.compare.parity import Case

KEPT = "optax keeps pairs of negative curvature, so that its direction may ascend; min_curvature=-inf does the same"


def quasi_newton(search: Any = "default", steps: int = 12, **kwargs: Any) -> Case:
    """L-BFGS with all pairs kept."""

    def theirs() -> Any:
        return optax.lbfgs(**kwargs | ({} if search == "default" else {"linesearch": search(optax)}))

    def ours(library: Any) -> Any:
        chosen = {} if search == "default" else {"linesearch": search(library)}
        return library.lbfgs(**kwargs | chosen, min_curvature=-math.inf)

    return Case(ours, theirs, KEPT, fixed_loss=True, steps=steps)


def searched(search: str, *args: Any, rate: float = -1.0, steps: int = 12, **kwargs: Any) -> Case:
    """Gradients times a rate, and a line search; a positive rate ascends, where every search fails."""
    return Case(
        lambda library: library.chain(library.scale(rate), getattr(library, search)(*args, **kwargs)),
        lambda: optax.chain(optax.scale(rate), getattr(optax, search)(*args, **kwargs)),
        fixed_loss=True,
        steps=steps,
    )


ARMIJO, ZOOM = "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"

CASES: dict[str, Case] = {
    # L-BFGS, until it has converged: after that rounding decides its line searches
    "lbfgs": quasi_newton(),
    "lbfgs: memory of 3": quasi_newton(memory_size=3, scale_init_precond=False, steps=10),
    "lbfgs: fixed rate": quasi_newton(lambda library: None, learning_rate=0.05, memory_size=4, steps=100),
    "lbfgs: backtracking": quasi_newton(lambda library: library.scale_by_backtracking_linesearch(15)),
    "lbfgs: keep": quasi_newton(lambda library: library.scale_by_zoom_linesearch(15), memory_size=5),
    "scale_by_lbfgs": Case(
        lambda library: library.chain(library.scale_by_lbfgs(5, min_curvature=-math.inf), library.scale(-0.05)),
        lambda: optax.chain(optax.scale_by_lbfgs(5), optax.scale(-0.05)),
        KEPT,
        fixed_loss=True,
        steps=100,
    ),
    # The line searches, until they have converged: after that rounding decides them
    ARMIJO: searched(ARMIJO, 20, steps=100),
    f"{ARMIJO}: all settings": searched(
        ARMIJO, 10, 0.3, 0.5, 2.0, 3.0, 1e-3, 1e-3, store_grad=True, rate=-0.7, steps=100
    ),
    f"{ARMIJO}: out of trials": searched(ARMIJO, 1, 0.9, rate=-5.0),
    f"{ARMIJO}: uphill": searched(ARMIJO, 3, increase_factor=4.0, store_grad=True, rate=0.1),
    ZOOM: searched(ZOOM, 20),
    f"{ZOOM}: one": searched(ZOOM, 20, initial_guess_strategy="one", curv_rtol=0.1, rate=-0.1, steps=4),
    f"{ZOOM}: tight": searched(ZOOM, 30, None, 0.0, 4.0, 0.3, 1e-3, None, 1e-9, rate=-30.0, steps=5),
    f"{ZOOM}: approximate decrease": searched(ZOOM, 30, slope_rtol=0.45, curv_rtol=0.5, approx_dec_rtol=1.0, steps=5),
    f"{ZOOM}: bounded": searched(ZOOM, 15, 0.5, 1e-3, 3.0, 1e-2, 0.2, None, 1e-2),
    f"{ZOOM}: out of trials": searched(ZOOM, 2, curv_rtol=1e-3, rate=-10.0, steps=8),
    f"{ZOOM}: uphill": searched(ZOOM, 4, rate=0.1),
}
