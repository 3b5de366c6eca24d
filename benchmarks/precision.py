"""Test errors of MNIST recipes in bfloat16 and in float32: means and standard deviations over the same seeds.

    python -m benchmarks.precision                          # about 10 minutes on one core
    python -m benchmarks.precision mnist-mlp --epochs 32    # one recipe as it is
    python -m benchmarks.precision --write                  # and save the errors in benchmarks/results/

Each run is `jaxnn train --recipe NAME --epochs N --precision DTYPE`, by default of fewer epochs than the recipe has;
the learning rate's schedule is over these. A CPU may be slower in bfloat16. bfloat16 passes if its mean is at most one
standard deviation of float32 from that of float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.language import one_core

EPOCHS = {"mnist-mlp": 12, "mnist-cnn-fast": 3}
PRECISIONS: tuple[Any, ...] = ("float32", "bfloat16")
RESULTS = Path(__file__).parent / "results" / "precision-cpu.json"


def errors(name: str, precision: Any, epochs: int, seeds: int) -> list[float]:
    """The test error of each seed in percent."""
    from jaxnn.cli.recipes import RECIPES
    from jaxnn.cli.train import train

    with tempfile.TemporaryDirectory() as folder:
        settings = {"precision": precision, "epochs": epochs, "seeds": seeds, "out": Path(folder) / "run"}
        _, outcomes = train(dataclasses.replace(RECIPES[name], **settings), progress=False)  # type: ignore[type-var]
    return [round(100 * o.test_error, 4) for o in outcomes]


def is_within(half: list[float], single: list[float]) -> bool:
    """Whether the mean of the one is at most one standard deviation of the other from its mean."""
    return abs(statistics.fmean(half) - statistics.fmean(single)) <= statistics.stdev(single)


def row(name: str, epochs: int, found: dict[str, list[float]]) -> str:
    cells = [f"{statistics.fmean(found[p]):.3f} ± {statistics.stdev(found[p]):.3f}%" for p in PRECISIONS]
    verdict = "yes" if is_within(found["bfloat16"], found["float32"]) else "no"
    return f"| `{name}` | {epochs} | {' | '.join(cells)} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(EPOCHS))
    parser.add_argument("--epochs", type=int, help="of each recipe, instead of the default here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="save the errors in benchmarks/results/")
    words = parser.parse_args()
    one_core()
    from jaxnn import files

    kept: dict[str, Any] = files.read_json(RESULTS) if RESULTS.exists() else {}
    lines = ["| recipe | epochs | float32 | bfloat16 | within 1 s.d. |", "|---|---|---|---|---|"]
    for name in words.recipes:
        epochs = words.epochs or EPOCHS[name]
        found = {precision: errors(name, precision, epochs, words.seeds) for precision in PRECISIONS}
        kept[name] = {"epochs": epochs, "test_error_percent": found}
        lines.append(row(name, epochs, found))
        if words.write:
            files.write_json(RESULTS, kept, indent=1)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
