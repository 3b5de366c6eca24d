"""Parity of the optimizer rules with optax's and torch's: the largest difference over the steps, in float64.

    python -m benchmarks.optimizer_parity               # every case, about 10 minutes on 2 cores
    python -m benchmarks.optimizer_parity adam lion     # cases by the beginnings of their names
    python -m benchmarks.optimizer_parity --write       # and save the table in benchmarks/results/optimizer_parity.json

For each case: the difference of parameters and of every common state field, relative to the largest entry so far of the
leaf, for one random sequence of gradients and on the own trajectory of each rule on a non-convex, noisy loss; for
parameters also in units in the last place (ulp). Where the definitions differ, the case describes the difference and
has the arguments that restore equality.

A second table compares the rules that torch.optim has too, on their own trajectories, with corresponding arguments; it
is omitted if torch is not installed (python -m pip install torch).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from benchmarks.torch_parity import CASES as TORCH_CASES
from benchmarks.torch_parity import TorchCase, measure_torch
from benchmarks.training import environment
from jaxnn import files
from jaxnn.compare.cases import all_cases
from jaxnn.compare.parity import Case, measure

RESULTS = Path(__file__).parent / "results" / "optimizer_parity.json"


def row(case: Case) -> dict[str, Any]:
    """The largest differences of one case."""
    own = measure(case, "own")
    same = own if case.fixed_loss else measure(case, "same")  # a line search needs the gradients of its loss
    return {
        "same_gradients": same.params,
        "own_trajectory": own.params,
        "own_trajectory_ulp": own.params_ulp,
        "state": max([0.0, *same.state.values(), *own.state.values()]),
        "state_fields": sorted(own.state),
        "differs": case.differs,
    }


def torch_row(case: TorchCase) -> dict[str, Any]:
    """The largest differences of one case from torch."""
    found = measure_torch(case)
    return {
        "torch": case.theirs,
        "own_trajectory": found.params,
        "own_trajectory_ulp": found.params_ulp,
        "state": max([0.0, *found.state.values()]),
        "state_fields": sorted(found.state),
        "differs": case.differs,
        "restored_by": case.restored_by,
    }


def print_torch(chosen: dict[str, TorchCase]) -> dict[str, Any]:
    """Measure and print the cases of the torch table; {} and a message if torch is not installed."""
    if not importlib.util.find_spec("torch"):
        print("\nno torch table: torch is not installed")
        return {}
    print("\nlargest relative difference from torch.optim over 100 steps, float64")
    print(f"{'case':40}{'trajectory':>12}{'ulp':>9}{'state':>10}  fields")
    rows = {}
    for name, case in chosen.items():
        r = rows[name] = torch_row(case)
        figures = f"{r['own_trajectory']:12.1e}{r['own_trajectory_ulp']:9.1g}{r['state']:10.1e}"
        print(f"{name:40}{figures}  {' '.join(r['state_fields'])}\n{'':6}{r['torch']}", flush=True)
        if r["differs"]:
            print(f"{'':6}{r['differs']}" + (f"; equal in {r['restored_by']!r}" if r["restored_by"] else ""))
    equal = {name: max(r["own_trajectory"], r["state"]) for name, r in rows.items() if not r["restored_by"]}
    if equal:
        worst = max(equal, key=lambda name: equal[name])
        print(f"{len(equal)} cases that should be equal; the largest difference is {equal[worst]:.1e}, of {worst!r}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names of cases; all without any")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/")
    words = parser.parse_args()
    unknown = [word for word in words.names if not any(name.startswith(word) for name in [*all_cases(), *TORCH_CASES])]
    if unknown:
        parser.error(f"no case begins with {' or '.join(unknown)}; there are {', '.join(all_cases())}")
    found = environment()
    print(f"largest relative difference from optax over 100 steps, float64; {found['versions']}")
    print(f"{'case':40}{'same grads':>12}{'trajectory':>12}{'ulp':>9}{'state':>10}  fields")
    rows = {}

    def chosen(name: str) -> bool:
        return not words.names or any(name.startswith(word) for word in words.names)

    for name, case in all_cases().items():
        if not chosen(name):
            continue
        r = rows[name] = row(case)
        figures = (
            f"{r['same_gradients']:12.1e}{r['own_trajectory']:12.1e}{r['own_trajectory_ulp']:9.1f}{r['state']:10.1e}"
        )
        print(f"{name:40}{figures}  {' '.join(r['state_fields'])}", flush=True)
        if r["differs"]:
            print(f"{'':6}{r['differs']}")
    if rows:
        worst = max(
            rows, key=lambda name: max(rows[name]["same_gradients"], rows[name]["own_trajectory"], rows[name]["state"])
        )
        print(f"{len(rows)} cases; the largest difference is that of {worst!r}")
    torch_rows = print_torch({name: case for name, case in TORCH_CASES.items() if chosen(name)})
    if words.write:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        tables = {
            table: {name: r for name, r in (kept.get(table, {}) | new).items() if name in known}
            for table, new, known in (("cases", rows, all_cases()), ("torch", torch_rows, TORCH_CASES))
        }
        files.write_json(RESULTS, {"environment": found, **tables}, indent=1)
        print(f"written: {RESULTS.name}")


if __name__ == "__main__":
    main()
