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
"""Number of points of the noisy quadratic, and their standard deviation on each axis."""


def quadratic() -> Problem:
    """The noisy quadratic in 100 dimensions, identical to that of DeepOBS' published losses.

    l(theta, xi) = 1/2 (theta - xi)' Q (theta - xi), xi one of 1,000 fixed draws of N(0, 0.6^2 I), theta_0 = (1, ..., 1)

    Q has 90 eigenvalues from U(0, 1) and 10 from U(30, 60), and random orthogonal eigenvectors; matrix and draws come
    from NumPy's `RandomState`, whose streams are frozen. The test draws are the 896 that DeepOBS evaluates: the full
    batches of 128 out of 1,000. DeepOBS chooses its learning rates by them; the validation draws are our own.

    For another matrix or other noise use `from_function` with a landscape, as in the second example.

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
    """A uniformly random rotation, built up from a plane: each dimension adds a reflection of e_1 to a random point.

    Reference: Diaconis & Shahshahani (1987), "The subgroup algorithm for generating uniform random variables".
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
    # The sign does not change the loss; it follows DeepOBS.
    return -rotation


def of_landscape(place: Landscape, name: str, *, steps: int = 1000, target: float | None = None) -> Problem:
    """A landscape without noise from its own start: one example, one step per epoch.

    Args:
        place: of any dimensions.
        name: of the problem.
        steps: epochs, one step each.
        target: a value that counts as solved, or None.

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
    """Rosenbrock's valley in two dimensions from (-1.2, 1)."""
    return of_landscape(landscapes.rosenbrock(), "rosenbrock", target=1e-3)
