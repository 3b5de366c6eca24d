"""The table of concepts: each with the names, the code, the figure or the command that shows it, by subject.

A new concept is one `Item` in the module of its subject; `pytest tests/gallery/test_items.py` runs it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from jaxnn.gallery.items import (
    approximation,
    boolean,
    descent,
    gradients,
    images,
    linear,
    optimizers,
    outputs,
    perceptrons,
    sequences,
    training,
    units,
)
from jaxnn.gallery.items.base import Item

SUBJECTS: Mapping[str, tuple[Item, ...]] = MappingProxyType(
    {
        "Units and networks": units.ITEMS,
        "Outputs and losses": outputs.ITEMS,
        "Backpropagation": gradients.ITEMS,
        "Gradient descent": descent.ITEMS,
        "Optimizers and games": optimizers.ITEMS,
        "Perceptrons": perceptrons.ITEMS,
        "Linear units and logistic regression": linear.ITEMS,
        "Boolean networks and regions": boolean.ITEMS,
        "Approximation and depth": approximation.ITEMS,
        "Training in practice": training.ITEMS,
        "Images and the playground": images.ITEMS,
        "Sequences": sequences.ITEMS,
    }
)
"""The items by the title of their subject, in the order of the page."""
