"""Sequences: what networks on them can remember, count and look up."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("recall after a delay", "data.tasks.copying"),
    Item("adding problem", "data.tasks.adding"),
    Item("running parity", "data.tasks.parity"),
    Item("repeated random sequence", "data.tasks.induction"),
    Item("sorting of tokens", "data.tasks.sorting"),
    Item("balanced brackets of bounded depth", "data.tasks.dyck"),
    Item("multi-head attention", "layers.attention.apply"),
    Item("attention probabilities", "layers.attention.probabilities", figure="sequences-attention"),
    Item("rotary position encoding", "ops.rotary.rotate"),
    Item("attention with linear biases", "ops.attention.alibi_slopes"),
    Item("transformer", "models.transformer"),
    Item("tied embedding and output matrix", "layers.tied"),
    Item("simple recurrent layer", "layers.RNN"),
    Item("long short-term memory", "layers.lstm.apply"),
    Item("gated recurrent unit", "layers.gru.apply"),
    Item("linear recurrence, parallel over positions", "layers.linear_recurrence.apply"),
    Item("cross-entropy over chunks of a vocabulary", "losses.chunked_softmax_cross_entropy"),
    Item("temperature, top-k and nucleus sampling", "models.sample"),
    Item("decoding with a cache", "models.generate"),
    Item("gradients through time vanish", figure="sequences-vanishing", command="jaxnn study vanishing"),
    Item("induction heads", figure="sequences-induction", command="jaxnn study induction"),
    Item("which architecture learns which task", figure="sequences-tasks", command="jaxnn study tasks"),
)
