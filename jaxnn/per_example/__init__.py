"""Statistics of single examples' gradients, from the tape of ONE backward pass. Floor 5.

A `Tape` holds for each use of a parameter what it saw (a) and the error that came back (delta), of the SUMMED loss:
g_i, the gradient of example i's loss, is a known function of (a_i, delta_i), and most statistics need no g_i at all.
`record(loss)(params, X, Y)` makes it of any JAX loss of ONE example, of flax, equinox, haiku or one's own functions;
`backprop.record(net, loss)` of a network of this library, by the rules written out by hand. All functions are pure,
and work under jit, vmap and scan.

| statistic | of N examples |
|---|---|
| `sq_norms`, `norms`, `sq_norms_by_parameter`, `sq_norms_by_layer` | sizes of the gradients, (N,) |
| `weighted_grad`, `mean_grad` | sum_i w_i g_i, 1/N sum_i g_i: trees like params |
| `clipped_grad`, `clipped_grad_by_layer`; `flat`, `automatic`, `psac` | sum_i c(norm of g_i) g_i, and the norms |
| `second_moment`, `variance`, `variance_centred`, `snr` | entry by entry: trees like params |
| `gram`, `cosine`, `jvp_examples` | g_i . h_j (N, M), g_i . v (N,) |
| `noise_scale` (`NoiseScale`) | tr(Sigma) and squared norm of G, summed over batches |
| `materialize` | the gradients themselves |

| curvature, of `Columns` (`backprop.ggn_record`, `output_record`) | |
|---|---|
| `diag_ggn`, `diag_fisher`, `empirical_fisher_diag` (of a tape) | entry by entry: trees like params |
| `kfac_expand`, `kfac_reduce` (`Factors`) | the two Kronecker factors of each layer's block |
| `trace` | of the whole matrix |
| `ntk` | the neural tangent kernel (N, M, C, D) |

| differential privacy | |
|---|---|
| `dp_sgd` (`PrivateState`, `PrivateReport`) | one step: clip, sum, add noise (`help(per_example.privacy.private)`) |
| `private_grad`, `add_gaussian_noise` | the gradient of such a step; the noise alone |
| `poisson_batch`, `poisson_size` | Poisson-sampled batches of a fixed shape |
| `dp_event` | what an accountant must know to tell epsilon and delta |
| `clipped_grad_of` | clipped sums of any function, with the arguments of `jax_privacy.clipped_grad` |

`select` takes some layers of a tape, `over_microbatches` a batch in parts (so many examples, or so many bytes),
`plan` shows how the norms are found, and which parameters of a recorded loss have no rule.

On several devices: under `jax.jit` with arrays sharded by `NamedSharding` all statistics are of the whole batch, and
rows stay with their examples. Inside `jax.shard_map` a tape is of the device's own examples, and so are its statistics:
add sums up by `jax.lax.psum`, means (curvature) by `jax.lax.pmean`; for `gram` gather the other tape
(`jax.lax.all_gather(x, axis, tiled=True)` of its arrays), for `ntk` gather the inputs and record all of them.
`private_grad` and `dp_sgd` add up the devices themselves, before the noise, and take parameters that are the same on
all devices; shards of parameters are gathered by `jax.lax.all_gather(shard, axis, tiled=True, to="invarying")`.

A regularizer is no part of any example's loss: add its gradient to the sum or the mean. Layers in which examples see
each other (batch normalization in training) leave single examples without a gradient of their own: all but `mean_grad`
raise ValueError then.
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
from jaxnn.per_example.sums import clipped_grad, clipped_grad_by_layer, materialize, mean_grad, weighted_grad

__all__ = [
    "Clip",
    "Factors",
    "NoiseScale",
    "Plan",
    "PrivateReport",
    "PrivateState",
    "add_gaussian_noise",
    "automatic",
    "clipped_grad",
    "clipped_grad_by_layer",
    "clipped_grad_of",
    "cosine",
    "diag_fisher",
    "diag_ggn",
    "dp_event",
    "dp_sgd",
    "empirical_fisher_diag",
    "flat",
    "gram",
    "jvp_examples",
    "kfac_expand",
    "kfac_reduce",
    "materialize",
    "mean_grad",
    "noise_scale",
    "norms",
    "ntk",
    "over_microbatches",
    "plan",
    "poisson_batch",
    "poisson_size",
    "private_grad",
    "psac",
    "record",
    "second_moment",
    "select",
    "snr",
    "sq_norms",
    "sq_norms_by_layer",
    "sq_norms_by_parameter",
    "trace",
    "variance",
    "variance_centred",
    "weighted_grad",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
