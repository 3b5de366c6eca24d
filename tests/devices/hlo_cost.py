"""What a compiled program launches, multiplies, moves and sends, loops times their trips; and an estimate of its time.

Bytes are those of a kernel's operands and results: of what a kernel slices, gathers or updates in place, only the part.
On TPU what lies in the on-chip memory is free, and moving it there is no kernel. A loop of unknown trip count counts
once; of the branches of a conditional the dearest does. The estimate is, for each kernel, the launch and the longer of
bytes / bandwidth and FLOPs / rate; vector arithmetic and the time of collectives on the wire are not in it.
"""

from __future__ import annotations

import collections
import dataclasses

from tests.devices import hlo_loops
from tests.devices.hlo_products import Frame, Product, product_of
from tests.devices.hlo_text import Computation, Instruction, Module

FREE = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "partition-id",
        "replica-id",
        "opt-barrier",
        "async-update",
        "add-dependency",
        "domain",
    ]
)
COLLECTIVES = frozenset(
    [
        "all-reduce",
        "all-gather",
        "reduce-scatter",
        "all-to-all",
        "ragged-all-to-all",
        "collective-permute",
        "collective-broadcast",
    ]
)
TRANSFERS = ("copy-start", "slice-start", "dynamic-slice-start")
"""What moves arrays between memories beside the kernels; its shapes are source, destination, and a token."""

FUSIONS = ("fusion", "fusion-start")
"""Of XLA for GPUs, the second runs beside others until its `fusion-done`."""

PARTIAL = ("dynamic-slice", "slice", "gather")
"""Operations that read only a part of their first operand."""

NOT_RUN = ("Sharding", "AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "SPMDFullToShardShape",
           "SPMDShardToFullShape", "annotate_device_placement")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Machine:
    """What can be had of a device in practice: FLOP/s by dtype and precision, bytes/s, seconds of a launch."""

    rates: dict[str, float]
    bandwidth: float
    launch: float
    chip_memory: bool = False
    """Whether memory space 1 is on the chip."""

    def rate(self, product: Product) -> float:
        names = (f"{product.dtype}/{product.precision}", f"{product.dtype}/default", "vector")
        return next(self.rates[name] for name in names if name in self.rates)


H200_BF16, H200_TF32, V5E_BF16 = 790e12 * 0.7, 400e12 * 0.7, 197e12 * 0.8
MACHINES = {
    "cuda": Machine(
        {
            **dict.fromkeys(("bf16/default", "f16/default"), H200_BF16),
            "f32/default": H200_TF32,
            "f32/highest": 60e12 * 0.8,
            "f32/dot_tf32_tf32_f32_x3": H200_TF32 / 3,
            **{f"f32/dot_bf16_bf16_f32_x{n}": H200_BF16 / n for n in (3, 6, 9)},
            "f32/dot_bf16_bf16_f32": H200_BF16,
            "vector": 60e12,
        },
        bandwidth=4.3e12,
        launch=2.5e-6,
    ),
    "tpu": Machine(
        {
            **dict.fromkeys(("bf16/default", "f16/default", "f32/default"), V5E_BF16),
            "f32/high": V5E_BF16 / 3,
            "f32/highest": V5E_BF16 / 6,
            **{f"f32/dot_bf16_bf16_f32_x{n}": V5E_BF16 / n for n in (3, 6, 9)},
            "vector": 4e12,
        },
        bandwidth=0.82e12 * 0.9,
        launch=1e-6,
        chip_memory=True,
    ),
    "cpu": Machine({"vector": 0.2e12}, bandwidth=10e9, launch=1e-6),
}
"""Estimates, of an H200, a TPU v5e and two cores of a CPU."""


