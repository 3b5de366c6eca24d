"""Clipped sums of any loss on 8 devices against the same on one, and what the devices send each other."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any

import jax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import per_example
from tests.backprop.checking import relative
from tests.devices.collectives import Sent, sent
from tests.devices.eight.test_streams import EXACT, compiled, few, some_weights
from tests.devices.eight.test_tape import mesh
from tests.devices.streams import CASES, LARGE, Case, layout, placed, plain
from tests.helpers import float64, slow

EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto
BOUND = 2.0
WAYS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "tape": lambda case: {"passes": 1},
    "two passes": lambda case: {"passes": 2},
    "by parameter": lambda case: {"groups": "parameter"},
    "by layer": lambda case: {"groups": "layer"},
    "a group": lambda case: {"groups": {"all": [f"[{name!r}]" for name in case.params]}},
}


def clipped(case: Case, way: str) -> Callable[..., Any]:
    return per_example.clipped_value_and_grad(case.loss, BOUND, **WAYS[way](case))


def every(case: Case, params: Any, weights: Any, *data: Any) -> Any:
    """With and without weights, of which some are 0."""
    vgs = [clipped(case, way) for way in WAYS]
    return [vg(params, *data) for vg in vgs], [vg(params, *data, weights=weights) for vg in vgs]


@pytest.mark.parametrize(
    ("name", "axis", "shape", "way"),
    [
        ("mlp", AUTO, (8,), "fsdp"),
        *slow(
            ("mlp", EXPLICIT, (8,), "replicated"),
            ("sequence", EXPLICIT, (8,), "fsdp"),
            ("blocks", EXPLICIT, (4, 2), "fsdp"),
            ("blocks", AUTO, (4, 2), "tensor parallel"),
            ("parallel", EXPLICIT, (4, 2), "tensor parallel"),
        ),
    ],
)
def test_a_sharded_batch_gives_the_sums_of_one_device(
    name: str, axis: AxisType, shape: tuple[int, ...], way: str
) -> None:
    """Norms stay with their examples; on an Explicit mesh sums are sharded as the parameters are."""
    with float64():
        case, weights, where = CASES[name](), some_weights(), mesh(axis, shape)
        alone = jax.jit(functools.partial(every, case))(case.params, weights, *case.data)
        specs = layout(case, way, shape[0])
        with jax.set_mesh(where):
            together = jax.jit(lambda *a: every(case, *a))(*placed(case, specs, weights, where))
        assert relative(together, alone) <= EXACT
        for (losses, norms), sums in [*together[0], *together[1]]:
            for rows in jax.tree.leaves((losses, norms)):
                assert rows.sharding.is_equivalent_to(NamedSharding(where, P("data")), rows.ndim)
            if axis is EXPLICIT:
                same = jax.tree.map(
                    lambda x, s: x.sharding.is_equivalent_to(NamedSharding(where, s), x.ndim), sums, specs
                )
                assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", ["mlp", *slow("sequence", "blocks")])
def test_inside_shard_map_the_sum_is_that_of_all_devices(name: str) -> None:
    with float64():
        case, weights = CASES[name](), some_weights()

        def ours(params: Any, weights: Any, *data: Any) -> Any:
            found = every(case, params, weights, *data)
            return [head for part in found for head, _ in part], [sums for part in found for _, sums in part]

        specs = (P(), *(P("data") for _ in (weights, *case.data)))
        run = jax.jit(jax.shard_map(ours, mesh=mesh(AUTO, (4, 2)), in_specs=specs, out_specs=(P("data"), P())))
        args = (case.params, weights, *case.data)
        assert relative(run(*args), jax.jit(ours)(*args)) <= EXACT


def sent_by(way: str, case: Case, name: str, shape: tuple[int, ...] = ()) -> tuple[Sent, Sent]:
    """(What a clipped sum sends, what the gradient does)."""
    where = few(4, shape)
    specs = layout(case, name, 4)
    ours, theirs = (sent(compiled(f, case, where, specs).as_text()) for f in (clipped(case, way), plain(case.loss)))
    return ours, theirs


def without_a_row(found: Sent, case: Case) -> Sent:
    """What is sent, without all-reduces of one example: the second pass replaces those of factor 0 by another one."""
    row = sum(x[0].size * 4 for x in case.data) + 4 + 1  # its data, its number, and whether there is one
    few_bytes = {array: count for array, count in found.items() if array[0] == "all-reduce" and array[2] <= row}
    assert sum(size * count for (_, _, size), count in few_bytes.items()) <= row
    return found - collections.Counter(few_bytes)


@pytest.mark.parametrize("name", ["mlp", *slow("blocks")])
def test_a_clipped_sum_sends_what_the_gradient_does(name: str) -> None:
    """One sum over the devices of each gradient."""
    case = LARGE[name]()
    for way in ("by parameter", *(["tape"] if name == "mlp" else [])):
        ours, theirs = sent_by(way, case, "replicated")
        assert ours == theirs
    ours, theirs = sent_by("two passes", case, "replicated")
    assert not theirs - ours
    assert not without_a_row(ours - theirs, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "blocks"])
def test_two_passes_over_sharded_parameters_gather_them_once_each(name: str) -> None:
    case = LARGE[name]()
    ours, theirs = sent_by("two passes", case, "fsdp")
    assert not theirs - ours
    again = without_a_row(ours - theirs, case)
    assert all(kind == "all-gather" and count <= theirs[kind, size, n] for (kind, size, n), count in again.items())


@pytest.mark.slow
def test_tensor_parallel_clipped_sums_send_numbers_of_examples_more() -> None:
    case = LARGE["mlp"]()
    ours, theirs = sent_by("two passes", case, "tensor parallel", (2, 2))
    more = without_a_row(ours - theirs - theirs, case)
    assert {kind for kind, _, _ in more} == {"all-reduce"}
    assert sum(count * size // 4 for (_, _, size), count in more.items()) <= len(case.data[0]) // 2 * len(case.split)
