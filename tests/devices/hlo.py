"""Compiling a function for an NVIDIA H200 or a TPU v5e on a machine that has neither, and reading what became of it.

    from tests.devices import hlo

    report = hlo.compiled(f, args, "cuda")          # or "tpu"; args are arrays or jax.ShapeDtypeStruct
    print(report)                                   # memory, kernels, FLOPs, bytes, loops, the dearest kernels
    report.temp_bytes, report.kernels, report.flops["bf16/default"], report.seconds, report.text
    hlo.compiled(f, args, "tpu", mesh={"data": 4}, in_shardings=(P(), P("data"))).collectives
    hlo.read(jax.jit(f).lower(*args).compile().as_text(), "cpu")      # a program compiled for any platform

It needs the compilers, which `pip install -e '.[devices]'` brings: Linux, Python 3.12, 1.9 GB, into a venv of its own.
No driver, no `nvidia-*` package and no device is needed. `unavailable()` says what is missing.

Exact, since the compiler has decided it: memory, kernels, precision of products, dtypes, collectives, loops. An
estimate: time, which is bytes / bandwidth or FLOPs / peak of each kernel and its launch (`hlo_cost.py`); without a
device the compiler cannot try out variants of a kernel, so a real one may choose others.

What to know of the compilers: the CUDA plugin prints a traceback unless JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1; a second
process with libtpu aborts on a lock file unless ALLOW_MULTIPLE_LIBTPU_LOAD=1; there is no `cost_analysis()` for CUDA.
`prepare()` sees to that; call it, or the first `compiled`, before JAX makes its first array.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.devices import hlo_cost, hlo_loops, hlo_text

os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")

import jax
import numpy as np

TARGETS = ("cuda", "tpu")
H200 = Path(__file__).with_name("h200.txtpb")
PLUGINS = {"cuda": "jax_plugins.xla_cuda13", "tpu": "libtpu"}
TPU_TOPOLOGY = "v5e:2x2"
TPU_SETTINGS = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
"""So that libtpu neither asks the network what machine this is, nor minds another process that has loaded it."""
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Program:
    """What the text of a compiled program says. Counts, bytes and FLOPs are of one run, loops times their trips."""

    platform: str
    kernels: int
    flops: dict[str, int]
    """By dtype and precision, as "bf16/default": the dtype is the one that is multiplied."""
    half_flops: int
    """Of these, products whose operands both hold values of bfloat16 or float16, though they may be widened."""
    half_at_highest: dict[str, int]
    """Of these, those at HIGHEST, by the JAX operations that they come from."""
    bytes: int
    seconds: float
    """An estimate."""
    collectives: dict[str, int]
    loops: tuple[hlo_loops.Loop, ...]
    callbacks: tuple[str, ...]
    """What asks the host for something."""
    dtypes: frozenset[str]
    custom_calls: dict[str, int]
    dearest: tuple[tuple[str, float], ...]
    """The kernels that take longest by the estimate, in seconds."""

    @property
    def all_flops(self) -> int:
        return sum(self.flops.values())

    @property
    def unknown_loops(self) -> tuple[str, ...]:
        """Where loops come from whose number of turns only the device knows."""
        return tuple(loop.where for loop in self.loops if loop.trips is None)

    @property
    def has_float64(self) -> bool:
        return bool(self.dtypes & {"f64", "c128"})

    def lines(self) -> list[str]:
        flops = ", ".join(f"{count / 1e9:.3g} G {kind}" for kind, count in sorted(self.flops.items()))
        loops = ", ".join(f"{loop.trips if loop.trips is not None else '?'}x {loop.where}" for loop in self.loops)
        found = [
            f"{self.platform}: {self.kernels} kernels, {self.bytes / 1e9:.3g} GB moved, "
            f"estimated {self.seconds * 1e6:.4g} us",
            f"  FLOPs: {flops or 'none'}",
            f"  loops: {loops or 'none'}",
        ]
        for name in ("collectives", "callbacks", "custom_calls", "half_at_highest"):
            if value := getattr(self, name):
                found.append(f"  {name.replace('_', ' ')}: {value}")
        if self.has_float64:
            found.append("  float64!")
        return found + [f"  {seconds * 1e6:9.1f} us  {name[:110]}" for name, seconds in self.dearest]


@dataclasses.dataclass(frozen=True)
class Compiled(Program):
    """A program, the memory that the compiler planned for it (in bytes, of one device), and the time it took."""

    argument_bytes: int = 0
    output_bytes: int = 0
    temp_bytes: int = 0
    alias_bytes: int = 0
    compile_seconds: float = 0.0
    xla_flops: float | None = None
    """As XLA's own analysis counts them, vector arithmetic too, loops once; None for CUDA, which has no analysis."""
    text: str = dataclasses.field(default="", repr=False)

    def __str__(self) -> str:
        memory = {"arguments": self.argument_bytes, "output": self.output_bytes, "temporaries": self.temp_bytes}
        words = ", ".join(f"{name} {size / MIB:.4g} MiB" for name, size in memory.items())
        return "\n".join([*self.lines(), f"  {words}; compiled in {self.compile_seconds:.1f} s"])


def read(text: str, platform: str) -> Program:
    """What a compiled program does, from `compiled.as_text()`; platform "cpu", "cuda" or "tpu"."""
    return Program(**facts(text, platform))


