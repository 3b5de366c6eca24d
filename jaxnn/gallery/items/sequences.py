"""Sequences: what networks on them can remember, count and look up."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("recall after a delay", "data.tasks.copying"),
    Item("adding problem", "data.tasks.adding"),
    Item("running parity", "data.tasks.parity"),
    Item("repeated random sequence", "data.tasks.induction"),
    Item("sorting of tokens", "data.tasks.sorting"),
    Item("balanced brackets of bounded depth", "data.tasks.dyck"),
    Item("attention probabilities", "layers.attention.probabilities"),
    Item("gradients through time vanish", command="jaxnn study vanishing"),
    Item("induction heads", command="jaxnn study induction"),
    Item("which architecture learns which task", command="jaxnn study tasks"),
)
