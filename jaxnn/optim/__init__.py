"""Optimizer rules, hand-written (floor 3): optax's protocol, names, argument names, defaults and sign convention.

opt = optim.adam(1e-3)
opt_state = opt.init(params)
updates, opt_state = opt.update(grads, opt_state, params)
params = optim.apply_updates(params, updates)
"""

from jaxnn.optim.adam import AdamState, adam
from jaxnn.optim.base import Optimizer, apply_updates
from jaxnn.optim.sgd import SgdState, sgd

__all__ = ["AdamState", "Optimizer", "SgdState", "adam", "apply_updates", "sgd"]
