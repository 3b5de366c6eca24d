"""The matrix products and convolutions of a compiled program: their FLOPs, their precision, what their operands hold.

A product is a `dot`, a `convolution` (on TPU every product is one), or a call of cuBLAS or cuDNN. Multiplications with
padding or with the holes of a dilation are not counted, as in XLA's own analysis.
"""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

from tests.devices.hlo_text import Computation, Instruction, Module, Shape

HALF = ("bf16", "f16")
LEVELS = ("default", "high", "highest")
UNCHANGED = frozenset(
    ["convert", "bitcast", "reshape", "transpose", "copy", "copy-start", "copy-done", "broadcast", "slice", "gather",
     "dynamic-slice", "reverse", "pad", "reduce-precision", "all-gather", "collective-permute", "opt-barrier"]
)  # fmt: skip
"""Operations that hand on the values of their first operand, or zeros: what was rounded to bfloat16 still is."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A computation as it is called from an instruction of another frame."""

    computation: Computation
    call: Instruction | None = None
    caller: Frame | None = None


@dataclasses.dataclass(frozen=True)
class Product:
    """One product: its dtype is the wider of its operands'; `half` if both hold values of bfloat16 or float16."""

    where: str
    dtype: str
    precision: str
    half: bool
    flops: int


def product_of(module: Module, frame: Frame, i: Instruction) -> Product | None:
    """What instruction `i` multiplies; None if it is no product, or one in a format that is not known here."""
    place = frame.computation
    first, second = (place.shapes_of(name)[:1] for name in (*i.operands, "", "")[:2])
    if not first or not second or not i.shapes:
        return None
    flops = flops_of(i, first[0], second[0], i.shape)
    if flops is None:
        return None
    dtype = max((first[0], second[0]), key=lambda s: Shape(s.dtype, (8,)).bytes).dtype
    held = {held_by(module, frame, name) for name in i.operands[:2]}
    return Product(i.where, dtype, precision_of(i), held <= set(HALF), flops)


def flops_of(i: Instruction, first: Shape, second: Shape, out: Shape) -> int | None:
    match i.opcode:
        case "dot":
            return 2 * out.size * math.prod(first.dims[d] for d in i.numbers("lhs_contracting_dims"))
        case "convolution":
            return convolution_flops(i, first, second, out)
        case "custom-call" if "gemm" in i.target or "matmul" in i.target:
            found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.attributes)
            dims = [int(n) for n in re.findall(r"\d+", found.group(1))] if found else [len(first.dims) - 1]
            return 2 * out.size * math.prod(first.dims[d] for d in dims)
        # cuDNN's calls all describe the forward convolution: of an image and a kernel, to an output.
        case "custom-call" if "convBackwardFilter" in i.target:
            return convolution_flops(i, first, out, second)
        case "custom-call" if "convBackwardInput" in i.target:
            return convolution_flops(i, out, second, first)
        case "custom-call" if "__cudnn$conv" in i.target:
            return convolution_flops(i, first, second, out)
    return None


def convolution_flops(i: Instruction, image: Shape, kernel: Shape, out: Shape) -> int | None:
    """2 x images x channels in x channels out x, for each axis, the pairs (output, tap of the kernel) on a value."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    if labels is None:
        return None
    in_image, in_kernel, in_out = labels.groups()
    flops = 2 * out.dims[in_out.index("b")] * out.dims[in_out.index("f")] * kernel.dims[in_kernel.index("i")]
    axes = sorted(label for label in in_image if label.isdigit())
    window = window_of(i, len(axes))
    for axis, label in enumerate(axes):
        sizes = (image.dims[in_image.index(label)], kernel.dims[in_kernel.index(label)], out.dims[in_out.index(label)])
        flops *= pairs(*sizes, **{name: values[axis] for name, values in window.items()})
    return flops


def window_of(i: Instruction, axes: int) -> dict[str, list[int]]:
    """The stride, the padding before, and the dilations of each axis."""
    found = re.search(r"window=\{([^}]*)\}", i.attributes)
    words = dict(word.split("=", 1) for word in found.group(1).split()) if found else {}

    def values(name: str, default: int) -> list[int]:
        return [int(v.split("_")[0]) for v in words[name].split("x")] if name in words else [default] * axes

    return {
        "stride": values("stride", 1),
        "before": values("pad", 0),
        "image_dilation": values("lhs_dilate", 1),
        "kernel_dilation": values("rhs_dilate", 1),
    }


def pairs(
    image: int, kernel: int, out: int, *, stride: int, before: int, image_dilation: int, kernel_dilation: int
) -> int:
    """The pairs (output, tap) along one axis whose place in the image holds a value, neither padding nor a hole."""
    place = np.arange(out)[:, None] * stride + np.arange(kernel)[None, :] * kernel_dilation - before
    return int(np.sum((place >= 0) & (place % image_dilation == 0) & (place // image_dilation < image)))


def precision_of(i: Instruction) -> str:
    """`default`, `high`, `highest`, or the name of the algorithm that was asked for."""
    if algorithm := i.attribute("algorithm"):
        return algorithm
    found = re.search(r'"?operand_precision"?[=:][{\[]([^}\]]*)[}\]]', i.attributes)
    asked = found.group(1).lower() if found else ""
    levels = [word.strip('" ') for word in asked.split(",")]
    return max((level for level in levels if level in LEVELS), key=LEVELS.index, default="default")


def held_by(module: Module, frame: Frame, name: str) -> str:
    """The narrowest dtype that held the values of an operand on their way: bf16 where f32 was converted from bf16."""
    place: Frame | None = frame
    index: int | None = None
    while place is not None and name in place.computation.by_name:
        i = place.computation[name]
        if len(i.shapes) == 1 and i.shape.dtype in HALF:
            return i.shape.dtype
        if i.opcode in UNCHANGED and i.operands:
            name, index = i.operands[0], None
        elif i.opcode == "get-tuple-element":
            name, index = i.operands[0], int(i.attribute("index") or 0)
        elif i.opcode == "tuple" and index is not None:
            name, index = i.operands[index], None
        elif i.opcode in ("fusion", "call") and i.called in module:
            place = Frame(module[i.called], i, place)
            name = place.computation.root.name
        elif i.opcode == "while" and index is not None and constant_element(module, i, index):
            name = i.operands[0]
        elif i.opcode == "parameter" and place.call is not None:
            call = place.call
            if call.opcode == "while":
                if index is None or not constant_element(module, call, index):
                    break
                name = call.operands[0]
            else:
                name = call.operands[int(i.literal)]
            place = place.caller
        else:
            break
    return "f32" if place is None or name not in place.computation.by_name else place.computation[name].shapes[0].dtype


def constant_element(module: Module, loop: Instruction, index: int) -> bool:
    """Whether a loop hands element `index` of what it carries on as it is."""
    body = module[loop.attribute("body") or ""]
    root = body.root
    if root.opcode != "tuple" or index >= len(root.operands):
        return False
    made = body.by_name.get(root.operands[index])
    if made is None or made.opcode != "get-tuple-element" or int(made.attribute("index") or 0) != index:
        return False
    return body[made.operands[0]].opcode == "parameter"
