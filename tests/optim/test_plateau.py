"""The reduction on a plateau against PyTorch's and a transcription, and at its edges."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import optim
from tests.helpers import assert_close, random
from tests.optim.running import along, traced

MUTANTS: list[tuple[str, str, str, str]] = [
    ("plateau", "reduce_on_plateau: settings", "bad >= jnp.asarray(patience)", "bad > jnp.asarray(patience)"),
    ("plateau", "reduce_on_plateau: settings", "jnp.where(improves | cooling,", "jnp.where(improves,"),
    ("plateau", "reduce_on_plateau: settings", "jnp.maximum(shrunk, cast_like(min_scale, mean))", "shrunk"),
    ("plateau", "reduce_on_plateau: settings", " - cast_like(atol, best)", " - 5 * cast_like(atol, best)"),
    ("plateau", "reduce_on_plateau: settings", "cast_like(rtol, best) * jnp.abs(best)", "cast_like(rtol, best)"),
    ("plateau", "reduce_on_plateau: means", " / count.astype(value.dtype)", ""),
    ("plateau", "reduce_on_plateau: means", "* state.avg_value + value", "* state.avg_value + 2 * value"),
]


def scales(values: Any, **kwargs: Any) -> list[float]:
    """The scale after each value."""
    opt, one = optim.reduce_on_plateau(**kwargs), np.float32(1)

    def body(state: Any, value: Any) -> Any:
        updates, state = opt.update(one, state, value=value)
        return state, (updates, state.scale)

    updates, found = jax.jit(lambda values: jax.lax.scan(body, opt.init(one), values)[1])(np.float32(values))
    assert_close(updates, found, rtol=0)
    return found.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("cooldown", [0, 3])
def test_pytorch_s_patience_is_one_less(cooldown: int) -> None:
    torch = pytest.importorskip("torch")
    values = 5 * 0.9 ** np.arange(60) + 0.3 + 0.2 * np.abs(random(0, 60))
    weight = torch.nn.Parameter(torch.ones(1))
    sgd = torch.optim.SGD([weight], lr=1.0)
    settings = {"factor": 0.5, "threshold": 0.05, "cooldown": cooldown, "min_lr": 0.02, "eps": 0.0}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, patience=3, **settings)
    expected = []
    for value in values.tolist():
        weight.grad = torch.zeros(1)
        sgd.step()
        scheduler.step(value)
        expected.append(sgd.param_groups[0]["lr"])
    assert len(set(expected)) > 3
    ours = scales(values, factor=0.5, patience=4, rtol=0.05, cooldown=cooldown, min_scale=0.02)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def transcription(values: Any, size: int, factor: float, patience: int, rtol: float, cooldown: int) -> list[float]:
    scale, best, bad, cool, found, part = 1.0, math.inf, 0, 0, [], []
    for value in values:
        part.append(value)
        if len(part) == size:
            mean, part = float(np.mean(part)), []
            improves = mean < (best - rtol * abs(best) if math.isfinite(best) else best)
            best, bad = (mean, 0) if improves else (best, bad + 1)
            if cool > 0:
                cool, bad = cool - 1, 0
            elif bad == patience:
                scale, bad, cool = scale * factor, 0, cooldown
        found.append(scale)
    return found


@pytest.mark.parametrize("offset", [0.0, -5.0])
def test_is_the_rule_of_the_docstring(offset: float) -> None:
    values = random(1, 80) + offset
    ours = scales(values, factor=0.8, patience=2, rtol=0.1, cooldown=2, accumulation_size=3)
    np.testing.assert_allclose(ours, transcription(values, 3, 0.8, 2, 0.1, 2), rtol=1e-6)
    assert ours[-1] < 1


def test_a_value_worse_than_a_negative_best_is_no_improvement() -> None:
    """-0.95 > -1 satisfies a < (1 - 0.1) (-1): optax and PyTorch take it for the best."""
    assert scales([-1.0, -0.95, -0.92], factor=0.5, patience=2, rtol=0.1) == [1.0, 1.0, 0.5]


def test_nan_is_no_improvement_and_the_first_value_is_one_whatever_rtol() -> None:
    assert scales([math.nan, math.nan, 1.0], factor=0.5, patience=2) == [1.0, 0.5, 0.5]
    opt = optim.reduce_on_plateau(rtol=1.0)
    _, _, state = along(opt, np.float32(1), np.ones(1, np.float32), value=np.float32(2.0))
    assert state.best_value == 2.0


def test_none_leaves_pass_and_value_is_needed() -> None:
    opt, params = optim.reduce_on_plateau(), {"w": np.ones(1, jnp.bfloat16), "none": None}
    updates, state = jax.eval_shape(lambda p: opt.update(p, opt.init(p), p, value=1.0), params)
    assert updates["none"] is None
    assert updates["w"].dtype == jnp.bfloat16
    assert state.scale.dtype == jnp.float32
    with pytest.raises(ValueError, match="reduce_on_plateau: update needs the extra argument value"):
        jax.eval_shape(opt.update, params, state, params)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"factor": 1.0}, r"factor must lie in \(0, 1\), got 1"),
        ({"factor": 0.0}, r"factor must lie in \(0, 1\), got 0"),
        ({"patience": 0}, r"patience must lie in \[1, inf\], got 0"),
        ({"accumulation_size": 0}, r"accumulation_size must lie in \[1, inf\], got 0"),
        ({"rtol": 1.5}, r"rtol must lie in \[0, 1\], got 1.5"),
        ({"rtol": 0.0}, "rtol or atol must be greater than 0"),
        ({"cooldown": -1}, "cooldown must lie in"),
    ],
)
@traced
def test_bad_hyperparameters(bad: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        optim.reduce_on_plateau(**bad)
