"""Classic networks: early neurons and their learning rules, networks by construction, small studies.

| module | contents |
|---|---|
| `neurons` | the McCulloch-Pitts unit; the constant feature |
| `perceptron`, `multiclass` | Rosenblatt's rule with its mistake bound, pocket and averaged; several classes |
| `adaline`, `logistic` | the delta rule; logistic regression by gradient ascent, batch, mini-batch, stochastic |
| `separability` | a separator by linear programming, or a proof that none exists; cycles of the perceptron rule |
| `baselines` | least squares for all classes or for pairs; nearest neighbours as matrix products |
| `gates`, `boolean`, `minimize`, `parity` | Boolean functions: gates, truth tables, Quine-McCluskey, parity |
| `regions`, `approximation` | polygons, unions, any region; pulses, staircases, ridges, bumps, surfaces |
| `threshold` | constructed networks; recoding from 0 and 1 to -1 and +1; sigmoids in place of thresholds |
| `batching`, `gan` | batch, mini-batch and stochastic gradient descent; a small GAN and its mode coverage |
| `stationary`, `brute_force` | stationary points, found and classified; the cost of every setting of a few weights |
| `generalization`, `trials` | weight decay, dropout, augmentation, early stopping, batch norm, ensembles, width |
| `symmetry`, `saturation`, `mixture`, `width`, `shifts` | studies of one effect each |

Modules are imported by name, `from jaxnn.classic import perceptron`, or on first access.
"""

import importlib
from types import ModuleType

from jaxnn import missing

MODULES = (
    "adaline", "approximation", "baselines", "batching", "boolean", "brute_force", "gan", "gates", "generalization",
    "logistic", "minimize", "mixture", "multiclass", "neurons", "parity", "perceptron", "regions", "saturation",
    "separability", "shifts", "stationary", "symmetry", "threshold", "trials", "width",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    """A module of this package, imported on first access."""
    if name in MODULES:
        return importlib.import_module(f"jaxnn.classic.{name}")
    raise AttributeError(missing.message(__name__, name))


def __dir__() -> list[str]:
    return list(MODULES)
