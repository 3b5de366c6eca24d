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

from jaxnn import files
from jaxnn.checks import count_of, require_positive_int
from jaxnn.cli.runs import require_own_folder, telling_kept, wide_console
from jaxnn.cli.words import LISTED, require_seed
from jaxnn.compare import report
from jaxnn.compare.entries import entries, words
from jaxnn.compare.problems import PROBLEMS
from jaxnn.compare.race import RATES
from jaxnn.compare.race import race as run
from jaxnn.compare.result import Race, Result, shown
from jaxnn.landscapes import LANDSCAPES
from jaxnn.train.progress import say

PROBLEMS_HELP = f"Problems, separated by commas or blanks, of: {', '.join(PROBLEMS)}."
LANDSCAPES_HELP = f'Landscapes for trajectories, of: {", ".join(LANDSCAPES)}; "" for none.'


@dataclasses.dataclass(frozen=True)
class RaceConfig:
    """Tune optimizers on problems, run them with fresh seeds, write a report; the same command resumes a race."""

    optimizers: Annotated[str, LISTED, tyro.conf.arg(metavar="A,B,..")] = "sgd,sgd:momentum=0.9,adam,lion,muon"
    """Rules of jaxnn.optim, or optax:NAME, separated by commas or blanks; settings after colons: sgd:momentum=0.9. An
    unknown name lists all."""
    problems: Annotated[str, LISTED, tyro.conf.arg(metavar="A,B,..", help=PROBLEMS_HELP)] = "digits-mlp,quadratic"
    learning_rates: Annotated[str, LISTED, tyro.conf.arg(metavar="log:LOW:HIGH:N")] = RATES
    """Learning rates of each: log:LOW:HIGH:N, or comma-separated numbers."""
    seeds: int = 10
    """Fresh runs of each optimizer on each problem, at its best learning rate."""
    tuning_seeds: int = 1
    """Runs at each learning rate of the grid."""
    epochs: int | None = None
    """Epochs of every run; default each problem's own."""
    landscapes: Annotated[str, LISTED, tyro.conf.arg(metavar="A,B,..", help=LANDSCAPES_HELP)] = "rosenbrock,beale"
    seed: int = 0
    """Seed of everything random."""
    chunk: int | None = None
    """Largest number of runs at a time; default as many as fit into memory, up to 64 per device, 32 on a CPU."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/race")
    """Output folder. Finished runs are saved in its folder "runs": the same command resumes from there, and so does one
    with more optimizers or problems."""
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write into a folder with other contents, or with the report of a race that this one does not include."""

    def __post_init__(self) -> None:
        require_seed("race", self.seed)
        for name in ("seeds", "tuning_seeds", "epochs", "chunk"):
            if getattr(self, name) is not None:
                require_positive_int("race", name, getattr(self, name))


def race(config: RaceConfig) -> int:
    """Run the race, write report.html and its files, print the tables; returns 0."""
    command = shlex.join(["jaxnn", *sys.argv[1:]])
    if not config.force:
        _require_nothing_lost(config)
    with telling_kept(config.out):
        found = _run(config, command)
        page = report.write(found, config.out, command=command)
    console = wide_console()
    for problem in found.problems:
        console.print(_table(found, problem))
    console.print(f"report: {page}", highlight=False, soft_wrap=True, markup=False)
    return 0


def _run(config: RaceConfig, command: str) -> Race:
    """The race, with a line for each result as it is found; after Ctrl-C or SIGTERM a partial report is written."""
    so_far: list[Race] = []

    def keep(race: Race) -> None:
        so_far[:] = [race]
        say(_line(race.results[-1]))

    try:
        return run(
            config.optimizers, config.problems, learning_rates=config.learning_rates, seeds=config.seeds,
            tuning_seeds=config.tuning_seeds, epochs=config.epochs, seed=config.seed, chunk=config.chunk,
            ways_on=config.landscapes, folder=config.out / "runs", on_result=keep,
        )  # fmt: skip
    except KeyboardInterrupt as stop:
        if not so_far:
            chunks = len(list((config.out / "runs").rglob("runs-*.npz")))
            raise type(stop)(
                f"{count_of(chunks, 'chunk')} of runs kept in {config.out / 'runs'}: go on with: {command}"
                if chunks
                else "no run was finished, nothing was kept"
            ) from None
        page = report.write(so_far[0], config.out, command=command)
        raise type(stop)(
            f"{page} shows {count_of(len(so_far[0].results), 'finished result')}; go on with: {command}"
        ) from None


def _require_nothing_lost(config: RaceConfig) -> None:
    """FileExistsError for a folder with other contents, or the report of a race with more; ValueError if damaged."""
    told = config.out / "race.json"
    if not told.is_file():
        if not (config.out / "runs").is_dir():
            require_own_folder(config.out, "race.json", "settings")
        return
    try:
        settings = files.read_json(told)["settings"]
        before = {name: list(map(str, settings[name])) for name in ("optimizers", "problems")}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{told} is not that of a race ({error}); name a new folder with --out, or --force.") from None
    now = {"optimizers": [each.name for each in entries(config.optimizers)], "problems": words(config.problems)}
    lost = [name for what in now for name in before[what] if name not in now[what]]
    if lost:
        raise FileExistsError(
            f"{config.out} holds the report of a race with {', '.join(lost)}, which this one lacks: add them, name a "
            "new folder with --out, or overwrite the report with --force."
        )


def _line(result: Result) -> str:
    """A result in a line, before the costs are known."""
    percent, figure = shown(result.final_name)
    value = f"{percent * result.performance:.4g}"
    return f"{result.problem}, {result.optimizer}: {figure} {value} at learning rate {result.rate:.2g}"


def _table(race: Race, problem: str) -> rich.table.Table:
    """The results on one problem, the best first."""
    results = sorted(race.of(problem), key=lambda r: r.performance)
    percent, figure = shown(results[0].final_name)
    table = rich.table.Table(title=f"{problem}: {figure}, lower is better", title_justify="left")
    table.add_column("optimizer", overflow="fold")
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
