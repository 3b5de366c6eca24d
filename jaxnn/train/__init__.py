"""Training (floor 6): from a loss to a compiled step, a scanned epoch, and a fit with history and stopping.

| function | what it makes |
|---|---|
| `mean_loss` | the scalar training loss of a network, ready for `jax.value_and_grad(..., has_aux=True)` |
| `init` | the `TrainState` at the start |
| `make_step` | one compiled optimizer step on one batch |
| `make_epoch` | one compiled `lax.scan` over the minibatches of an epoch, buffers donated |
| `make_evaluate`, `evaluate` | means of metrics over a data set |
| `fit` | epochs with progress, history, early stopping and convergence tests |
| `ensemble` | many seeds at once, by `vmap` |
| `diagnose` | under-fitting, over-fitting or good, from a history, and what to try next |

Everything is a pure function of its key: the same seed gives bit-identical runs on one machine.
"""

from jaxnn.train.diagnose import Diagnosis, Verdict, diagnose
from jaxnn.train.ensemble import ensemble
from jaxnn.train.evaluate import evaluate, make_evaluate, make_outputs
from jaxnn.train.fit import FitResult, fit
from jaxnn.train.loss import mean_loss
from jaxnn.train.step import TrainState, grad_norm, init, make_epoch, make_step
from jaxnn.train.stopping import DivergedError, EarlyStopping, GradTolerance, LossTolerance

__all__ = [
    "Diagnosis",
    "DivergedError",
    "EarlyStopping",
    "FitResult",
    "GradTolerance",
    "LossTolerance",
    "TrainState",
    "Verdict",
    "diagnose",
    "ensemble",
    "evaluate",
    "fit",
    "grad_norm",
    "init",
    "make_epoch",
    "make_evaluate",
    "make_outputs",
    "make_step",
    "mean_loss",
]
