"""Per-example gradient statistics, inside ONE backward pass or from its tape.

`value_and_grad(loss, statistics)` computes statistics together with the gradient, of any JAX loss of ONE example, in
about the time and memory of `jax.grad`: nothing is stored, `scan` and `checkpoint` stay as they are.

| in the pass of the gradient | result |
|---|---|
| `value_and_grad` | losses, gradient, and the statistics asked for |
| `SqNorms`, `Margin`, `Directional`, `Projection` | norms, their margin, g_i . v, random projections: (N, ...) |
| `SecondMoment`, `Variance` | element-wise: pytrees like `params` |
| `Statistic` (`Parameter`, `Part`, `Gradients`, `Batch`) | your own: three small functions |
| `clipped_value_and_grad` | sum_i c(norm of g_i) g_i, the norms; also clipped by parameter or group |
| `microbatched_value_and_grad` | the same results, one microbatch after the other |
| `noise_scale_of`, `variance_of`, `snr_of` | from its results: noise scale, variance, signal-to-noise ratio |

A tape is for what needs all pairs (a, delta) at once or several times: Gram matrices, several weighted sums, curvature.
A `Tape` holds for each use of a parameter its input a and the cotangent delta of its output, of the SUMMED loss. g_i,
the gradient of example i's loss, is a known function of (a_i, delta_i), and most statistics never materialize it. T
counts the positions at which one example uses a parameter: 1 for a dense layer on vectors, else tokens, steps, pixels.
`record(loss)(params, X, Y)` records any JAX loss of ONE example: of flax, equinox, haiku, or your own functions.
`backprop.record(net, loss)` records a network of this library, by its hand-written rules. All functions are pure, and
work under jit, vmap and scan.

| statistic | of N examples |
|---|---|
| `sq_norms`, `norms`, `sq_norms_by_parameter`, `sq_norms_by_layer` | norms of the gradients, (N,) |
| `weighted_grad`, `mean_grad` | sum_i w_i g_i, 1/N sum_i g_i: pytrees like `params` |
| `clipped_grad`, `clipped_grad_by_layer` | sum_i c(norm of g_i) g_i, c by `flat`, `automatic` or `psac`; the norms |
| `second_moment`, `variance`, `variance_centred`, `snr` | element-wise: pytrees like `params` |
| `gram`, `cosine` | g_i . h_j and its cosine, (N, M), h_j of the same or of another tape |
| `jvp_examples` | g_i . v (N,), v a direction |
| `noise_scale` (`NoiseScale`) | trace of the covariance of g_i, squared norm of the expected g_i; summed over batches |
| `materialize` | g_i: a pytree like `params` of arrays (N, *shape) of the parameter |

| curvature, of `Columns` (`backprop.ggn_record`, `output_record`) | |
|---|---|
| `diag_ggn`, `diag_fisher`, `empirical_fisher_diag` (of a tape) | the diagonal: pytrees like `params` |
| `kfac_expand`, `kfac_reduce` (`Factors`) | the two Kronecker factors of each layer's block |
| `trace` | of the whole matrix |
| `ntk` | the neural tangent kernel (N, M, C, D) |

All statistics take a tape of N examples first (of curvature: `Columns`, exact or sampled); anything else raises
TypeError. All but `mean_grad` raise ValueError where layers couple the examples (batch normalization in training mode):
per-example gradients are undefined here. All but the norms raise ValueError for N = 0. Sums run in the accumulation
dtype: float32, or float64 for float64. Results are in that dtype, but sums and means of g_i in the parameters' dtypes.
A regularizer is not part of an example's loss: add its gradient to the result.

| differential privacy | |
|---|---|
| `dp_sgd` (`PrivateState`, `PrivateReport`) | one step: clip, sum, add noise (`help(per_example.privacy.private)`) |
| `private_grad`, `add_gaussian_noise` | the gradient of such a step; the noise alone |
| `poisson_batch`, `poisson_size` | Poisson-sampled batches of a fixed shape |
| `dp_event` | a run of `dp_sgd` as an event for an accountant of epsilon and delta |
| `clipped_grad_of` | clipped sums of any function, with the arguments of `jax_privacy.clipped_grad` |

`select` restricts a tape to some layers. `over_microbatches` maps over parts of a batch, of a fixed number of examples
or bytes. `plan` shows how norms are computed, and lists the parameters that are taped or fall back to per-example
differentiation.

On several devices: under `jax.jit` with arrays sharded by `NamedSharding` all statistics are of the whole batch, and
arrays (N, ...) are sharded as the examples. Inside `jax.shard_map` a tape is of the device's own examples, and so are
its statistics: `jax.lax.psum` sums, `jax.lax.pmean` means (curvature). For `gram` gather the other tape
(`jax.lax.all_gather(x, axis, tiled=True)` of its arrays), for `ntk` gather the inputs and record all of them.
`private_grad` and `dp_sgd` sum over the devices themselves, before the noise is added, and require replicated
parameters; gather shards by `jax.lax.all_gather(shard, axis, tiled=True, to="invarying")`.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.per_example.clip import Clip, automatic, flat, psac
from jaxnn.per_example.curvature import diag_fisher, diag_ggn, empirical_fisher_diag, ntk, trace
from jaxnn.per_example.kronecker import Factors, kfac_expand, kfac_reduce
from jaxnn.per_example.microbatch import over_microbatches
from jaxnn.per_example.moments import second_moment, snr, variance, variance_centred
from jaxnn.per_example.noise import NoiseScale, noise_scale
from jaxnn.per_example.norms import norms, sq_norms, sq_norms_by_layer, sq_norms_by_parameter
from jaxnn.per_example.plan import Plan, plan
from jaxnn.per_example.privacy.accounting import dp_event
from jaxnn.per_example.privacy.gaussian import add_gaussian_noise
from jaxnn.per_example.privacy.poisson import poisson_batch, poisson_size
from jaxnn.per_example.privacy.privacy_api import clipped_grad_of
from jaxnn.per_example.privacy.private import PrivateReport, PrivateState, dp_sgd, private_grad
from jaxnn.per_example.products import cosine, gram, jvp_examples
from jaxnn.per_example.recording import record
from jaxnn.per_example.select import select
from jaxnn.per_example.streaming.clipping import clipped_value_and_grad
from jaxnn.per_example.streaming.directions import Directional
from jaxnn.per_example.streaming.gradient import value_and_grad
from jaxnn.per_example.streaming.microbatched import microbatched_value_and_grad
from jaxnn.per_example.streaming.moments import SecondMoment, Variance
from jaxnn.per_example.streaming.noise import noise_scale_of, snr_of, variance_of
from jaxnn.per_example.streaming.norms import Margin, SqNorms
from jaxnn.per_example.streaming.projections import Projection
from jaxnn.per_example.streaming.statistic import Batch, Gradients, Parameter, Part, Statistic
from jaxnn.per_example.sums import clipped_grad, clipped_grad_by_layer, materialize, mean_grad, weighted_grad

__all__ = [
    "Batch", "Clip", "Directional", "Factors", "Gradients", "Margin", "NoiseScale", "Parameter", "Part", "Plan",
    "PrivateReport", "PrivateState", "Projection", "SecondMoment", "SqNorms", "Statistic", "Variance",
    "add_gaussian_noise", "automatic", "clipped_grad", "clipped_grad_by_layer", "clipped_grad_of",
    "clipped_value_and_grad", "cosine", "diag_fisher", "diag_ggn", "dp_event", "dp_sgd", "empirical_fisher_diag",
    "flat", "gram", "jvp_examples", "kfac_expand", "kfac_reduce", "materialize", "mean_grad",
    "microbatched_value_and_grad", "noise_scale", "noise_scale_of", "norms", "ntk", "over_microbatches", "plan",
    "poisson_batch", "poisson_size", "private_grad", "psac", "record", "second_moment", "select", "snr", "snr_of",
    "sq_norms", "sq_norms_by_layer", "sq_norms_by_parameter", "trace", "value_and_grad", "variance",
    "variance_centred", "variance_of", "weighted_grad",
]  # fmt: skip

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
