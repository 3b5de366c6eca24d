"""Studies of per-example gradients on real data, and of networks on sequences.

Per-example gradients come from one backward pass per batch, without `vmap(grad)`:

| study | question | figure |
|---|---|---|
| `norms` | how large are the per-example gradient norms during training? | histograms and quantiles |
| `hardest` | which examples have the largest? | their images |
| `mislabeled` | do large gradients reveal wrong labels? | precision at k, by norm and by loss; the suspects |
| `noise_scale` | how noisy is the gradient of a minibatch? | noise against batch size, and during training |
| `clipped` | what do clipping and noise cost (DP-SGD's update; NOT a privacy guarantee)? | curves by noise |
| `gram` | which classes have aligned gradients? | cosines of all pairs, and their means |
| `influence` | which training examples helped or harmed a test example? | their images |
| `projections` | do random projections of gradients find the same examples? | their images; agreement by k |

Sequences are the synthetic tasks of `data.tasks`:

| study | question | figure |
|---|---|---|
| `vanishing` | how much does the last output depend on earlier states? | gradients through time |
| `induction` | how do two layers of attention learn to look up? | scores of the heads in training; their attention |
| `tasks` | which architecture learns which task? | accuracy by task and architecture; learning curves |

Each module has `run`, which returns a NamedTuple with `numbers()` for JSON and `describe()` in words, and
`draw(found)`, which returns figures by name. Of per-example gradients it is `run(data, *, net=None, seed=0, ...)`: it
raises ValueError for an unknown name of data, a batch size above the number of examples, or if training diverged;
TypeError for data of another type. Of sequences it is `run(*, seed=0, ...)`.
The command is `jaxnn study NAME`.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.studies import (
    clipped,
    gram,
    hardest,
    induction,
    influence,
    mislabeled,
    noise_scale,
    norms,
    projections,
    tasks,
    vanishing,
)

__all__ = [
    "clipped",
    "gram",
    "hardest",
    "induction",
    "influence",
    "mislabeled",
    "noise_scale",
    "norms",
    "projections",
    "tasks",
    "vanishing",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
