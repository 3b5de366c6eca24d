"""A training on the rows of files, in a process of its own: `python -m tests.train.reading FOLDER BATCH EPOCHS`.

It prints, as JSON, the losses and the peak of its memory in bytes.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax

from jaxnn import data, losses, models, optim, train


def trained(source: Any, batch_size: int, epochs: int) -> train.FitResult:
    net, opt = models.mlp([D, 32, 2]), optim.adam(1e-3)
    key = jax.random.key(0)
    return train.fit(net, losses.softmax_cross_entropy, opt, source, key=key, epochs=epochs, batch_size=batch_size,
                     progress=False)  # fmt: skip


D = 4096
"""Numbers in a row."""


def peak() -> int:
    """The largest resident memory of this process. Not `ru_maxrss`, which begins with that of the process before."""
    kilobytes = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes[1]) if kilobytes else 0


if __name__ == "__main__":
    result = trained(data.memmap(sys.argv[1]), *map(int, sys.argv[2:]))
    print(json.dumps({"losses": [record["loss"] for record in result.history], "peak": peak()}))
