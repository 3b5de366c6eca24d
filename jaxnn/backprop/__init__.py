"""Backpropagation by hand: one rule for each kind of layer, and the backward pass through a network.

- `value_and_grad(net, loss, regularizer)` makes the function of the training loss and its gradient, the same as
  `jax.value_and_grad(train.mean_loss(net, loss, regularizer), has_aux=True)`.
- `record(net, loss)` makes a function that returns the `jaxnn.tape.Tape` of a backward pass, for `jaxnn.per_example`.
- `ggn_record(net, loss)`, `output_record(net)` make functions that pull back several output cotangents at once, for
  curvature and the neural tangent kernel.
- `coverage(net, loss)` lists which layers are differentiated by hand and which by `jax.vjp`.
- `check_rule(layer, x)` and `check_gradient(f, x, gradient)` compare a rule, of a layer of your own too, and a gradient
  with finite differences (`differences`).
- `trace_table(net, ...)` is a table, to print, of every z, a, delta and gradient of a small network.
- `register(kind, Rule(...))` gives a layer of your own its rule.

| rules | module | derivations |
|---|---|---|
| dense, conv, embedding, flatten, dropout | `linear` | linear maps and their adjoints |
| activations, also with parameters, softmax, poolings | `pointwise` | s'(z), p . (g - p'g), masks |
| batch, layer, group, RMS norm | `norms` | through the mean and the variance |
| attention | `attention` | probabilities recomputed in blocks, products over positions |
| gated dense | `gated` | the product rule, two dense layers |
| tied parameters, positions, padded sequences | `sequences` | uses of one parameter concatenated, masks |
| RNN, LSTM, GRU, linear recurrence, reversed | `recurrent` | backpropagation through time |
| serial, residual, parallel | `combinators` | the chain rule |
| softmax + cross-entropy, sigmoid + BCE | `fused` | y - d |
| a stack of blocks | `stack` | one reversed scan |
| dense + softmax cross-entropy, with `class_chunk` | `heads` | chunks of y - d |
| `remat_every` | `checkpoint` | recomputation of each segment's forward pass |

The derivatives of the losses are in `jaxnn.losses`, the adjoints of array operations in `jaxnn.ops`. No layer has a
`custom_vjp`: `jax.grad` through `net.apply` stays an independent check of every rule.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.backprop import (
    attention,
    combinators,
    differences,
    gated,
    linear,
    norms,
    pointwise,
    recurrent,
    sequences,
    stack,
)
from jaxnn.backprop.check import check_gradient, check_rule
from jaxnn.backprop.coverage import coverage
from jaxnn.backprop.curvature import ggn_record, output_record
from jaxnn.backprop.gradient import coupled_layers, record, value_and_grad
from jaxnn.backprop.rule import AUTOMATIC, Rule, keep_input, register, rule_of
from jaxnn.backprop.trace import trace_table
from jaxnn.backprop.verdicts import Check

__all__ = [
    "AUTOMATIC",
    "Check",
    "Rule",
    "attention",
    "check_gradient",
    "check_rule",
    "combinators",
    "coupled_layers",
    "coverage",
    "differences",
    "gated",
    "ggn_record",
    "keep_input",
    "linear",
    "norms",
    "output_record",
    "pointwise",
    "record",
    "recurrent",
    "register",
    "rule_of",
    "sequences",
    "stack",
    "trace_table",
    "value_and_grad",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
