"""What four chips of a TPU v5e send each other for statistics inside the backward pass, beside the gradient alone.

    JAXNN_TEST_COMPILED=1 pytest -n 0 -m slow tests/devices/test_compiled_streams.py

as `test_compiled.py`; no device is needed.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxnn import per_example
from jaxnn.per_example.streaming import dense
from tests.devices import hlo
from tests.devices.collectives import Sent, sent
from tests.devices.streams import LARGE, Case, layout, plain, two_products

if os.environ.get("JAXNN_TEST_COMPILED") == "1":
    WHY = hlo.unavailable("tpu")
else:
    WHY = "compiles for a TPU in a process and a venv of their own: the module's docstring has the command"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY is not None, reason=str(WHY))]


def compiled(f: Any, case: Case, mesh: dict[str, int], specs: Any) -> hlo.Compiled:
    def shaped(x: Any) -> Any:
        kind = np.int32 if np.issubdtype(np.asarray(x).dtype, np.integer) else np.float32
        return jax.ShapeDtypeStruct(np.shape(x), kind)

    args = jax.tree.map(shaped, (case.params, *case.data))
    places = (specs, *(P("data") for _ in case.data))
    # Gradients as an optimizer wants them, sharded as the parameters: on TPU a reduction scatters them.
    chips = Mesh(np.array(hlo.topology("tpu", 4)).reshape(tuple(mesh.values())), tuple(mesh))
    results = jax.tree.map(lambda s: NamedSharding(chips, s), (P("data"), specs))
    return hlo.compiled(f, args, "tpu", mesh=mesh, in_shardings=places, out_shardings=results)


def sent_by(f: Any, case: Case, mesh: dict[str, int], specs: Any) -> Sent:
    return sent(compiled(f, case, mesh, specs).text)


@pytest.mark.parametrize("name", ["mlp", "blocks"])
@pytest.mark.parametrize("way", ["replicated", "fsdp"])
def test_norms_beside_the_gradient_send_nothing_more(name: str, way: str) -> None:
    case = LARGE[name]()
    specs = layout(case, way, 4)
    ours = sent_by(per_example.value_and_grad(case.loss), case, {"data": 4}, specs)
    assert ours == sent_by(plain(case.loss), case, {"data": 4}, specs)
    assert ours


def test_a_loop_over_chunks_sends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of 64 KiB for norm and sum, 4 at a time on each chip; in earnest a chunk is of 32 MiB or more."""
    monkeypatch.setattr(dense, "OTHER_BYTES", 2**18)
    case = two_products(64, 256, 32, 512)
    specs = layout(case, "fsdp", 4)
    ours = compiled(per_example.value_and_grad(case.loss), case, {"data": 4}, specs)
    assert any(loop.trips == 4 for loop in ours.loops)
    assert sent(ours.text) == sent_by(plain(case.loss), case, {"data": 4}, specs)


def test_tensor_parallel_norms_send_numbers_of_examples_more() -> None:
    """Where they are no Gram matrices, which XLA for TPU sums over the devices."""
    case = LARGE["mlp"]()
    mesh = {"data": 2, "model": 2}
    ours, theirs = (
        sent_by(f, case, mesh, case.split) for f in (per_example.value_and_grad(case.loss), plain(case.loss))
    )
    assert not theirs - ours
    assert {kind for kind, _, _ in ours - theirs} == {"all-reduce"}
    rows = len(case.data[0]) // 2
    assert sum(count * size for (_, _, size), count in (ours - theirs).items()) <= 4 * rows * len(case.split)
