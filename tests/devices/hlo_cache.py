"""Reports of compiled programs, kept in `.cache/devices/` by program, target and compilers.

A program is its jaxpr with the shapes and dtypes of its arguments, so a change of the code that leaves the jaxpr as it
was compiles nothing again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxnn import files
from tests.devices import hlo, hlo_loops

FOLDER = Path(__file__).parent.parent.parent / ".cache" / "devices"
ADDRESS = re.compile(r"0x[0-9a-f]+")
COMPILERS = {"cuda": ("jax", "jaxlib", "jax-cuda13-pjrt"), "tpu": ("jax", "jaxlib", "libtpu")}


def compiled(f: Callable[..., Any], args: Any, platform: str, *, folder: Path = FOLDER, **options: Any) -> hlo.Compiled:
    """As `hlo.compiled`, without the text; a report that is in the folder is read from there.

    Raises:
        RuntimeError: the compiler for the platform is not installed; the message says how to.
    """
    if (why := hlo.unavailable(platform)) is not None:
        raise RuntimeError(why)
    hlo.prepare()
    path = folder / f"{key_of(f, args, platform, options)}.json"
    if path.exists():
        return from_json(json.loads(path.read_text()))
    found = dataclasses.replace(hlo.compiled(f, args, platform, **options), text="")
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(path, to_json(found), indent=1)
    return found


def key_of(f: Callable[..., Any], args: Any, platform: str, options: dict[str, Any]) -> str:
    """A hash of all that a report depends on; addresses of objects in the text of a jaxpr do not count."""
    shaped = hlo.traceable(args)
    program = ADDRESS.sub("", str(jax.make_jaxpr(f)(*shaped)))
    words = [
        program,
        str(jax.tree.structure(shaped)),
        platform,
        str(sorted(options.items(), key=str)),
        *about(platform),
    ]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


@functools.cache
def about(platform: str) -> tuple[str, ...]:
    """The compilers' versions, the device, and the code that reads what they print."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in COMPILERS[platform]]
    readers = [Path(__file__).with_name(f"hlo_{name}.py") for name in ("text", "products", "loops", "cost")]
    return (*versions, hlo.H200.read_text(), *(path.read_text() for path in readers))


def to_json(report: hlo.Compiled) -> dict[str, Any]:
    return dataclasses.asdict(report) | {"dtypes": sorted(report.dtypes)}


def from_json(found: dict[str, Any]) -> hlo.Compiled:
    return hlo.Compiled(
        **found
        | {
            "loops": tuple(hlo_loops.Loop(**loop) for loop in found["loops"]),
            "callbacks": tuple(found["callbacks"]),
            "dtypes": frozenset(found["dtypes"]),
            "dearest": tuple((name, seconds) for name, seconds in found["dearest"]),
        }
    )
