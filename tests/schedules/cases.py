"""Settings of every schedule for which ours and optax's must agree at every step."""

from __future__ import annotations

import inspect
from typing import Any

COSINE = {"init_value": 0.01, "peak_value": 0.1, "warmup_steps": 3, "decay_steps": 9}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("constant_schedule", {"value": 0.3}),
    ("linear_schedule", {"init_value": 1.0, "end_value": 0.1, "transition_steps": 7}),
    ("linear_schedule", {"init_value": -0.2, "end_value": 0.9, "transition_steps": 7, "transition_begin": 4}),
    ("polynomial_schedule", {"init_value": 0.5, "end_value": 0.02, "power": 0, "transition_steps": 9}),
    ("polynomial_schedule", {"init_value": 0.5, "end_value": 0.02, "power": 2, "transition_steps": 9}),
    (
        "polynomial_schedule",
        {"init_value": 0.5, "end_value": 0.02, "power": 1.7, "transition_steps": 8, "transition_begin": 3},
    ),
    ("exponential_decay", {"init_value": 0.5, "transition_steps": 4, "decay_rate": 1.0, "end_value": 0.2}),
    ("exponential_decay", {"init_value": 0.5, "transition_steps": 4, "decay_rate": 0.7}),
    ("exponential_decay", {"init_value": 0.5, "transition_steps": 4, "decay_rate": 0.7, "transition_begin": 5}),
    (
        "exponential_decay",
        {"init_value": 0.5, "transition_steps": 4, "decay_rate": 0.7, "transition_begin": 5, "staircase": True},
    ),
    ("exponential_decay", {"init_value": 0.5, "transition_steps": 4, "decay_rate": 0.7, "end_value": 0.2}),
    ("exponential_decay", {"init_value": 0.5, "transition_steps": 4, "decay_rate": 1.3, "end_value": 0.9}),
    ("cosine_decay_schedule", {"init_value": 0.3, "decay_steps": 10}),
    ("cosine_decay_schedule", {"init_value": 0.3, "decay_steps": 10, "alpha": 0.2, "exponent": 1.5}),
    ("linear_onecycle_schedule", {"transition_steps": 20, "peak_value": 0.4}),
    (
        "linear_onecycle_schedule",
        {
            "transition_steps": 17,
            "peak_value": 0.4,
            "pct_start": 0.1,
            "pct_final": 0.6,
            "div_factor": 3.0,
            "final_div_factor": 7.0,
        },
    ),
    ("cosine_onecycle_schedule", {"transition_steps": 20, "peak_value": 0.4}),
    (
        "cosine_onecycle_schedule",
        {"transition_steps": 17, "peak_value": 0.4, "pct_start": 0.5, "div_factor": 3.0, "final_div_factor": 7.0},
    ),
    ("cosine_onecycle_schedule", {"transition_steps": 5, "peak_value": 0.4, "pct_start": 0.1}),
    ("piecewise_constant_schedule", {"init_value": 0.3}),
    ("piecewise_constant_schedule", {"init_value": 0.3, "boundaries_and_scales": {8: 0.1, 3: 0.5, 15: 2.0}}),
    ("piecewise_constant_schedule", {"init_value": 0.3, "boundaries_and_scales": {0: 0.5, 4: 0.0}}),
    ("piecewise_interpolate_schedule", {"interpolate_type": "linear", "init_value": 0.3}),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "linear", "init_value": 0.3, "boundaries_and_scales": {8: 0.1, 3: 0.5, 15: 2.0}},
    ),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "cosine", "init_value": 0.3, "boundaries_and_scales": {8: 0.1, 3: 0.5}},
    ),
    (
        "piecewise_interpolate_schedule",
        {"interpolate_type": "cosine", "init_value": 0.3, "boundaries_and_scales": {0: 0.5, 6: 0.2}},
    ),
    ("warmup_constant_schedule", {"init_value": 0.0, "peak_value": 0.3, "warmup_steps": 5}),
    ("warmup_cosine_decay_schedule", {**COSINE}),
    ("warmup_cosine_decay_schedule", {**COSINE, "end_value": 0.02, "exponent": 2.0}),
    ("warmup_cosine_decay_schedule", {**COSINE, "warmup_steps": 0}),
    ("warmup_cosine_decay_schedule", {**COSINE, "peak_value": 0.0, "end_value": 0.02}),
    (
        "warmup_exponential_decay_schedule",
        {"init_value": 0.0, "peak_value": 0.3, "warmup_steps": 4, "transition_steps": 3, "decay_rate": 0.6},
    ),
    (
        "warmup_exponential_decay_schedule",
        {
            "init_value": 0.0,
            "peak_value": 0.3,
            "warmup_steps": 4,
            "transition_steps": 3,
            "decay_rate": 0.6,
            "transition_begin": 2,
            "staircase": True,
            "end_value": 0.05,
        },
    ),
    (
        "warmup_exponential_decay_schedule",
        {"init_value": 0.0, "peak_value": 0.3, "warmup_steps": 0, "transition_steps": 3, "decay_rate": 0.6},
    ),
    (
        "sgdr_schedule",
        {"cosine_kwargs": [COSINE, {**COSINE, "peak_value": 0.05, "decay_steps": 14}, {**COSINE, "warmup_steps": 0}]},
    ),
    ("sgdr_schedule", {"cosine_kwargs": [COSINE]}),
]

LAST_COUNT = 60
"""Several times the longest schedule above."""


def signature(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]
