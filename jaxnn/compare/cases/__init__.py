"""Optimizers, transformations and wrappers with the settings in which they are compared to optax's.

The files follow the folders of `jaxnn.optim`: `rules` in adaptive, rate_free and first_order, `precision` in wrappers.
"""

import importlib
import pkgutil

from jaxnn.compare.parity import Case


def all_cases() -> dict[str, Case]:
    """The cases of all families by name, such as "adam" or "adam: eps_root"."""
    found: dict[str, Case] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        found |= importlib.import_module(f"{__name__}.{module}").CASES
    return found
