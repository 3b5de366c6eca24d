"""One of several processes that train together: `python -m tests.devices.processes.worker TASKS ADDRESS N I FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import jax

TASK, ADDRESS, COUNT, INDEX, FOLDER = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8 // COUNT)
    jax.config.update("jax_enable_x64", True)
    if COUNT > 1:
        jax.distributed.initialize(ADDRESS, COUNT, INDEX)
    from tests.devices.processes import tasks

    for task in TASK.split(","):
        tasks.TASKS[task](FOLDER)
