"""One of several processes that train together: `python -m tests.devices.processes.worker TASKS ADDRESS N I FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import jax

if __name__ == "__main__":
    names, address, count, index, folder = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 8 // int(count))
    jax.config.update("jax_enable_x64", True)
    if int(count) > 1:
        jax.distributed.initialize(address, int(count), int(index))
    from tests.devices.processes import tasks

    for name in names.split(","):
        tasks.TASKS[name](Path(folder))
