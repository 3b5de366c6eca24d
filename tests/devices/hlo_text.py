"""The text of a compiled XLA program as Python objects: computations, instructions, shapes.

`parse(compiled.as_text())` reads what XLA prints for CPU, GPU and TPU alike. Nothing here knows what an instruction
does or costs (`hlo_products.py`, `hlo_loops.py`, `hlo_cost.py`); only how its line is written.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BITS = {
    **dict.fromkeys(("s4", "u4", "f4e2m1fn"), 4),
    **dict.fromkeys(("pred", "s8", "u8", "f8e3m4", "f8e4m3", "f8e4m3fn", "f8e4m3fnuz", "f8e4m3b11fnuz"), 8),
    **dict.fromkeys(("f8e5m2", "f8e5m2fnuz", "f8e8m0fnu"), 8),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 16),
    **dict.fromkeys(("s32", "u32", "f32"), 32),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 64),
    "c128": 128,
    "token": 0,
}  # fmt: skip
"""The bits of one element of each dtype, by XLA's name of it."""

SHAPE = re.compile(rf"\b({'|'.join(sorted(BITS, key=len, reverse=True))})\[([0-9,<=]*)\](\{{[^}}]*\}})?")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
COMMENT = re.compile(r"/\*.*?\*/")
OPERAND = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: its dtype by XLA's name, its dimensions, and the memory it lies in (0 is the device's main memory)."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        return (self.size * BITS[self.dtype] + 7) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `name = shapes opcode(operands), attributes`. A tuple has the shapes of all its arrays, in order."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    """What stands between the parentheses: the value of a constant, the number of a parameter."""
    attributes: str
    is_root: bool = False

    @property
    def shape(self) -> Shape:
        return self.shapes[0]

    @functools.cached_property
    def target(self) -> str:
        """The name of what a custom call calls."""
        found = re.search(r'custom_call_target="([^"]+)"', self.attributes)
        return found.group(1) if found else ""

    @functools.cached_property
    def where(self) -> str:
        """The JAX operations that it comes from, as `jit(f)/transpose(jvp())/dot_general`; "" where XLA forgot them."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def attribute(self, name: str) -> str | None:
        """The word after `name=`."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """The list after `name=`, as in `lhs_contracting_dims={0,1}`; () if there is none."""
        found = re.search(rf"\b{name}=\{{([0-9,]*)\}}", self.attributes)
        return tuple(int(n) for n in found.group(1).split(",") if n) if found else ()

    @functools.cached_property
    def called(self) -> str | None:
        """The computation that a fusion, a call or an asynchronous instruction runs."""
        return self.attribute("calls") or (self.attribute("to_apply") if self.opcode == "call" else None)

    @functools.cached_property
    def branches(self) -> tuple[str, ...]:
        """The computations that a conditional chooses from."""
        several = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if several:
            return tuple(OPERAND.findall(several.group(1)))
        two = (self.attribute("true_computation"), self.attribute("false_computation"))
        return tuple(name for name in two if name)


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions in the order in which they run; the root is its result."""

    name: str
    instructions: tuple[Instruction, ...]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def __getitem__(self, name: str) -> Instruction:
        return self.by_name[name]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {i.name: i for i in self}

    @functools.cached_property
    def root(self) -> Instruction:
        return next((i for i in self if i.is_root), self.instructions[-1])

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(i.literal): i for i in self if i.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that take the result of each."""
        found: dict[str, list[Instruction]] = {}
        for i in self:
            for operand in dict.fromkeys(i.operands):
                found.setdefault(operand, []).append(i)
        return found

    def shapes_of(self, operand: str) -> tuple[Shape, ...]:
        return self.by_name[operand].shapes if operand in self.by_name else ()


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program."""

    computations: dict[str, Computation]
    entry: Computation

    def __getitem__(self, name: str) -> Computation:
        return self.computations[name]

    def __contains__(self, name: str | None) -> bool:
        return name in self.computations

    def instructions(self) -> Iterator[Instruction]:
        for computation in self.computations.values():
            yield from computation


def parse(text: str) -> Module:
    """The program of `compiled.as_text()`.

    Raises:
        ValueError: the text has no entry computation.
    """
    found: dict[str, list[Instruction]] = {}
    current, entry = None, None
    for line in text.splitlines():
        if current is None:
            if head := COMPUTATION.match(line):
                current = head.group(2)
                found[current] = []
                entry = current if head.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif instruction := instruction_of(line):
            found[current].append(instruction)
    if entry is None:
        raise ValueError("this is not the text of a compiled program: got no line `ENTRY name (...) -> ... {`")
    computations = {name: Computation(name, tuple(lines)) for name, lines in found.items() if lines}
    return Module(computations, computations[entry])


def instruction_of(line: str) -> Instruction | None:
    found = INSTRUCTION.match(line)
    if found is None:
        return None
    is_root, name, rest = found.groups()
    rest = COMMENT.sub("", rest)
    if rest.startswith("("):
        end = closing(rest, 0)
        shapes, rest = rest[: end + 1], rest[end + 1 :].lstrip()
    else:
        shapes, _, rest = rest.partition(" ")
    opcode, _, _ = rest.partition("(")
    end = closing(rest, len(opcode))
    literal = rest[len(opcode) + 1 : end]
    return Instruction(
        name=name,
        opcode=opcode,
        shapes=shapes_in(shapes),
        operands=tuple(OPERAND.findall(literal)),
        literal=literal,
        attributes=rest[end + 1 :],
        is_root=bool(is_root),
    )


def closing(text: str, opening: int) -> int:
    """The place of the parenthesis that closes the one at `opening`."""
    depth = 0
    for place in range(opening, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text)


@functools.lru_cache(maxsize=65536)
def shapes_in(text: str) -> tuple[Shape, ...]:
    """All arrays of a type, tuples flattened: `(f32[2,3]{1,0:T(8,128)S(1)}, s32[])`."""
    found = []
    for dtype, dims, layout in SHAPE.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        sizes = tuple(int(d.lstrip("<=")) for d in dims.split(",") if d)
        found.append(Shape(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(found)
