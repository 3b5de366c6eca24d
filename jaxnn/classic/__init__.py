"""Classic networks: early neurons and their learning rules, networks by construction, small studies.

| module | contents |
|---|---|
| `neurons` | the McCulloch-Pitts unit; the constant feature |
| `perceptron`, `multiclass` | Rosenblatt's rule with its mistake bound, pocket and averaged; several classes |
| `adaline`, `logistic` | the delta rule; logistic regression by gradient ascent, batch, mini-batch, stochastic |
| `separability` | a separator by linear programming, or a proof that none exists; all Boolean functions; cycles |
| `baselines` | least squares for all classes or for pairs; nearest neighbours as matrix products |
| `gates`, `boolean`, `formulas`, `minimize`, `parity` | Boolean functions: gates, truth tables, parsing, minimization |
| `regions`, `convex` | half-spaces, polyhedra, unions, any region of the plane; the best convex region |
| `approximation` | pulses, staircases, ridges, bumps, surfaces |
| `threshold` | constructed networks; recoding from 0 and 1 to -1 and +1; sigmoids in place of thresholds |
| `batching`, `batch_noise` | batch, mini-batch and stochastic gradient descent; the noise of small batches |
| `stationary`, `brute_force` | stationary points, found and classified; the cost of every setting of a few weights |
| `gan` | a small GAN and its mode coverage |
| `generalization`, `trials` | weight decay, dropout, augmentation, early stopping, batch norm, ensembles, width |
| `symmetry`, `saturation`, `mixture`, `width`, `shifts` | studies of one effect each |
| `examples_needed`, `depth`, `layer_types`, `transfer` | error against examples, layers, their kinds; pre-training |
| `features`, `hierarchy` | features by hand against learned ones; what the layers of a CNN respond to |
| `denoising`, `filters`, `products` | denoising autoencoder; filters scanning an image; matrix products against loops |
| `hopfield`, `boltzmann` | memories as minima of an energy; a distribution learned by contrastive divergence |
| `radial`, `kernel` | Gaussian units about centres; kernel perceptron, kernel ridge, support vector machine |
| `kohonen`, `reservoir`, `spiking` | the self-organizing map; the echo-state network; integrate-and-fire |

Modules are imported by name, `from jaxnn.classic import perceptron`, or on first access.
"""

import importlib
from types import ModuleType

from jaxnn import missing

MODULES = (
    "adaline", "approximation", "baselines", "batch_noise", "batching", "boltzmann", "boolean", "brute_force", "convex",
    "denoising", "depth", "examples_needed", "features", "filters", "formulas", "gan", "gates", "generalization",
    "hierarchy", "hopfield", "kernel", "kohonen", "layer_types", "logistic", "minimize", "mixture", "multiclass",
    "neurons", "parity", "perceptron", "products", "radial", "regions", "reservoir", "saturation", "separability",
    "shifts", "spiking", "stationary", "symmetry", "threshold", "transfer", "trials", "width",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    """A module of this package, imported on first access."""
    if name in MODULES:
        return importlib.import_module(f"jaxnn.classic.{name}")
    raise AttributeError(missing.message(__name__, name))


def __dir__() -> list[str]:
    return list(MODULES)