def facts(text: str, platform: str) -> dict[str, Any]:
    module = hlo_text.parse(text)
    cost = hlo_cost.cost(module, platform)
    return {
        "platform": platform,
        "kernels": cost.kernels,
        "flops": dict(cost.flops),
        "half_flops": cost.half_flops,
        "half_at_highest": dict(cost.half_at_highest),
        "bytes": cost.bytes,
        "seconds": cost.seconds,
        "collectives": dict(cost.collectives),
        "loops": loops_of(module),
        "callbacks": callbacks_of(module),
        "dtypes": frozenset(shape.dtype for i in module.instructions() for shape in i.shapes),
        "custom_calls": dict(cost.custom_calls),
        "dearest": tuple(cost.dearest.most_common(8)),
    }


def loops_of(module: hlo_text.Module) -> tuple[hlo_loops.Loop, ...]:
    return tuple(
        hlo_loops.Loop(i.where, hlo_loops.trip_count(module, computation, i))
        for computation in module.computations.values()
        for i in computation
        if i.opcode == "while"
    )


def callbacks_of(module: hlo_text.Module) -> tuple[str, ...]:
    found = []
    for i in module.instructions():
        if i.opcode in ("infeed", "outfeed") or (
            i.opcode in ("send", "recv") and "is_host_transfer=true" in i.attributes
        ):
            found.append(i.opcode)
        elif "callback" in i.target:
            found.append(i.target)
    return tuple(found)


def unavailable(platform: str | None = None) -> str | None:
    """Why nothing can be compiled for a platform, or for both; None if it can."""
    for name in TARGETS if platform is None else (platform,):
        try:
            there = importlib.util.find_spec(PLUGINS[name])
        except ModuleNotFoundError:
            there = None
        if there is None:
            return f"no compiler for {name} here ({PLUGINS[name]}): pip install -e '.[devices]', on Python 3.12"
    return None


def compiled(
    f: Callable[..., Any],
    args: Any,
    platform: str,
    *,
    mesh: Mapping[str, int] | None = None,
    in_shardings: Any = None,
    **options: Any,
) -> Compiled:
    """The report of `jax.jit(f, **options)` compiled for "cuda" (one H200) or "tpu" (one chip of a v5e).

    Args:
        args: positional arguments, arrays or `jax.ShapeDtypeStruct`s in pytrees; their values are not looked at.
        mesh: axis names and sizes, of 4 devices in all; the arguments are then laid out by `in_shardings`, a
            `PartitionSpec` for each argument or a pytree of them.
        options: of `jax.jit`, as `donate_argnums`, `out_shardings`.

    Raises:
        RuntimeError: the compiler for the platform is not installed; the message says how to.
    """
    if (why := unavailable(platform)) is not None:
        raise RuntimeError(why)
    prepare()
    lowered = lower(f, args, platform, mesh=mesh, in_shardings=in_shardings, **options)
    began = time.perf_counter()
    done = lowered.compile()
    took = time.perf_counter() - began
    text, memory = done.as_text(), done.memory_analysis()
    analysis = done.cost_analysis()
    return Compiled(
        **facts(text, platform),
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temp_bytes=memory.temp_size_in_bytes,
        alias_bytes=memory.alias_size_in_bytes,
        compile_seconds=took,
        xla_flops=analysis.get("flops") if analysis else None,
        text=text,
    )


def lower(
    f: Callable[..., Any],
    args: Any,
    platform: str,
    *,
    mesh: Mapping[str, int] | None = None,
    in_shardings: Any = None,
    **options: Any,
) -> Any:
    """`jax.jit(f).lower(*args)` for the devices of another platform."""
    from jax.sharding import (
        AbstractDevice,
        AbstractMesh,
        AxisType,
        Mesh,
        NamedSharding,
        PartitionSpec,
        SingleDeviceSharding,
    )

    args = traceable(args)
    kind, cores, name = {"cuda": ("NVIDIA H200", 132, "gpu"), "tpu": ("TPU v5e", 1, "tpu")}[platform]
    sizes = tuple((mesh or {}).values())
    devices = topology(platform, math.prod(sizes))
    device = AbstractDevice(device_kind=kind, num_cores=cores, platform=name)
    abstract = AbstractMesh(sizes, tuple(mesh or ()), (AxisType.Auto,) * len(sizes), abstract_device=device)
    if mesh is None:
        place: Any = SingleDeviceSharding(devices[0])
        shardings = jax.tree.map(lambda _: place, args)
    else:
        real = Mesh(np.array(devices[: math.prod(sizes)]).reshape(sizes), tuple(mesh))
        specs = PartitionSpec() if in_shardings is None else in_shardings
        named = jax.tree.map(lambda s: NamedSharding(real, s), specs, is_leaf=lambda s: isinstance(s, PartitionSpec))
        shardings = jax.tree.broadcast(named, args, is_leaf=lambda s: isinstance(s, NamedSharding))
    shaped = jax.tree.map(placed, args, shardings)
    with jax.sharding.use_abstract_mesh(abstract):
        return jax.jit(f, **options).trace(*shaped).lower(lowering_platforms=(platform,))


def traceable(args: Any) -> Any:
    """The shapes and dtypes of arguments."""
    return jax.eval_shape(lambda x: x, args)


def placed(leaf: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type)


def prepare() -> None:
    """Keep JAX and libtpu from looking for devices that are not here; before JAX makes its first array."""
    for name, value in TPU_SETTINGS.items():
        os.environ.setdefault(name, value)
    if jax.config.jax_platforms is None:
        jax.config.update("jax_platforms", "cpu")


@functools.cache
def topology(platform: str, count: int = 1) -> tuple[Any, ...]:
    """Devices that are not here."""
    prepare()
    from jax.experimental import topologies

    if platform == "tpu":
        return tuple(topologies.get_topology_desc(platform="tpu", topology_name=TPU_TOPOLOGY).devices)
    options = {"target_config": H200.read_text(), "topology": f"1x1x{count}"}
    return tuple(topologies.get_topology_desc(platform="cuda", **options).devices)
