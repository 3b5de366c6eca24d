"""`jaxnn compare race`: optimizers against each other, by DeepOBS' protocol, with a report."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import rich.table
import tyro

from jaxnn.cli.runs import wide_console
from jaxnn.compare import report
from jaxnn.compare.problems import PROBLEMS
from jaxnn.compare.race import RATES
from jaxnn.compare.race import race as run
from jaxnn.compare.result import Race, shown
from jaxnn.landscapes import LANDSCAPES

PROBLEMS_HELP = f"Problems, with commas between them, of: {', '.join(PROBLEMS)}."
LANDSCAPES_HELP = f"Where the optimizers' ways are drawn, of: {', '.join(LANDSCAPES)}; an empty text for nowhere."


@dataclasses.dataclass(frozen=True)
class RaceConfig:
    """Tune optimizers on problems, run them with fresh seeds, write a report; the same command goes on if stopped."""

    optimizers: Annotated[str, tyro.conf.arg(metavar="A,B,..")] = "sgd,sgd:momentum=0.9,adam,lion,muon"
    """Rules of jaxnn.optim, or optax:NAME, with commas between them; settings after colons: sgd:momentum=0.9. A wrong
    name lists all."""
    problems: Annotated[str, tyro.conf.arg(metavar="A,B,..", help=PROBLEMS_HELP)] = "digits-mlp,quadratic"
    learning_rates: Annotated[str, tyro.conf.arg(metavar="log:LOW:HIGH:N")] = RATES
    """Learning rates tried by each: log:LOW:HIGH:N, or numbers with commas between them."""
    seeds: int = 10
    """Fresh runs of each optimizer on each problem, at its best learning rate."""
    tuning_seeds: int = 1
    """Runs at each learning rate of the grid."""
    epochs: int | None = None
    """Of every run; without it each problem's own."""
    landscapes: Annotated[str, tyro.conf.arg(metavar="A,B,..", help=LANDSCAPES_HELP)] = "rosenbrock,beale"
    seed: int = 0
    """All else is a function of it."""
    chunk: int | None = None
    """Runs trained at a time, at most; without it as many as memory holds, up to 64 a device, 32 on a CPU."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/race")
    """Folder to write. Finished runs are kept in its folder "runs": the same command goes on from there."""


def race(config: RaceConfig) -> int:
    """Run the race, write report.html and what it shows, and print the tables; 0."""
    command = shlex.join(["jaxnn", *sys.argv[1:]])
    so_far: list[Race] = []

    def keep(race: Race) -> None:
        so_far[:] = [race]

    try:
        found = run(
            config.optimizers, config.problems, learning_rates=config.learning_rates, seeds=config.seeds,
            tuning_seeds=config.tuning_seeds, epochs=config.epochs, seed=config.seed, chunk=config.chunk,
            ways_on=config.landscapes, folder=config.out / "runs", on_result=keep,
        )  # fmt: skip
    except KeyboardInterrupt:
        if not so_far:
            raise KeyboardInterrupt(
                f"finished runs are kept in {config.out / 'runs'}: the same command goes on from there"
            ) from None
        page = report.write(so_far[0], config.out, command=command)
        raise KeyboardInterrupt(
            f"{page} shows the {len(so_far[0].results)} results that are finished, and the same command "
            "goes on from there"
        ) from None
    page = report.write(found, config.out, command=command)
    console = wide_console()
    for problem in found.problems:
        console.print(_table(found, problem))
    console.print(f"report: {page}", highlight=False, soft_wrap=True, markup=False)
    return 0


def _table(race: Race, problem: str) -> rich.table.Table:
    """The figures of one problem, the best first."""
    results = sorted(race.of(problem), key=lambda r: r.performance)
    percent, figure = shown(results[0].final_name)
    table = rich.table.Table(title=f"{problem}: {figure}, the less the better", title_justify="left")
    table.add_column("optimizer")
    for head in ("rate", "mean", "quartiles", "to target", "steps", "decades", "ms/step"):
        table.add_column(head, justify="right")
    for r in results:
        low, high = (percent * q for q in r.quartiles)
        steps = np.median(r.steps_to_target)
        table.add_row(
            r.optimizer, f"{r.rate:.2g}", f"{percent * r.performance:.4g}", f"{low:.4g} to {high:.4g}",
            f"{np.isfinite(r.steps_to_target).sum()}/{len(r.final)}", f"{steps:.0f}" if np.isfinite(steps) else "-",
            f"{r.tuneability:.2f}", "-" if r.cost is None else f"{1e3 * r.cost.step_seconds:.3g}",
        )  # fmt: skip
    return table
