"""Random arguments for every loss that has optax's name: what both sides are called with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxnn import losses

Numbers = np.ndarray


class Case(NamedTuple):
    name: str
    arguments: tuple[Numbers, ...]
    options: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    keywords: tuple[str, ...] = ()
    """Names by which the arguments are passed; () by position."""

    def call(self, function: Any, *arguments: Any) -> Any:
        if self.keywords:
            return function(**dict(zip(self.keywords, arguments, strict=True)), **self.options)
        return function(*arguments, **self.options)

    @property
    def ours(self) -> Any:
        return getattr(losses, self.name)


def made() -> list[Case]:
    rng = np.random.default_rng(0)

    def real(*shape: int) -> Numbers:
        return 2 * rng.standard_normal(shape)

    def signs(*shape: int) -> Numbers:
        return rng.choice([-1.0, 1.0], shape)

    def unit(*shape: int) -> Numbers:
        return rng.uniform(size=shape)

    def labels(classes: int, *shape: int) -> Numbers:
        return rng.integers(0, classes, shape)

    def simplex(*shape: int, axis: int = -1) -> Numbers:
        return np.moveaxis(rng.dirichlet(np.ones(shape[axis]), np.delete(shape, axis)), -1, axis)

    def logs(*shape: int) -> Numbers:
        return np.log(simplex(*shape))

    def mask(*shape: int) -> Numbers:
        found = rng.uniform(size=shape) < 0.6
        found.flat[0], found.flat[1] = True, False
        return found

    def one_hot(classes: int, *shape: int) -> Numbers:
        return np.eye(classes)[labels(classes, *shape)]

    pads = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0, 0]], float)
    spoken = np.array([[1, 1, 3], [2, 3, 0], [4, 2, 4]])
    spoken_pads = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0]], float)
    lone = mask(3, 4)
    lone[1] = False
    pairs = ("predictions", "targets")
    found = [
        Case("squared_error", (real(2, 3), real(2, 3))),
        Case("squared_error", (real(2, 3),)),
        Case("l2_loss", (real(2, 3), real(2, 3)), {}, pairs),
        Case("l2_loss", (real(3),)),
        Case("huber_loss", (real(2, 3), real(2, 3))),
        Case("huber_loss", (real(2, 3), real(2, 3)), {"delta": 0.3}, pairs),
        Case("huber_loss", (real(5),)),
        Case("log_cosh", (real(2, 3), real(2, 3)), {}, pairs),
        Case("log_cosh", (real(2, 3),)),
        Case("cosine_similarity", (real(3, 4), real(3, 4))),
        Case("cosine_similarity", (real(1, 3, 4), real(2, 1, 4)), {"axis": (0, 2)}),
        Case("cosine_similarity", (0.1 * real(3, 4), real(3, 4)), {"epsilon": 0.3, "where": mask(3, 4)}),
        Case("cosine_distance", (real(3, 4), real(3, 4)), {"axis": 0}),
        Case("cosine_distance", (real(3, 4), real(3, 4)), {"where": mask(3, 4), "epsilon": 1e-9}, pairs),
        Case("sigmoid_binary_cross_entropy", (real(2, 3), unit(2, 3)), {}, ("logits", "labels")),
        Case("sigmoid_focal_loss", (real(4), labels(2, 4))),
        Case("sigmoid_focal_loss", (real(4), unit(4)), {"alpha": 0.25, "gamma": 0.5}),
        Case("hinge_loss", (real(2, 3), signs(2, 3))),
        Case("perceptron_loss", (real(2, 3), signs(2, 3)), {}, ("predictor_outputs", "targets")),
        Case("sparsemax_loss", (real(8), labels(2, 8))),
        Case("multiclass_hinge_loss", (real(2, 3, 4), labels(4, 2, 3))),
        Case("multiclass_perceptron_loss", (real(2, 3, 4), labels(4, 2, 3))),
        Case("multiclass_sparsemax_loss", (real(6, 4), labels(4, 6))),
        Case("softmax_cross_entropy", (real(3, 4), simplex(3, 4)), {}, ("logits", "labels")),
        Case("softmax_cross_entropy", (real(3, 2, 4), simplex(3, 2, 4, axis=1)), {"axis": 1}),
        Case("softmax_cross_entropy", (real(3, 2, 4), unit(3, 2, 4)), {"axis": (0, 2), "where": mask(3, 2, 4)}),
        Case("softmax_cross_entropy", (real(3, 4), simplex(3, 4)), {"where": mask(3)}),
        Case("softmax_cross_entropy", (real(3, 4), simplex(3, 4)), {"axis": None}),
        Case("softmax_cross_entropy_with_integer_labels", (real(3, 4), labels(4, 3))),
        Case("softmax_cross_entropy_with_integer_labels", (real(3, 4, 2), labels(4, 3, 2)), {"axis": 1}),
        Case("softmax_cross_entropy_with_integer_labels", (real(3, 4, 2), labels(6, 4)), {"axis": (2, 0)}),
        Case("softmax_cross_entropy_with_integer_labels", (real(3, 4), labels(4, 3)), {"where": lone}),
        Case("safe_softmax_cross_entropy", (real(3, 4), simplex(3, 4))),
        Case("poly_loss_cross_entropy", (real(3, 4), simplex(3, 4))),
        Case("poly_loss_cross_entropy", (real(3, 4), unit(3, 4)), {"epsilon": -1.0, "axis": 0, "where": mask(3, 4)}),
        Case("smooth_labels", (one_hot(4, 3), np.array(0.1))),
        Case("smooth_labels", (one_hot(4, 3), np.array(0.1)), {"axis": (0, 1)}),
        Case("smooth_labels", (one_hot(4, 3), np.array(0.1)), {"axis": 1, "where": mask(3, 4) | (np.eye(3, 4) > 0)}),
        Case("kl_divergence", (logs(3, 4), simplex(3, 4)), {}, ("log_predictions", "targets")),
        Case("kl_divergence", (logs(3, 4), simplex(3, 4)), {"axis": 0, "where": mask(3, 4)}),
        Case("kl_divergence_with_log_targets", (logs(3, 4), logs(3, 4))),
        Case("kl_divergence_with_log_targets", (logs(3, 4), logs(3, 4)), {"axis": None, "where": mask(3, 4)}),
        Case("generalized_kl_divergence", (real(3, 4), 3 * unit(3, 4))),
        Case("convex_kl_divergence", (real(3, 4), 3 * unit(3, 4)), {"axis": 0, "where": mask(3, 4)}),
        Case("ctc_loss", (real(3, 7, 5), pads, spoken, spoken_pads)),
        Case("ctc_loss", (real(2, 6, 5), pads[:2, :6] * 0, np.array([[1, 1], [0, 2]]), np.zeros((2, 2))),
             {"blank_id": 3, "log_epsilon": -1e4}),
        Case("ranking_softmax_loss", (real(2, 3, 4), unit(2, 3, 4))),
        Case("ranking_softmax_loss", (real(3, 4), unit(3, 4)), {"where": lone, "weights": unit(3, 4)}),
        Case("ranking_softmax_loss", (real(3, 4), unit(3, 4)), {"reduce_fn": np.sum}),
        Case("ranking_softmax_loss", (real(3, 4), unit(3, 4)), {"reduce_fn": None, "where": mask(3, 4)}),
        Case("ntxent", (real(6, 3), np.array([0, 1, 0, 2, 1, 0]))),
        Case("ntxent", (real(5, 3), np.array([0, 1, 0, 1, 3])), {"temperature": 0.5}),
        Case("triplet_margin_loss", (real(4, 3), real(4, 3), real(4, 3))),
        Case("triplet_margin_loss", (real(4, 3), real(4, 3), real(4, 3)),
             {"axis": 0, "norm_degree": 4, "margin": 0.3, "eps": 1e-3}),
        Case("dice_loss", (real(2, 3, 4, 3), one_hot(3, 2, 3, 4))),
        Case("dice_loss", (real(2, 5, 3), one_hot(3, 2, 5)),
             {"class_weights": unit(3), "smooth": 0.1, "alpha": 0.3, "beta": 0.7, "reduction": "sum",
              "ignore_background": True}),
        Case("dice_loss", (real(2, 5), labels(2, 2, 5, 1)), {"reduction": "none", "axis": 0}),
        Case("dice_loss", (simplex(2, 5, 3), one_hot(3, 2, 5)), {"apply_softmax": False}),
        Case("multiclass_generalized_dice_loss", (real(2, 5, 3), one_hot(3, 2, 5))),
        Case("binary_dice_loss", (real(2, 3, 4), unit(2, 3, 4))),
        Case("binary_dice_loss", (real(2, 3, 4, 1), unit(2, 3, 4, 1)), {"smooth": 0.5}),
    ]  # fmt: skip
    return found


CASES = made()
