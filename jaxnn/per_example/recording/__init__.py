"""The recorder: a tape from any JAX function.

| file | content |
|---|---|
| `arguments` | splits the arguments of a call: parameters, arrays with an axis of examples, the rest |
| `tracing` | the jaxpr of the loss of one example |
| `reading` | follows parameters to the operations that use them, with `param`, `viewing`, `concatenating`, `inner` |
| `rules` | how each operation is recorded: `rule`, `products`, `softmax`, `convolutions`, `pointwise`, `lookups` |
| `running` | evaluates the jaxpr with a tap at each of these operations |
| `recorder` | builds the tape |
"""

from jaxnn.per_example.recording.recorder import record

__all__ = ["record"]
