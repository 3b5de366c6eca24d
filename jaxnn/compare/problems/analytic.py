"""Problems without a network: the noisy quadratic of DeepOBS, Rosenbrock's valley and other landscapes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxnn import landscapes
from jaxnn.compare.problems.base import Problem, from_function
from jaxnn.data import Dataset
from jaxnn.landscapes import Landscape
from jaxnn.types import Array

DRAWS, NOISE = 1000, 0.6
"""How many points the noisy quadratic has, and their standard deviation on each axis."""


def quadratic() -> Problem:
    """The noisy quadratic in 100 dimensions, the very one that DeepOBS' published losses are of.

    l(theta, xi) = 1/2 (theta - xi)' Q (theta - xi), xi one of 1,000 fixed draws of N(0, 0.6^2 I), theta_0 = (1, .., 1)

    Q has 90 eigenvalues of U(0, 1) and 10 of U(30, 60), and eigenvectors by a random rotation; matrix and draws come of
    NumPy's `RandomState`, whose streams are fixed for good. The test draws are the 896 that DeepOBS evaluates: 1,000,
    less those that do not fill a batch of 128. DeepOBS chooses its learning rates by them; the validation draws are
    our own.

    Another matrix, or other noise, is made of a landscape by `from_function`, as the second example shows.

    Example:
        >>> problem = quadratic()
        >>> problem.train.x.shape, problem.test.x.shape
        ((1000, 100), (896, 100))

        >>> import jax
        >>> place = landscapes.noisy_quadratic(jax.random.key(0), noise_level=0.1, small=9, large=1)
        >>> train, validation = (place.sample(key, 500) for key in jax.random.split(jax.random.key(1)))
        >>> from_function("mine", lambda key: place.start, place.example_loss, train, validation).train.x.shape
        (500, 10)
    """
    matrix = jnp.asarray(_matrix(np.random.RandomState(42)), jnp.float32)
    train, test, validation = (
        np.random.RandomState(seed).normal(0, NOISE, (DRAWS, len(matrix))).astype(np.float32) for seed in (42, 43, 44)
    )

    def loss(theta: Array, xi: Array) -> Array:
        away = theta - xi
        return 0.5 * away @ matrix @ away

    return from_function(
        "quadratic", lambda key: jnp.ones(len(matrix)), loss, train, validation, test=test[: DRAWS // 128 * 128],
        batch_size=128, epochs=100, target=86.5,
        reference="Schneider, Balles & Hennig (2019), DeepOBS: a deep learning optimizer benchmark suite, problem "
        "quadratic_deep",
        published={
            "adam": "87.11 (lr 0.04)", "sgd": "87.41 (lr 0.0158)", "momentum": "87.05 (lr 2.5e-3, momentum 0.9)",
        },
    )  # fmt: skip


def _matrix(generator: np.random.RandomState) -> np.ndarray:
    """Q = R' diag(eigenvalues) R, drawn in the order in which DeepOBS draws it."""
    eigenvalues = np.concatenate((generator.uniform(0, 1, 90), generator.uniform(30, 60, 10)))
    rotation = _rotation(len(eigenvalues), generator)
    return rotation.T @ (eigenvalues[:, None] * rotation)


def _rotation(dimensions: int, generator: np.random.RandomState) -> np.ndarray:
    """A rotation drawn uniformly, from a plane up: each dimension adds a reflection that sends e_1 to a random point.

    Reference:
        Diaconis & Shahshahani (1987), "The subgroup algorithm for generating uniform random variables".
    """
    angle = 2 * np.pi * generator.uniform()
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for d in range(3, dimensions + 1):
        point = generator.normal(size=d)
        mirror = np.eye(d)[0] - point / np.linalg.norm(point)
        mirror /= np.linalg.norm(mirror)
        larger = np.eye(d)
        larger[1:, 1:] = rotation
        rotation = larger - 2 * np.outer(mirror, mirror @ larger)
    # The sign changes no loss; it is DeepOBS' own.
    return -rotation


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
