"""Test errors of the recipes on images (mean and spread over seeds), and the time of a whole run with compilation.

    python benchmarks/recipes.py                        # every recipe, 3 seeds each: about an hour on 2 cores
    python benchmarks/recipes.py mnist-linear mnist-mlp --seeds 5
    python benchmarks/recipes.py --write                # and save the results in benchmarks/results/

Each recipe runs as `jaxnn train --recipe NAME --seeds 3`, in a process of its own without a compilation cache. The time
printed is that of the first seed, which compiles; the later seeds reuse the program. The test set is used once per
seed, at the end of its run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from training import environment

from jaxnn import files
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.recipes import RECIPES

RUN = """
import dataclasses, json, sys
from pathlib import Path
from jaxnn.cli.recipes import RECIPES
from jaxnn.cli.train import train
name, seeds, out = sys.argv[1:]
_, outcomes = train(dataclasses.replace(RECIPES[name], seeds=int(seeds), out=Path(out)), progress=False)
print(json.dumps([[o.test_error, o.seconds, o.examples_per_second] for o in outcomes]))
"""


def run(name: str, seeds: int) -> dict[str, Any]:
    """Errors in percent, seconds and examples/s of one recipe: means, standard deviations, and those of each seed."""
    variables = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", RUN, name, str(seeds), str(Path(folder) / "run")]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=variables, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    figures = {
        "test_error_percent": [100 * row[0] for row in rows],
        "seconds": [row[1] for row in rows],
        "examples_per_s": [row[2] for row in rows],
    }
    spread = {name: statistics.stdev(values) if len(values) > 1 else 0.0 for name, values in figures.items()}
    mean = {name: statistics.fmean(values) for name, values in figures.items()}
    return {"mean": mean, "standard_deviation": spread, "seeds": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    of_images = [name for name, config in RECIPES.items() if isinstance(config, TrainConfig)]
    parser.add_argument("recipes", nargs="*", default=of_images)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="keep the figures in benchmarks/results/")
    words = parser.parse_args()
    found = environment()
    print(f"{found['device']}, {found['cores']} cores; {found['versions']}")
    print(f"{'recipe':22}{'test error %':>16}{'seconds':>14}{'examples/s':>12}")
    path = Path(__file__).parent / "results" / f"recipes-{found['device'].lower().replace(' ', '-')}.json"
    kept = json.loads(path.read_text())["recipes"] if path.exists() else {}
    for name in words.recipes:
        result = run(name, words.seeds)
        mean, spread = result["mean"], result["standard_deviation"]
        error = f"{mean['test_error_percent']:.2f} ± {spread['test_error_percent']:.2f}"
        seconds = f"{result['seeds']['seconds'][0]:.0f}"  # the first seed's: it compiles
        print(f"{name:22}{error:>16}{seconds:>14}{mean['examples_per_s']:12,.0f}", flush=True)
        kept[name] = result
        if words.write:
            path.parent.mkdir(exist_ok=True)
            files.write_json(path, {"environment": found, "recipes": kept}, indent=1)
    if words.write:
        print(f"written: {path}")


if __name__ == "__main__":
    main()
