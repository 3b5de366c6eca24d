"""Schedules: pure functions from the step count 0, 1, 2, ... to a value such as the learning rate.

Names, arguments, their order and defaults, and the values at every step are optax's (which has no
`sqrt_batch_size_rule`), except where optax is silently wrong:

| setting | optax 0.2.8 | here |
|---|---|---|
| `transition_steps <= 0`, `transition_begin < 0`, `decay_rate <= 0` | constant, clipped, or NaN | ValueError |
| `warmup_constant_schedule(warmup_steps=0)` | stays at `init_value` (often 0) | `peak_value` at once |
| `join_schedules`: mismatched lengths, unsorted boundaries | drops some | ValueError |
| one-cycle phases that end on the same step (`pct_final=1`, few steps) | drops a phase's factor | applies both |
| `linear_onecycle_schedule(pct_start > pct_final)` | swaps the phases | ValueError |
| `staircase=True`: count / transition_steps | rounded in floating point | integer division, exact |
| `polynomial_schedule`, fractional power, compiled | NaN at the end for some lengths (9 in float32) | `end_value` |
| traced step counts, decay rates and peak values | most raise | allowed |
| arrays of counts | `piecewise_interpolate_schedule` raises or sums over them | one value per count |

Every function returns a `Schedule`, count (...) -> value (...); `sqrt_batch_size_rule` of a number returns a scalar.
Values are float32; float64 if a parameter is float64, or if `jax.enable_x64` is on and no parameter is a floating
array. bfloat16 and float16 parameters are widened. Counts are integers >= 0, traced or not, and are subtracted as
integers, which is exact beyond 2^24. Numbers may be traced, except the steps in `boundaries_and_scales`. Concrete
arguments are checked when the schedule is made, ValueError for one out of its range; traced ones pass unchecked.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.schedules.base import Schedule
from jaxnn.schedules.batch_size import sqrt_batch_size_rule
from jaxnn.schedules.decay import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    linear_schedule,
    polynomial_schedule,
)
from jaxnn.schedules.piecewise import (
    cosine_onecycle_schedule,
    linear_onecycle_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
)
from jaxnn.schedules.sequence import (
    join_schedules,
    sgdr_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)

__all__ = [
    "Schedule",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "sqrt_batch_size_rule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
