"""Neural networks, optimizers and per-example gradients in JAX: see the README, and `help(jaxnn.losses)` etc."""

import importlib
from types import ModuleType

__version__ = "0.2.0"

ROOMS = (
    "activations", "backprop", "checks", "classic", "cli", "compare", "data", "gallery", "initializers", "interchange",
    "kernels", "landscapes", "layers", "losses", "metrics", "microbatching", "missing", "models", "numerics", "ops",
    "optim", "per_example", "perturbations", "playground", "plots", "projections", "schedules", "studies", "tape",
    "train", "tree", "types",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    """A module of the library, imported on first use."""
    if name in ROOMS:
        return importlib.import_module(f"jaxnn.{name}")
    text = importlib.import_module("jaxnn.missing").message("jaxnn", name)
    raise AttributeError(text if name.startswith("_") else f"{text} Its modules are {', '.join(ROOMS)}.")


def __dir__() -> list[str]:
    return [*ROOMS, "__version__"]
