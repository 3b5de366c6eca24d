"""A network trained on all devices of all processes: parameters and batches split over them, saved, stopped, resumed.

On one machine, with all its devices: python examples/multihost.py

On several, by Slurm (JAX finds the processes by Slurm, Kubernetes and Open MPI): sbatch multihost.sh, which is

    #!/bin/bash
    #SBATCH --nodes=2 --ntasks-per-node=8 --gres=gpu:8 --time=4:00:00
    #SBATCH --requeue --open-mode=append --signal=TERM@120
    srun python examples/multihost.py --cluster --folder /shared/runs/a
    code=$?  # 143: SIGTERM came, two minutes before the time ends or on preemption, and the run is saved
    if [ $code -eq 143 ]; then scontrol requeue $SLURM_JOB_ID; fi
    exit $code

one process for each GPU; the folder must be one that all nodes share. Slurm starts the script again, and the run goes
on. To try it on a CPU, in two terminals, with --index 0 and --index 1 (NPROC: XLA needs a thread for each device and
each sum that the devices may wait for, more than small machines have):

    NPROC=32 python examples/multihost.py --coordinator localhost:9876 --processes 2 --index 0 --cpu-devices 4

`kill PID` of either stops both after a save, with exit code 143; the same commands go on. Checkpoints are
those of orbax, since each process writes its part of the parameters: pip install 'jaxnn[orbax]'. Another number of
processes may go on.
"""

import argparse
import sys

import jax
import numpy as np

from jaxnn import losses, models, optim, train

INPUTS, CLASSES, BATCH, STEPS = 64, 8, 512, 50
TEACHER = np.random.default_rng(0).standard_normal((INPUTS, CLASSES)).astype(np.float32)


def batches(position: train.Position) -> tuple[np.ndarray, np.ndarray]:
    """This process's rows of a batch: a pure function of its position, so that a run goes on where it was.

    Rows in .npy files are easier: pass `data.memmap(folder)` instead, and each process reads what its devices need.
    """
    rng = np.random.default_rng((position.seed, position.epoch, position.step))
    x = rng.standard_normal((BATCH, INPUTS), np.float32)
    mine = np.array_split(x, jax.process_count())[jax.process_index()]
    return mine, np.argmax(mine @ TEACHER, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="runs/multihost", help="shared by the processes")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--save-every", type=float, default=600.0, help="seconds")
    parser.add_argument("--cluster", action="store_true", help="let JAX find the processes")
    parser.add_argument("--coordinator", help="or name them: host:port of the first")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--index", type=int)
    parser.add_argument("--cpu-devices", type=int, help="of this process, instead of its accelerators")
    words = parser.parse_args()

    if words.cpu_devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", words.cpu_devices)
    if words.cluster:
        jax.distributed.initialize()
    elif words.coordinator:
        jax.distributed.initialize(words.coordinator, words.processes, words.index)

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    net, opt = models.mlp([INPUTS, 512, 512, CLASSES]), optim.adamw(1e-3)
    # All processes make the same parameters, and each keeps what its devices hold of them.
    start = train.shard_params(train.init(net, opt, jax.random.key(1), (INPUTS,)), mesh)
    result = train.fit(
        net,
        losses.softmax_cross_entropy,
        opt,
        batches,
        key=jax.random.key(0),
        epochs=words.epochs,
        batch_size=BATCH,
        steps_per_epoch=STEPS,
        start=start,
        mesh=mesh,
        folder=train.OrbaxCheckpoints(words.folder),
        save_every=words.save_every,
        progress=jax.process_index() == 0,
    )
    if jax.process_index() == 0:
        w = result.params[1]["w"]
        print(f"{jax.process_count()} processes, {jax.device_count()} devices, w {w.shape} split by {w.sharding.spec}")
        print(f"epoch {len(result.history)}: loss {result.history[-1]['loss']:.4f}" if result.history else "no epoch")
    if result.stopped:
        sys.exit(143)  # 128 + SIGTERM: saved, to be started again


if __name__ == "__main__":
    main()
