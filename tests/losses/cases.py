"""Every loss with random arguments and its equation in float64 NumPy, written anew and example by example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from jaxnn import losses

Numbers = np.ndarray


class Case(NamedTuple):
    name: str
    options: dict[str, Any]
    draw: Callable[[np.random.Generator], tuple[Numbers, ...]]
    oracle: Callable[..., float]
    """The loss of ONE example."""

    @property
    def loss(self) -> Callable[..., Any]:
        return getattr(losses, self.name)

    @property
    def grad(self) -> Callable[..., Any]:
        return getattr(losses, f"{self.name}_grad")

    def arguments(self, seed: int = 0) -> tuple[Numbers, ...]:
        return self.draw(np.random.default_rng(seed))

    def expected(self, *arguments: Numbers) -> Numbers:
        return np.array([self.oracle(*one) for one in zip(*arguments, strict=True)])


def real(*shape: int) -> Callable[[np.random.Generator], tuple[Numbers, ...]]:
    return lambda rng: (2 * rng.standard_normal(shape), 2 * rng.standard_normal(shape))


def signed(*shape: int) -> Callable[[np.random.Generator], tuple[Numbers, ...]]:
    return lambda rng: (2 * rng.standard_normal(shape), rng.choice([-1, 1], shape))


def logits_and_probabilities(*shape: int) -> Callable[[np.random.Generator], tuple[Numbers, ...]]:
    return lambda rng: (3 * rng.standard_normal(shape), rng.uniform(size=shape))


def logits_and_labels(*shape: int) -> Callable[[np.random.Generator], tuple[Numbers, ...]]:
    return lambda rng: (3 * rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1]))


def some_ignored(*shape: int) -> Callable[[np.random.Generator], tuple[Numbers, ...]]:
    def draw(rng: np.random.Generator) -> tuple[Numbers, ...]:
        labels = rng.integers(-1, shape[-1], shape[:-1])
        labels[0] = -1
        labels[1].flat[:1] = -1
        labels[1].flat[1:] = 0
        return 3 * rng.standard_normal(shape), labels

    return draw


def simplex(rng: np.random.Generator, *shape: int) -> Numbers:
    return 0.7 * rng.dirichlet(np.ones(shape[-1]), shape[:-1]) + 0.3 / shape[-1]


def distributions(*shape: int) -> Callable[[np.random.Generator], tuple[Numbers, ...]]:
    return lambda rng: (simplex(rng, *shape), simplex(rng, *shape))


def log_softmax(z: Numbers) -> Numbers:
    return z - logsumexp(z, axis=-1, keepdims=True)


def softmax_oracle(z: Numbers, d: Numbers, a: float = 0.0, ignore: int | None = None) -> float:
    k = z.shape[-1]
    z2 = z.reshape(-1, k)
    if d.shape == z.shape:
        d2, counted = d.reshape(-1, k), np.ones(len(z2), bool)
    else:
        counted = d.reshape(-1) != ignore
        d2 = np.eye(k)[np.where(counted, d.reshape(-1), 0)]
    values = [-np.sum(((1 - a) * q + a / k) * log_softmax(row)) for row, q, c in zip(z2, d2, counted, strict=True) if c]
    return float(np.mean(values)) if values else 0.0


def hinge_oracle(z: Numbers, label: Numbers) -> float:
    def one(row: Numbers, c: int) -> float:
        return max(0.0, max(1 + row[k] - row[c] for k in range(len(row)) if k != c))

    rows = z.reshape(-1, z.shape[-1])
    return float(np.mean([one(row, c) for row, c in zip(rows, np.atleast_1d(label).reshape(-1), strict=True)]))


def mixture_oracle(m: int) -> Callable[[Numbers, Numbers], float]:
    def oracle(o: Numbers, d: Numbers) -> float:
        total = 0.0
        size = d.shape[-1]
        for row, target in zip(o.reshape(-1, o.shape[-1]), d.reshape(-1, size), strict=True):
            a = np.exp(log_softmax(row[:m]))
            density = 0.0
            for i in range(m):
                mean, sigma = row[m + i * size : m + (i + 1) * size], np.exp(row[m + m * size + i])
                density += a[i] * multivariate_normal.pdf(target, mean, sigma**2 * np.eye(size))
            total -= np.log(density)
        return total

    return oracle


def gaussian_oracle(o: Numbers, d: Numbers) -> float:
    mean, s = np.split(o, 2, axis=-1)
    return -norm.logpdf(d, mean, np.exp(s / 2)).sum()


def cosine_oracle(y: Numbers, d: Numbers) -> float:
    rows = zip(y.reshape(-1, y.shape[-1]), d.reshape(-1, d.shape[-1]), strict=True)
    return float(np.mean([1 - u @ v / np.sqrt(u @ u) / np.sqrt(v @ v) for u, v in rows]))


def mean_over_positions(f: Callable[..., Numbers]) -> Callable[..., float]:
    return lambda *arguments: float(np.mean(f(*arguments).sum(axis=-1)))


def huber_oracle(delta: float) -> Callable[[Numbers, Numbers], float]:
    def one(r: float) -> float:
        return r * r / 2 if r <= delta else delta * r - delta**2 / 2

    return lambda y, d: sum(one(abs(r)) for r in np.ravel(y - d))


def bce(y: Numbers, d: Numbers) -> float:
    return float(np.sum(-d * np.log(y) - (1 - d) * np.log(1 - y)))


CASES = [
    Case("half_squared_error", {}, real(4, 2, 3), lambda y, d: np.sum((y - d) ** 2) / 2),
    Case("mse", {}, real(4, 2, 3), lambda y, d: np.sum((y - d) ** 2) / y.size),
    Case("sum_squared_error", {}, real(4, 2, 3), lambda y, d: np.sum((y - d) ** 2)),
    Case("euclidean_error", {}, real(4, 2, 3), lambda y, d: np.linalg.norm(np.ravel(y - d))),
    Case("absolute_error", {}, real(4, 2, 3), lambda y, d: np.sum(np.abs(y - d))),
    Case("huber", {}, real(4, 2, 3), huber_oracle(1.0)),
    Case("huber", {"delta": 2.5}, real(4, 2, 3), huber_oracle(2.5)),
    Case("log_cosh", {}, real(4, 2, 3), lambda y, d: np.sum(np.log(np.cosh(y - d)))),
    Case("cosine_distance", {}, real(4, 2, 3), cosine_oracle),
    Case("sigmoid_binary_cross_entropy", {}, logits_and_probabilities(4, 3), lambda z, d: bce(1 / (1 + np.exp(-z)), d)),
    Case("binary_cross_entropy", {}, lambda rng: (rng.uniform(size=(4, 3)), rng.uniform(size=(4, 3))), bce),
    Case("softmax_cross_entropy", {}, logits_and_labels(4, 3), softmax_oracle),
    Case("softmax_cross_entropy", {"label_smoothing": 0.1}, logits_and_labels(4, 2, 3),
         lambda z, d: softmax_oracle(z, d, 0.1)),
    Case("softmax_cross_entropy", {"label_smoothing": 0.1, "ignore_index": -1}, some_ignored(5, 4, 3),
         lambda z, d: softmax_oracle(z, d, 0.1, -1)),
    Case("softmax_cross_entropy", {"ignore_index": 1}, logits_and_labels(6, 2, 2, 3),
         lambda z, d: softmax_oracle(z, d, 0.0, 1)),
    Case("softmax_cross_entropy", {"label_smoothing": 0.2}, lambda rng: (real(4, 2, 3)(rng)[0], simplex(rng, 4, 2, 3)),
         lambda z, d: softmax_oracle(z, d, 0.2)),
    Case("softmax_cross_entropy", {}, logits_and_probabilities(4, 3), softmax_oracle),
    Case("cross_entropy", {}, distributions(4, 2, 3), mean_over_positions(lambda y, d: -d * np.log(y))),
    Case("kl_divergence", {}, lambda rng: (log_softmax(real(4, 2, 3)(rng)[0]), simplex(rng, 4, 2, 3)),
         mean_over_positions(lambda log_y, d: d * (np.log(d) - log_y))),
    Case("entropy", {}, lambda rng: (simplex(rng, 4, 2, 3),), mean_over_positions(lambda d: -d * np.log(d))),
    Case("hinge", {}, signed(5, 3), lambda f, d: sum(max(0.0, 1 - m) for m in d * f)),
    Case("square_loss", {}, signed(5, 3), lambda f, d: np.sum((1 - d * f) ** 2)),
    Case("logistic", {}, signed(5, 3), lambda f, d: np.sum(np.log(1 + np.exp(-d * f)))),
    Case("perceptron_loss", {}, signed(5, 3), lambda f, d: sum(max(0.0, -m) for m in d * f)),
    Case("multiclass_hinge", {}, logits_and_labels(6, 2, 3), hinge_oracle),
    Case("gaussian_nll", {}, lambda rng: (rng.standard_normal((4, 2, 6)), rng.standard_normal((4, 2, 3))),
         gaussian_oracle),
    Case("mixture_density_nll", {"components": 3},
         lambda rng: (rng.standard_normal((4, 2, 12)), rng.standard_normal((4, 2, 2))), mixture_oracle(3)),
]  # fmt: skip

IDS = ["-".join([c.name, *map(str, c.options)]) + f"-{i}" for i, c in enumerate(CASES)]


def find(name: str, **options: Any) -> Case:
    """The first case of a loss with these options."""
    return next(c for c in CASES if c.name == name and c.options == options)
