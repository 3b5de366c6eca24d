"""Every optimizer rule with the settings in which it is compared to optax.

The files follow the folders of `jaxnn.optim`; its rules are in three: adaptive, rate_free and first_order.
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
