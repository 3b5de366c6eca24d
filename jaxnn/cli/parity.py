"""`jaxnn compare parity`: our optimizers compared to optax's, step by step."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.markup
import rich.table
import tyro
from jax.experimental.compilation_cache import compilation_cache

from jaxnn import files
from jaxnn.checks import nearest_name, require_positive, require_positive_int
from jaxnn.cli.runs import options_and_versions, run_folder, wide_console
from jaxnn.cli.stopping import last_line
from jaxnn.cli.words import require_seed
from jaxnn.compare import Case, Parity, measure, problems
from jaxnn.compare.cases import all_cases
from jaxnn.compare.entries import words
from jaxnn.train.progress import Bar


@dataclasses.dataclass(frozen=True)
class ParityConfig:
    """Measure the difference between optimizers and optax's, step by step, and the cost of both."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")] = ()
    """Cases such as adam or 'adam: eps_root', separated by commas or blanks; an unknown name lists similar ones."""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure every case."""
    problem: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Problem whose training loss is used, e.g. digits-mlp; default a random pytree on a random noisy loss."""
    gradients: Literal["own", "same"] = "own"
    """own: each rule has the gradient at its own parameters; same: both receive one random sequence."""
    steps: int | None = None
    """Number of steps; default each case's own: 100 for most, fewer where a line search converges earlier."""
    dtype: Literal["float64", "float32", "bfloat16"] = "float64"
    """Dtype of parameters, data and gradients."""
    tolerance: float | None = None
    """Largest relative difference that counts as equal. Default each case's own on the random pytree (1e-12 for most),
    at least 1e-9 on a problem; in narrower dtypes the same number of ulp, at most 1e-2. float64 shows small errors."""
    seed: int = 0
    """Seed of the initial parameters, the noise and the order of the data."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """New or empty folder for parity.csv, parity.json and steps.npz (every step and leaf of every case)."""

    def __post_init__(self) -> None:
        if self.steps is not None:
            require_positive_int("compare parity", "steps", self.steps)
        if self.tolerance is not None:
            require_positive("compare parity", "tolerance", self.tolerance)
        require_seed("compare parity", self.seed)

    def cases(self) -> dict[str, Case]:
        """The chosen cases, with the requested steps; ValueError for no case or an unknown name."""
        known = all_cases()
        if self.all == bool(self.names):
            raise ValueError(
                "compare parity: name cases, such as adam or 'adam: nesterov', or all with --all; not both."
            )
        # Some names contain commas.
        names = [each for name in self.names for each in ([name] if name in known else words(name) or [name])]
        for name in names:
            if name not in known:
                raise ValueError(f"compare parity: no case {name!r}{_alike(name, known)}.")
        chosen = known if self.all else {name: known[name] for name in names}
        if self.steps is None:
            return chosen
        return {name: dataclasses.replace(case, steps=self.steps) for name, case in chosen.items()}


class Findings(NamedTuple):
    """The measurements: a Parity per case, and the errors of cases that raised."""

    measured: dict[str, Parity]
    raised: dict[str, str]


def parity(config: ParityConfig) -> int:
    """Measure the cases, print the table and write the folder; returns 0 if all are equal, 130 after Ctrl-C, else 1.

    On a problem, a case that raises does not apply and does not count.
    """
    cases = config.cases()
    problem = None if config.problem is None else problems.load(config.problem)
    with contextlib.nullcontext() if config.out is None else run_folder(config.out, "parity") as folder:
        return _parity(config, cases, problem, folder)


def _parity(config: ParityConfig, cases: Mapping[str, Case], problem: Any, folder: Path | None) -> int:
    found, interrupted = Findings({}, {}), 0
    with _compiling_anew(), Bar(len(cases)) as bar:
        try:
            for i, (name, case) in enumerate(cases.items()):
                bar.tell(name)
                settings: dict[str, Any] = {"problem": problem, "seed": config.seed, "tolerance": config.tolerance}
                try:
                    found.measured[name] = measure(case, config.gradients, dtype=jnp.dtype(config.dtype), **settings)
                except (TypeError, ValueError, KeyError, ArithmeticError) as error:
                    found.raised[name] = " ".join(f"{type(error).__name__}: {error}".split())
                bar.step(f"{i + 1}/{len(cases)}  {name}  {_verdict(found, name)}", name)
        except KeyboardInterrupt as stop:
            interrupted = last_line(stop)[1]
    _show(found, config, len(cases))
    if folder is not None:
        _write(folder, found, config)
    # On a problem a case may not apply: its masks and labels are made for the random pytree.
    failed = not all(p.equal for p in found.measured.values()) or (found.raised and problem is None)
    return interrupted or int(failed or not found.measured)


def row(name: str, found: Parity) -> dict[str, Any]:
    """The row of one case in parity.csv: differences are the largest over all steps."""
    figures = {
        "case": name,
        "params": found.params,
        "params_mean": found.params_mean,
        "params_ulp": found.params_ulp,
        "state": max([0.0, *found.state.values()], key=_size),
        "tolerance": found.tolerance,
        "verdict": "equal" if found.equal else "DIFFERS",
        "first_step": found.first[0] if found.first else None,
        "first_leaf": found.first[1] if found.first else None,
        "steps": len(found.relative),
    }
    for side, cost in (("ours", found.ours), ("optax", found.theirs)):
        figures |= {f"{side}_{what}": value for what, value in cost._asdict().items()}
    return figures | {"differs": found.differs}


def _alike(name: str, known: Mapping[str, Case]) -> str:
    """The cases with that prefix, else the nearest names, else all cases without a variant."""
    variants = [repr(case) for case in known if name and case.startswith(name)]
    if variants:
        return f"; there are: {', '.join(variants)}"
    return nearest_name(name, known) or f"; there are: {', '.join(case for case in known if ':' not in case)}"


def _size(gap: float) -> float:
    """A sort key in which NaN is the largest difference."""
    return math.inf if math.isnan(gap) else gap


def _verdict(found: Findings, name: str) -> str:
    if name in found.raised:
        return "raises"
    return "equal" if found.measured[name].equal else "DIFFERS"


def _show(found: Findings, config: ParityConfig, asked: int) -> None:
    """Print the table, the intended differences of definitions, the errors, and the overall verdict."""
    console = wide_console()
    on = config.problem or "a random pytree"
    table = rich.table.Table(title=f"ours and optax's on {on}, {config.dtype}, {config.gradients} gradients")
    table.add_column("case", overflow="fold")
    for heading in ("params", "mean", "ulp", "state", "us a step", "compile s", "state bytes", "verdict"):
        table.add_column(heading, justify="right", overflow="fold")
    rows = {name: row(name, parity) for name, parity in found.measured.items()}
    for name, r in rows.items():
        table.add_row(
            rich.markup.escape(name), f"{r['params']:.1e}", f"{r['params_mean']:.1e}", f"{r['params_ulp']:.3g}",
            f"{r['state']:.1e}", f"{r['ours_seconds_per_step'] * 1e6:.0f} / {r['optax_seconds_per_step'] * 1e6:.0f}",
            f"{r['ours_compile_seconds']:.2f} / {r['optax_compile_seconds']:.2f}",
            f"{r['ours_state_bytes']:,} / {r['optax_state_bytes']:,}", r["verdict"],
        )  # fmt: skip
    console.print(table)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    say(
        "differences: the largest over all steps, relative to the leaf's largest entry so far; ours / optax: median "
        "time of the update including call overhead, time to trace and compile it, and bytes of its state"
    )
    told = {name: r["differs"] for name, r in rows.items() if r["differs"]}
    if told and config.all:
        say(f"{len(told)} with arguments that restore equality where definitions differ, listed in the files of --out")
    else:
        for name, words in told.items():
            say(f"{name}: {words}")
    for name, r in rows.items():
        if r["first_step"] is not None:
            say(f"{name}: beyond {r['tolerance']:.0e} first at step {r['first_step']}, in {r['first_leaf']}")
    for name, error in found.raised.items():
        say(f"{name}: raises {error}")
    equal = collections.Counter(r["tolerance"] for r in rows.values() if r["verdict"] == "equal")
    counts = [(f"{n} " if len(equal) > 1 else "") + f"within {tolerance:.0e}" for tolerance, n in sorted(equal.items())]
    within = {0: "", 1: f" {' '.join(counts)}"}.get(len(equal), f" ({', '.join(counts)})")
    differ = len(rows) - equal.total()
    raised = f", {len(found.raised)} {'raises' if len(found.raised) == 1 else 'raise'}" if found.raised else ""
    done = len(rows) + len(found.raised)
    early = "" if done == asked else f" of {asked} (interrupted)"
    say(
        f"{done}{early} {'case' if done == asked == 1 else 'cases'}: {equal.total()} equal{within}, "
        f"{differ} {'differs' if differ == 1 else 'differ'}{raised}"
    )


def _write(folder: Path, found: Findings, config: ParityConfig) -> None:
    """Write parity.csv, parity.json (with the options and versions) and steps.npz."""
    rows = [row(name, parity) for name, parity in found.measured.items()]
    files.write_csv(folder / "parity.csv", rows[0] if rows else ["case"], (r.values() for r in rows))
    told = options_and_versions(config)
    told["versions"] |= {"optax": importlib.metadata.version("optax")}
    cases = [_plain(r) | {"state_fields": _plain(found.measured[r["case"]].state)} for r in rows]
    text = json.dumps(told | {"cases": cases, "raised": found.raised}, indent=1, allow_nan=False)
    files.write_text(folder / "parity.json", text + "\n")
    steps = {
        f"{name}/{part}": np.array(getattr(parity, part))
        for name, parity in found.measured.items()
        for part in ("leaves", "max_difference", "mean_difference", "entry")
    }
    files.write_npz(folder / "steps.npz", steps, compressed=True)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for JSON, with NaN and infinity as strings."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@contextlib.contextmanager
def _compiling_anew() -> Iterator[None]:
    """Disable the compilation cache, which would make compile times those of reading a file."""
    config: Any = jax.config  # whose settings only some releases of JAX annotate
    used = config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX reads the setting once
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", used)
        compilation_cache.reset_cache()
