"""The loops of a compiled program: how often each runs, where the program itself says so.

XLA notes `known_trip_count` on CPU and GPU. On TPU it does not, so the count is read as a person would: the condition
compares an element of the carried tuple with a constant, the body adds a constant to it, and it starts at a constant.
"""

from __future__ import annotations

import dataclasses
import re

from tests.devices.hlo_text import Computation, Instruction, Module

KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
SAME = ("bitcast", "copy", "convert", "reshape", "copy-start", "copy-done", "opt-barrier")
"""Operations whose result is their first operand, as far as a counter goes."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """A `while`: the JAX operations it comes from, and how often its body runs; None if only the device knows."""

    where: str
    trips: int | None


@dataclasses.dataclass(frozen=True)
class Carried:
    """Element `index` of the tuple that a loop carries."""

    index: int


Value = int | Carried | None


def trip_count(module: Module, where: Computation, loop: Instruction) -> int | None:
    """How often the body of `loop`, an instruction of `where`, runs; None if the text does not say."""
    if known := KNOWN.search(loop.attributes):
        return int(known.group(1))
    condition, body = (module[loop.attribute(name) or ""] for name in ("condition", "body"))
    test = condition.root
    operands: list[Value] = [value_of(module, condition, name) for name in test.operands]
    if test.opcode == "fusion" and test.called in module:
        inner = module[test.called]
        test, operands = inner.root, [value_of(module, inner, name, operands) for name in inner.root.operands]
    if test.opcode != "compare" or len(operands) != 2:
        return None
    return counted(module, where, loop, body, operands, test.attribute("direction") or "")


def counted(
    module: Module, where: Computation, loop: Instruction, body: Computation, operands: list[Value], direction: str
) -> int | None:
    """The trips of a loop whose condition compares two values."""
    counter, bound = operands
    if not isinstance(counter, Carried) or (isinstance(bound, Carried) and step_of(module, body, bound) != 0):
        counter, bound = bound, counter
        direction = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}.get(direction, direction)
    if isinstance(bound, Carried):
        bound = start_of(module, where, loop, bound) if step_of(module, body, bound) == 0 else None
    if not isinstance(counter, Carried) or bound is None:
        return None
    start, step = start_of(module, where, loop, counter), step_of(module, body, counter)
    if start is None or not step:
        return None
    ends = {"LT": bound, "LE": bound + 1, "GT": bound, "GE": bound - 1, "NE": bound}
    if direction not in ends or (direction != "NE" and (direction in ("LT", "LE")) != (step > 0)):
        return None
    distance = ends[direction] - start
    return max(0, -(-distance // step))


def start_of(module: Module, where: Computation, loop: Instruction, element: Carried) -> int | None:
    """The value of an element before the first turn, if it is a constant."""
    value = value_of(module, where, loop.operands[0], index=element.index)
    return value if isinstance(value, int) else None


def step_of(module: Module, body: Computation, element: Carried) -> int | None:
    """What a turn adds to an element, if it is a constant; 0 for one that stays as it is."""
    place: Computation = body
    made = made_by(module, place, body.root.name, element.index)
    if made is None:
        return None
    place, name, given = made
    found = value_of(module, place, name, given)
    if found == element:
        return 0
    last = origin(place, name)
    if last.opcode == "fusion" and last.called in module:
        given = [value_of(module, place, operand, given) for operand in last.operands]
        place, last = module[last.called], module[last.called].root
    if last.opcode not in ("add", "subtract"):
        return None
    left, right = (value_of(module, place, operand, given) for operand in last.operands)
    if last.opcode == "add" and right == element:
        left, right = right, left
    if left != element or not isinstance(right, int):
        return None
    return right if last.opcode == "add" else -right


def made_by(
    module: Module, place: Computation, name: str, index: int
) -> tuple[Computation, str, list[Value] | None] | None:
    """Where element `index` of the tuple `name` is made: through fusions with several results."""
    made = origin(place, name)
    if made.opcode == "tuple" and index < len(made.operands):
        name = made.operands[index]
        part = origin(place, name)
        if part.opcode == "get-tuple-element":
            owner = origin(place, part.operands[0])
            if owner.opcode == "fusion" and owner.called in module:
                inner = module[owner.called]
                given = [value_of(module, place, operand) for operand in owner.operands]
                found = made_by(module, inner, inner.root.name, int(part.attribute("index") or 0))
                return None if found is None else (found[0], found[1], given)
        return place, name, None
    return None


def origin(place: Computation, name: str) -> Instruction:
    """The instruction that made a value, before copies of it."""
    found = place[name]
    while found.opcode in SAME and found.operands and found.operands[0] in place.by_name:
        found = place[found.operands[0]]
    return found


def value_of(
    module: Module, place: Computation, name: str, given: list[Value] | None = None, index: int | None = None
) -> Value:
    """A constant, or an element of the tuple that the computation carries; None for all else.

    `given` are the values of the parameters of a fused computation; `index` asks for an element of a tuple.
    """
    if name not in place.by_name:
        return None
    found = origin(place, name)
    match found.opcode:
        case "constant" if re.fullmatch(r"-?\d+", found.literal):
            return int(found.literal)
        case "parameter" if given is not None:
            number = int(found.literal)
            return given[number] if number < len(given) else None
        case "tuple" if index is not None and index < len(found.operands):
            return value_of(module, place, found.operands[index], given)
        case "get-tuple-element":
            number = int(found.attribute("index") or 0)
            owner = origin(place, found.operands[0])
            if owner.opcode == "parameter":
                return Carried(number) if given is None else None
            if owner.opcode == "while":
                return (
                    value_of(module, place, owner.operands[0], given, number) if stays(module, owner, number) else None
                )
            return value_of(module, place, owner.name, given, number)
        case "fusion" if found.called in module:
            inner = module[found.called]
            values = [value_of(module, place, operand, given) for operand in found.operands]
            return value_of(module, inner, inner.root.name, values, index)
        case "broadcast" if not found.shape.dims:
            return value_of(module, place, found.operands[0], given)
    return None


def stays(module: Module, loop: Instruction, index: int) -> bool:
    """Whether a loop hands an element on as it is."""
    body = module[loop.attribute("body") or ""]
    return step_of(module, body, Carried(index)) == 0
