"""Studies of single examples' gradients on real data (floor 8), each from one tape a batch and no `vmap(grad)`.

| study | what it asks | picture |
|---|---|---|
| `norms` | how long are the gradients, from start to end of training? | histograms and quantiles |
| `hardest` | which examples have the longest? | their images |
| `mislabeled` | do long gradients betray wrong labels? | precision against k, by norm and by loss; the suspects |
| `noise_scale` | how noisy is a minibatch's gradient? | against batch size, and along training |
| `clipped` | what do clipping and noise cost (the shape of DP-SGD; NOT a privacy guarantee)? | curves by noise |
| `gram` | which classes pull the network the same way? | cosines of all pairs, and their means |
| `influence` | which training examples helped or harmed a test example? | their images |

Each module has `run(data, net=None, seed=0, ...)`, which returns a NamedTuple of arrays with `numbers()` for JSON and
`describe()` in words, and `draw(found)`, which returns figures by name. The command is `jaxnn study NAME`.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.studies import clipped, gram, hardest, influence, mislabeled, noise_scale, norms

__all__ = ["clipped", "gram", "hardest", "influence", "mislabeled", "noise_scale", "norms"]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