@dataclasses.dataclass
class Cost:
    """Sums over all that runs. Counts by name are of kernels, collectives and custom calls, times the loops' trips."""

    kernels: int = 0
    bytes: int = 0
    seconds: float = 0.0
    flops: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    collectives: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    custom_calls: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    half_at_highest: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """FLOPs at HIGHEST whose operands both hold values of bfloat16 or float16, by the JAX operations they come from."""
    half_flops: int = 0
    dearest: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Estimated seconds by kernel."""

    def add(self, other: Cost, times: int = 1) -> None:
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, collections.Counter):
                for name, count in theirs.items():
                    mine[name] += count * times
            else:
                setattr(self, field.name, mine + theirs * times)


def cost(module: Module, platform: str) -> Cost:
    """The cost of a whole program on "cuda", "tpu" or "cpu"."""
    return Walk(module, MACHINES[platform]).of(Frame(module.entry))


class Walk:
    """The sums over a module for one machine."""

    def __init__(self, module: Module, machine: Machine) -> None:
        self.module, self.machine = module, machine

    def of(self, frame: Frame) -> Cost:
        found = Cost()
        for i in frame.computation:
            self.add(found, frame, i)
        return found

    def inside(self, frame: Frame, name: str | None, i: Instruction) -> Cost:
        return self.of(Frame(self.module[name], i, frame)) if name in self.module else Cost()

    def add(self, found: Cost, frame: Frame, i: Instruction) -> None:
        if i.opcode in FREE or i.opcode.endswith("-done") or (i.opcode == "custom-call" and i.target in NOT_RUN):
            return
        if i.opcode == "while":
            trips = hlo_loops.trip_count(self.module, frame.computation, i)
            found.add(self.inside(frame, i.attribute("body"), i), 1 if trips is None else trips)
            if trips is None:
                found.add(self.inside(frame, i.attribute("condition"), i))
        elif i.opcode == "conditional":
            costs = [self.inside_branch(frame, i, n) for n in range(len(i.branches))]
            found.add(max(costs, key=lambda c: c.seconds, default=Cost()))
        elif i.opcode in ("call", "async-start") and i.called in self.module:
            found.add(self.inside(frame, i.called, i))
        elif not self.is_scalar_work(frame.computation, i):
            found.add(self.kernel(frame, i))

    def inside_branch(self, frame: Frame, i: Instruction, number: int) -> Cost:
        """A branch takes the operand after the index as its parameter 0."""
        call = dataclasses.replace(i, operands=i.operands[number + 1 : number + 2])
        return self.inside(frame, i.branches[number], call)

    def is_scalar_work(self, place: Computation, i: Instruction) -> bool:
        """On TPU a counter is added to beside the kernels, not by one."""
        if not self.machine.chip_memory or i.opcode == "custom-call":
            return False
        return not any(s.dims for name in (i.name, *i.operands) for s in place.shapes_of(name))

    def kernel(self, frame: Frame, i: Instruction) -> Cost:
        if i.opcode in TRANSFERS:
            size = self.traffic(frame.computation, i)
            return Cost(bytes=size, seconds=size / self.machine.bandwidth)
        found = Cost(kernels=1)
        kind = i.opcode.removesuffix("-start")
        if i.opcode == "custom-call":
            found.custom_calls[i.target] += 1
        products = self.products(frame, i)
        for inner in self.fused(i):
            if inner.opcode.removesuffix("-start") in COLLECTIVES:
                kind = inner.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            found.collectives[kind] += 1
        seconds = 0.0
        for product in products:
            found.flops[f"{product.dtype}/{product.precision}"] += product.flops
            seconds += product.flops / self.machine.rate(product)
            if product.half:
                found.half_flops += product.flops
                if product.precision == "highest":
                    found.half_at_highest[product.where or i.where or i.name] += product.flops
        found.bytes = self.traffic(frame.computation, i)
        found.seconds = self.machine.launch + max(found.bytes / self.machine.bandwidth, seconds)
        found.dearest[f"{i.name}: {i.where}"] += found.seconds
        return found

    def fused(self, i: Instruction) -> list[Instruction]:
        """All instructions of a fusion, and of those within it."""
        if i.opcode not in FUSIONS or i.called not in self.module:
            return []
        own = list(self.module[i.called])
        return own + [inner for part in own for inner in self.fused(part)]

    def products(self, frame: Frame, i: Instruction) -> list[Product]:
        if i.opcode in (*FUSIONS, "call") and i.called in self.module:
            inner = Frame(self.module[i.called], i, frame)
            return [product for part in inner.computation for product in self.products(inner, part)]
        product = product_of(self.module, frame, i)
        return [] if product is None else [product]

    def traffic(self, place: Computation, i: Instruction) -> int:
        """The bytes that a kernel reads and writes in the device's main memory."""
        if i.opcode in TRANSFERS:
            return i.shapes[1].bytes
        if i.opcode in FUSIONS and i.called in self.module:
            inner = self.module[i.called]
            read = [min(self.size(place, name), self.read(inner, n)) for n, name in enumerate(i.operands)]
            return sum(read) + self.written(place, i, inner)
        read = [self.size(place, name) for name in dict.fromkeys(i.operands)]
        if i.opcode in PARTIAL and i.operands:
            read[0] = min(read[0], self.size(place, i.name))
        if i.opcode == "dynamic-update-slice":
            return 2 * self.size(place, i.operands[1])
        return sum(read) + self.size(place, i.name)

    def size(self, place: Computation, name: str) -> int:
        on_chip = 1 if self.machine.chip_memory else None
        return sum(s.bytes for s in place.shapes_of(name) if s.space != on_chip)

    def read(self, inner: Computation, number: int) -> int:
        """The bytes that a fusion reads of its parameter: the slices, if that is all it takes of it."""
        parameter = inner.parameters.get(number)
        if parameter is None:
            return 0
        total, names = 0, [parameter.name]
        for name in names:
            for user in inner.users.get(name, []):
                if user.opcode == "bitcast":
                    names.append(user.name)
                elif user.opcode in PARTIAL and name not in user.operands[1:]:
                    total += sum(s.bytes for s in user.shapes)
                elif user.opcode == "dynamic-update-slice" and name not in user.operands[1:]:
                    continue
                elif user.opcode == "fusion" and user.called in self.module:
                    total += sum(
                        self.read(self.module[user.called], n) for n, o in enumerate(user.operands) if o == name
                    )
                else:
                    return sum(s.bytes for s in parameter.shapes)
        return total

    def written(self, place: Computation, i: Instruction, inner: Computation) -> int:
        """The bytes that a fusion writes: of an array that it updates in place, the part."""
        parts = inner.root.operands if inner.root.opcode == "tuple" else (inner.root.name,)
        outside = place.shapes_of(i.name)
        if i.opcode == "fusion-start":  # the shapes of its operands, of its results, and of a token
            outside = outside[sum(len(place.shapes_of(name)) for name in i.operands) :]
        total = 0
        for name, shape in zip(parts, outside, strict=False):
            made = inner[name]
            while made.opcode == "bitcast" and made.operands[0] in inner.by_name:
                made = inner[made.operands[0]]
            if self.machine.chip_memory and shape.space == 1:
                continue
            if made.opcode == "dynamic-update-slice":
                total += sum(s.bytes for s in inner.shapes_of(made.operands[1]))
            else:
                total += shape.bytes
        return total
