"""Problems without a network: the noisy quadratic of DeepOBS, Rosenbrock's valley and other landscapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import landscapes
from jaxnn.compare.problems.base import Problem, from_function
from jaxnn.data import Dataset
from jaxnn.landscapes import Landscape

DRAWS = 1000
"""How many points the noisy quadratic has, as in DeepOBS."""


def quadratic(*, seed: int = 0) -> Problem:
    """The noisy quadratic in 100 dimensions: 90 eigenvalues of U(0, 1), 10 of U(30, 60), a random rotation.

    l(theta, xi) = 1/2 (theta - xi)' Q (theta - xi), xi one of 1,000 fixed draws of N(0, 0.6^2 I), theta_0 = (1, .., 1).

    Args:
        seed: of the eigenvalues, the rotation and the draws.

    Example:
        >>> quadratic().train.x.shape
        (1000, 100)
    """
    of_landscape, of_train, of_validation = jax.random.split(jax.random.key(seed), 3)
    place = landscapes.noisy_quadratic(of_landscape)
    train, validation = (np.asarray(place.sample(key, DRAWS)) for key in (of_train, of_validation))
    zeros = np.zeros(DRAWS, np.float32)
    start = jnp.asarray(place.start, jnp.float32)
    return from_function(
        "quadratic", lambda key: start, place.example_loss, Dataset(train, zeros), Dataset(validation, zeros),
        batch_size=128, epochs=100,
        reference="Schneider, Balles & Hennig (2019), DeepOBS: a deep learning optimizer benchmark suite, problem "
        "quadratic_deep",
        published={"adam": "87.11 (lr 0.04)", "sgd": "87.41 (lr 0.0158)", "momentum": "87.05 (lr 2.5e-3)"},
    )  # fmt: skip


def of_landscape(place: Landscape, name: str, *, steps: int = 1000, target: float | None = None) -> Problem:
    """A landscape without noise from its own start: one example, one step an epoch.

    Args:
        place: of any dimensions.
        name: of the problem.
        steps: epochs, one step each.
        target: a height that counts as solved.

    Example:
        >>> of_landscape(landscapes.beale(), "beale").epochs
        1000
    """
    start = jnp.asarray(place.start, jnp.float32)
    nothing = Dataset(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    return from_function(
        name, lambda key: start, lambda theta, x: place(theta), nothing, epochs=steps, target=target,
        reference=f"{place.name}, see jaxnn.landscapes",
    )  # fmt: skip


def rosenbrock() -> Problem:
    """Rosenbrock's valley in two dimensions from (-1.2, 1).

    Example:
        >>> rosenbrock().target
        0.001
    """
    return of_landscape(landscapes.rosenbrock(), "rosenbrock", target=1e-3)
