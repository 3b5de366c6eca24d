"""Recording a tape from any JAX function.

| file | what it does |
|---|---|
| `arguments` | takes a call apart: parameters, arrays with an axis of examples, the rest |
| `tracing` | the jaxpr of the loss of one example |
| `reading` | follows parameters to the operations that use them; `param`, `viewing`, `concatenating`, `inner` |
| `rules` | how each kind of operation is recorded: `products`, `convolutions`, `pointwise`, `lookups` |
| `running` | evaluates it with taps at those operations |
| `recorder` | puts the tape together |
"""

from jaxnn.per_example.recording.recorder import record

__all__ = ["record"]
