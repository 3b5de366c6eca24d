"""Training: from a loss to a compiled step, a scanned epoch, and a fit with history and stopping.

| function | what it makes |
|---|---|
| `mean_loss` | the scalar training loss of a network, ready for `jax.value_and_grad(..., has_aux=True)` |
| `per_example_vg` (`Statistics`) | this loss and its gradient with statistics of per-example gradients, in one pass |
| `precision` | the same with the network in bfloat16 or float16 |
| `from_flax`, `from_equinox` | the `Layer` of a model of these libraries, for all of the above and below |
| `init` | the `TrainState` at the start |
| `make_step` | one compiled optimizer step on one batch |
| `make_epoch` | one compiled `lax.scan` over the minibatches of an epoch, buffers donated |
| `make_piece` | some steps of such an epoch, for what happens in between |
| `make_evaluate`, `evaluate`, `make_outputs` | means of metrics over a data set; the outputs for one |
| `epochs` | the epochs of a run one by one, for a loop of your own |
| `fit` | that loop to the end: epochs with progress, history, early stopping and convergence tests |
| `logging` | callbacks that write the records to TensorBoard, W&B or trackio |
| `checkpoints` | pytrees in files that are whole or not there, restored strictly |
| `prefetch` (`Position`) | batches from outside, read and copied ahead of their use |
| `shard_params` | parameters and optimizer state split over devices |
| `ensemble` | many seeds at once, by `vmap` |
| `sweep` | seeds x hyperparameters x data orders as one program, in chunks that fit into memory; metrics as one table |
| `map_runs` | the same for any function of an input |
| `minimize`, `maximize` | gradient descent and ascent on any function of a pytree, until convergence |
| `kind_of_point` (`PointKind`) | whether a run ended at a minimum, an inflection, a saddle or where f is flat |
| `trajectory`, `nearest` | every iterate of such a run; the known minimum that each of many runs reached |
| `minmax` | two-player games: simultaneous, alternating and extragradient steps |
| `diagnose` | diverged, under-fitting, over-fitting or good, from a history, and what to try next |

Results are functions of the arguments and the key: the same seed gives bit-identical runs on one machine, on GPUs if
XLA runs with `--xla_gpu_deterministic_ops=true`.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.train import checkpoints, logging, minmax
from jaxnn.train.descent import Iterate, Trajectory, maximize, minimize, nearest, trajectory
from jaxnn.train.diagnose import Diagnosis, Verdict, diagnose
from jaxnn.train.ensemble import ensemble
from jaxnn.train.epochs import epochs
from jaxnn.train.evaluate import evaluate, make_evaluate, make_outputs
from jaxnn.train.feeds.prefetch import prefetch
from jaxnn.train.feeds.sources import Position
from jaxnn.train.fit import FitResult, fit
from jaxnn.train.foreign.equinox import from_equinox
from jaxnn.train.foreign.linen import from_flax
from jaxnn.train.kinds import PointKind, kind_of_point
from jaxnn.train.loop import Event
from jaxnn.train.loss import mean_loss
from jaxnn.train.meshes import shard_params
from jaxnn.train.pieces import make_epoch, make_piece
from jaxnn.train.precision import precision
from jaxnn.train.saving.lock import FolderInUseError
from jaxnn.train.saving.orbax import OrbaxCheckpoints
from jaxnn.train.saving.signals import Stopped
from jaxnn.train.statistics import Statistics, per_example_vg
from jaxnn.train.step import TrainState, grad_norm, init, make_step
from jaxnn.train.stopping import DivergedError, EarlyStopping, GradTolerance, LossTolerance
from jaxnn.train.sweeps.runs import map_runs
from jaxnn.train.sweeps.sweep import Sweep, sweep

__all__ = [
    "Diagnosis",
    "DivergedError",
    "EarlyStopping",
    "Event",
    "FitResult",
    "FolderInUseError",
    "GradTolerance",
    "Iterate",
    "LossTolerance",
    "OrbaxCheckpoints",
    "PointKind",
    "Position",
    "Statistics",
    "Stopped",
    "Sweep",
    "TrainState",
    "Trajectory",
    "Verdict",
    "checkpoints",
    "diagnose",
    "ensemble",
    "epochs",
    "evaluate",
    "fit",
    "from_equinox",
    "from_flax",
    "grad_norm",
    "init",
    "kind_of_point",
    "logging",
    "make_epoch",
    "make_evaluate",
    "make_outputs",
    "make_piece",
    "make_step",
    "map_runs",
    "maximize",
    "mean_loss",
    "minimize",
    "minmax",
    "nearest",
    "per_example_vg",
    "precision",
    "prefetch",
    "shard_params",
    "sweep",
    "trajectory",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
