"""Per-example losses, each with its derivative, and penalties on the weights.

`name(outputs, targets, *, ...)` maps outputs (N, ...) to losses (N,); `name_grad`, with the same arguments, is the
derivative of each example's loss with respect to its outputs, in their shape. The mean over the N examples is taken
once, in the training loss. y stands for outputs (f for scores), d for targets, z for logits, s for the sigmoid, K for
the size of the last axis, T for the axes between the first and the last ("positions").

| loss | outputs | targets | per element | summed over | averaged over | meaning of the outputs |
|---|---|---|---|---|---|---|
| `half_squared_error` | (N, ...) | (N, ...) | 1/2 (y - d)^2 | all | - | mean of a Gaussian (linear) |
| `mse` | (N, ...) | (N, ...) | (y - d)^2 | - | all | mean of a Gaussian (linear) |
| `sum_squared_error` (SSE) | (N, ...) | (N, ...) | (y - d)^2 | all | - | mean of a Gaussian (linear) |
| `euclidean_error` (L2, unsquared) | (N, ...) | (N, ...) | root of the sum of (y - d)^2 | all | - | spatial median |
| `absolute_error` (L1) | (N, ...) | (N, ...) | abs(y - d) | all | - | median (linear) |
| `huber` | (N, ...) | (N, ...) | parabola, then line | all | - | a robust location (linear) |
| `log_cosh` | (N, ...) | (N, ...) | log cosh(y - d) | all | - | a robust location (linear) |
| `cosine_distance` | (N, T, K) | (N, T, K) | 1 - cos(y, d) | K | T | a direction |
| `sigmoid_binary_cross_entropy` | (N, ...) | (N, ...) in [0, 1] | -d log s(z) - (1-d) log s(-z) | all | - | logits |
| `binary_cross_entropy` | (N, ...) | (N, ...) in [0, 1] | -d log y - (1-d) log(1-y) | all | - | probabilities |
| `softmax_cross_entropy` | (N, T, K) | labels (N, T), or (N, T, K) | -d log softmax(z) | K | T, not ignored | logits |
| `cross_entropy` | (N, T, K) | (N, T, K) | -d log y | K | T | probabilities |
| `kl_divergence` | (N, T, K) | (N, T, K) | d (log d - log y) | K | T | log-probabilities (log-softmax) |
| `entropy` (of one argument) | (N, T, K) | - | -y log y | K | T | probabilities |
| `hinge` | (N, ...) | -1, +1 (N, ...) | max(0, 1 - d f) | all | - | scores (linear) |
| `square_loss` | (N, ...) | -1, +1 (N, ...) | (1 - d f)^2 | all | - | scores (linear) |
| `logistic` | (N, ...) | -1, +1 (N, ...) | log(1 + e^(-d f)) | all | - | scores: log-odds of +1 |
| `perceptron_loss` | (N, ...) | -1, +1 (N, ...) | max(0, -d f) | all | - | scores (linear) |
| `multiclass_hinge` | (N, T, K) | labels (N, T) | max(0, 1 + best wrong - right) | - | T | scores (linear) |
| `gaussian_nll` | (N, T, 2 D) | (N, T, D) | -log N(d; m, e^v) | T, D | - | means m, log-variances v |
| `mixture_density_nll` | (N, T, M (2+D)) | (N, T, D) | -log sum a N(d; m, e^2t) | T | - | logits, means m, log s.d. t |

T may be absent or several axes. Likelihoods of independent outputs are summed (the loss is -log of the joint
probability), as are errors named after a norm; classification losses are averaged over positions, so that a sequence
weighs as much as an image. "all" is every axis but the first.

`chunked_softmax_cross_entropy(a, w, targets)` is `softmax_cross_entropy` of the logits a w of an output layer, formed a
chunk of classes at a time: for large vocabularies.

Conventions:

- Losses are computed and returned in float32 (float64 for float64 outputs); derivatives have the dtype of the outputs.
  Targets are converted.
- Shapes that differ raise ValueError, nothing is broadcast; outputs without an example axis or with empty examples
  raise ValueError, integer outputs TypeError. An empty batch (N = 0) gives losses of shape (0,).
- Invalid targets (labels out of range, 0 for -1, probabilities above 1) raise ValueError if concrete; traced, they make
  loss and gradient of their example NaN. Labels never wrap.
- Losses under optax's names (below) follow optax instead: one value per element, or per vector along `axis`; axes of
  size 1 of the targets broadcast, where their docstrings say so.
- Penalties `l2`, `l1`, `elastic` return functions of the parameters; by default they skip biases and normalization
  scales.

All losses of optax are here under its names, with its arguments, order and defaults:

| as in optax | one value per |
|---|---|
| `squared_error`, `l2_loss`, `huber_loss`, `hinge_loss`, `sigmoid_focal_loss`, `sparsemax_loss` | element |
| `softmax_cross_entropy_with_integer_labels`, `safe_softmax_cross_entropy`, `poly_loss_cross_entropy` | vector |
| `kl_divergence_with_log_targets`, `generalized_kl_divergence`, `cosine_similarity`, `triplet_margin_loss` | vector |
| `multiclass_hinge_loss`, `multiclass_perceptron_loss`, `multiclass_sparsemax_loss` | vector |
| losses made by `make_fenchel_young_loss` | vector |
| `ctc_loss`, `dice_loss`, `binary_dice_loss` | example |
| `ntxent`, `multiclass_generalized_dice_loss`, `ranking_softmax_loss` (by default) | batch |

Six names differ from optax's: `cosine_distance`, `kl_divergence`, `log_cosh`, `perceptron_loss`,
`sigmoid_binary_cross_entropy` and `softmax_cross_entropy` are ours, (N, ...) -> (N,), if called with two arguments by
position or with `outputs` and `targets`. Calls that fit only optax's signature (`logits=`, `labels=`, `axis=`,
`where=`, ...) return optax's values, e.g. `sigmoid_binary_cross_entropy(logits=z, labels=d)` one per element.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.losses.binary import (
    binary_cross_entropy,
    binary_cross_entropy_grad,
    sigmoid_binary_cross_entropy,
    sigmoid_binary_cross_entropy_grad,
)
from jaxnn.losses.chunked import chunked_softmax_cross_entropy
from jaxnn.losses.contrastive import ntxent, triplet_margin_loss
from jaxnn.losses.cosine_along import cosine_similarity
from jaxnn.losses.density import gaussian_nll, gaussian_nll_grad, mixture_density_nll, mixture_density_nll_grad
from jaxnn.losses.divergence import (
    cross_entropy,
    cross_entropy_grad,
    entropy,
    entropy_grad,
    kl_divergence,
    kl_divergence_grad,
)
from jaxnn.losses.divergence_along import (
    convex_kl_divergence,
    generalized_kl_divergence,
    kl_divergence_with_log_targets,
)
from jaxnn.losses.elementwise import hinge_loss, huber_loss, l2_loss, sigmoid_focal_loss, squared_error
from jaxnn.losses.fenchel_young import (
    make_fenchel_young_loss,
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    multiclass_sparsemax_loss,
    sparsemax_loss,
)
from jaxnn.losses.margin import (
    hinge,
    hinge_grad,
    logistic,
    logistic_grad,
    multiclass_hinge,
    multiclass_hinge_grad,
    perceptron_loss,
    perceptron_loss_grad,
    square_loss,
    square_loss_grad,
)
from jaxnn.losses.ranking import ranking_softmax_loss
from jaxnn.losses.regression import (
    absolute_error,
    absolute_error_grad,
    cosine_distance,
    cosine_distance_grad,
    euclidean_error,
    euclidean_error_grad,
    half_squared_error,
    half_squared_error_grad,
    huber,
    huber_grad,
    log_cosh,
    log_cosh_grad,
    mse,
    mse_grad,
    sum_squared_error,
    sum_squared_error_grad,
)
from jaxnn.losses.regularizers import (
    Regularizer,
    elastic,
    elastic_grad,
    l1,
    l1_grad,
    l2,
    l2_grad,
    regularizer_derivative_of,
)
from jaxnn.losses.roots import hessian_root_of, is_likelihood, sampled_error_of
from jaxnn.losses.segmentation import binary_dice_loss, dice_loss, multiclass_generalized_dice_loss
from jaxnn.losses.sequence import ctc_loss, ctc_loss_with_forward_probs
from jaxnn.losses.softmax import example_weights, softmax_cross_entropy, softmax_cross_entropy_grad
from jaxnn.losses.softmax_along import (
    poly_loss_cross_entropy,
    safe_softmax_cross_entropy,
    smooth_labels,
    softmax_cross_entropy_with_integer_labels,
)
from jaxnn.losses.table import derivative_of

__all__ = [
    "Regularizer", "absolute_error", "absolute_error_grad", "binary_cross_entropy", "binary_cross_entropy_grad",
    "binary_dice_loss", "chunked_softmax_cross_entropy", "convex_kl_divergence", "cosine_distance",
    "cosine_distance_grad", "cosine_similarity", "cross_entropy", "cross_entropy_grad", "ctc_loss",
    "ctc_loss_with_forward_probs", "derivative_of", "dice_loss", "elastic", "elastic_grad",
    "entropy", "entropy_grad", "euclidean_error",
    "euclidean_error_grad", "example_weights", "gaussian_nll", "gaussian_nll_grad",
    "generalized_kl_divergence", "half_squared_error", "half_squared_error_grad", "hessian_root_of", "hinge",
    "hinge_grad", "hinge_loss", "huber", "huber_grad", "huber_loss", "is_likelihood", "kl_divergence",
    "kl_divergence_grad", "kl_divergence_with_log_targets", "l1", "l1_grad", "l2", "l2_grad", "l2_loss", "log_cosh",
    "log_cosh_grad", "logistic", "logistic_grad", "make_fenchel_young_loss", "mixture_density_nll",
    "mixture_density_nll_grad", "mse", "mse_grad", "multiclass_generalized_dice_loss", "multiclass_hinge",
    "multiclass_hinge_grad", "multiclass_hinge_loss", "multiclass_perceptron_loss", "multiclass_sparsemax_loss",
    "ntxent", "perceptron_loss", "perceptron_loss_grad", "poly_loss_cross_entropy", "ranking_softmax_loss",
    "regularizer_derivative_of", "safe_softmax_cross_entropy", "sampled_error_of", "sigmoid_binary_cross_entropy",
    "sigmoid_binary_cross_entropy_grad", "sigmoid_focal_loss", "smooth_labels", "softmax_cross_entropy",
    "softmax_cross_entropy_grad", "softmax_cross_entropy_with_integer_labels", "sparsemax_loss", "square_loss",
    "square_loss_grad", "squared_error", "sum_squared_error", "sum_squared_error_grad", "triplet_margin_loss",
]  # fmt: skip

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
