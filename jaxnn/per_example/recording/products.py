"""Products: `dot_general` with a parameter on one side, of any contracted, batch and free axes."""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.core import JaxprEqn

from jaxnn.ops.views import Transpose
from jaxnn.per_example.recording.param import Param
from jaxnn.per_example.recording.rule import Axes, OpRule, placed, shape_of
from jaxnn.tape import GroupedProduct, Product, Use
from jaxnn.types import Array, Shape


def _fits(equation: JaxprEqn, at: int, param: Param) -> bool:
    return not param.view.repeats


def _seen(equation: JaxprEqn, at: int, operands: Sequence[Array]) -> Array:
    return operands[1 - at]


def _use(equation: JaxprEqn, at: int, param: Param, x: Array, delta: Array) -> Use:
    """z[b, t, f] = sum_c x[b, t, c] w[b, c, f]: batch axes b are groups, contracted c inputs, free f outputs."""
    contracted, batch = equation.params["dimension_numbers"]
    # In the order of the parameter's axes, whatever the order in which they are contracted: fewer transposed views.
    pairs = sorted(zip(contracted[at], contracted[1 - at], strict=True))
    w_in, x_in = tuple(i for i, _ in pairs), tuple(j for _, j in pairs)
    w_groups, x_groups = tuple(batch[at]), tuple(batch[1 - at])
    w_out = _free(len(param.shape), w_in, w_groups)
    x_times = _free(len(shape_of(equation.invars[1 - at])), x_in, x_groups)

    # dot_general orders the axes of its result (batch, free of operand 0, free of operand 1), and so those of delta.
    groups = tuple(range(len(w_groups)))
    first, second = (w_out, x_times) if at == 0 else (x_times, w_out)
    ahead = tuple(range(len(groups), len(groups) + len(first)))
    behind = tuple(range(len(groups) + len(first), len(groups) + len(first) + len(second)))
    outs, times = (ahead, behind) if at == 0 else (behind, ahead)

    axes = Axes(param)
    a = axes.arranged(x, x_times, x_groups, x_in)
    error = axes.arranged(delta, times, groups, outs)

    stacked = tuple(range(param.loops))

    # The tape has weights (inputs, groups, outputs). Loops over slices of w become groups, ahead of its batch axes.
    def kernel(inputs: Shape, outputs: Shape) -> Transpose:
        blocks = (tuple(param.loops + axis for axis in block) for block in (inputs, w_groups, outputs))
        rows, middle, columns = blocks
        return Transpose((*rows, *stacked, *middle, *columns))

    # The transposed gradient is that of (delta, a): where w is stored as (D_out, D_in), swapping the pair makes the
    # view the identity, and the use needs neither a `Placed` nor a transposition.
    straight, swapped = param.view.then(kernel(w_in, w_out)), param.view.then(kernel(w_out, w_in))
    view, pair = (swapped, (error, a)) if swapped.in_order and not straight.in_order else (straight, (a, error))
    if a.shape[2] == 1:
        return placed(Product(pair[0][:, :, 0], pair[1][:, :, 0]), view)
    return placed(GroupedProduct(*pair), view)


def _cut(equation: JaxprEqn, at: int, axis: int) -> tuple[int | None, int | None]:
    contracted, batch = equation.params["dimension_numbers"]
    if axis in contracted[at]:
        return contracted[1 - at][tuple(contracted[at]).index(axis)], None
    if axis in batch[at]:
        place = tuple(batch[at]).index(axis)
        return batch[1 - at][place], place
    free = [
        _free(len(shape_of(v)), tuple(c), tuple(b)) for v, c, b in zip(equation.invars, contracted, batch, strict=True)
    ]
    return None, len(batch[at]) + (0 if at == 0 else len(free[0])) + free[at].index(axis)


def _free(rank: int, *taken: Shape) -> Shape:
    return tuple(axis for axis in range(rank) if not any(axis in block for block in taken))


DOT_GENERAL = OpRule(_fits, _seen, _use, _cut)
"""`lax.dot_general`."""
