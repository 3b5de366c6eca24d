"""The chapters before and around backpropagation: early neurons and their rules, networks by construction. Floor 7.

| module | what is in it |
|---|---|
| `neurons` | the McCulloch-Pitts unit; the always-on feature |
| `perceptron`, `multiclass` | Rosenblatt's rule with its mistake bound, pocket and averaged; several classes |
| `adaline`, `logistic` | the delta rule; logistic regression by gradient ascent, batch, mini-batch, stochastic |
| `separability` | a separator by linear programming, or the proof that there is none; weights that repeat |
| `baselines` | least squares for all classes or for pairs; nearest neighbours as matrix products |
| `gates`, `boolean`, `minimize`, `parity` | Boolean functions: gates, truth tables, Quine-McCluskey, parity |
| `regions`, `approximation` | polygons, unions, any region; pulses, staircases, ridges, bumps, surfaces |
| `threshold` | what a constructed network is; -1 and +1 in the place of 0 and 1; sigmoids in the place of thresholds |
| `batching`, `gan` | batch against mini-batch against stochastic; a small GAN and the modes that it finds |
| `generalization`, `trials` | weight decay, dropout, augmentation, early stopping, batch norm, ensembles, width |
| `symmetry`, `saturation`, `mixture`, `width`, `shifts` | studies of a single point each |

Modules are imported by name, `from jaxnn.classic import perceptron`, or when they are first asked for.
"""

import importlib
from types import ModuleType

from jaxnn import missing

MODULES = (
    "adaline", "approximation", "baselines", "batching", "boolean", "gan", "gates", "generalization", "logistic",
    "minimize", "mixture", "multiclass", "neurons", "parity", "perceptron", "regions", "saturation", "separability",
    "shifts", "symmetry", "threshold", "trials", "width",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    """A module of this room, imported when it is first asked for.

    Example:
        >>> import jaxnn
        >>> jaxnn.classic.parity.tree(4).units
        9
    """
    if name in MODULES:
        return importlib.import_module(f"jaxnn.classic.{name}")
    raise AttributeError(missing.message(__name__, name))


def __dir__() -> list[str]:
    return list(MODULES)
