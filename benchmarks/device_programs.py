"""All programs that are compiled for an H200 and a TPU v5e, by name.

`benchmarks/devices.py` makes a table of them; those that are `quick` are also held to what is exact by
`tests/devices/test_compiled.py`. More are added where they belong: device_networks.py, device_streams.py,
device_training.py, or a new module that is imported here.
"""

from __future__ import annotations

from benchmarks import device_networks, device_streams, device_training, device_transformers
from benchmarks.device_registry import PROGRAMS, Case, Program, program, with_rivals

__all__ = [
    "PROGRAMS", "Case", "Program", "device_networks", "device_streams", "device_training", "device_transformers",
    "program", "with_rivals",
]  # fmt: skip
