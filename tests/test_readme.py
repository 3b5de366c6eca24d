"""What the README says is run: its Python, its commands' names, its claims about files."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from jaxnn.cli.gallery import PLAYGROUND
from jaxnn.cli.recipes import RECIPES
from jaxnn.gallery.build import chapters

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TEST_COMMAND = '-m pytest -n 2 -m "not slow"'


@pytest.mark.sampled
@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[0][:40])
def test_python_blocks_run(block: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_there_are_examples() -> None:
    assert len(PYTHON) >= 2


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert TEST_COMMAND in README
    assert TEST_COMMAND in (ROOT / ".ci" / "run").read_text()


def test_every_recipe_stands_in_the_results() -> None:
    for name in RECIPES:
        assert f"--recipe {name}" in README or f"`{name}`" in README, f"{name} is not in the README"
    for name in re.findall(r"--recipe ([a-z-]+)", README):
        assert name in RECIPES


def test_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(
        r"python ((?:benchmarks|examples)/\S+\.py)", README
    ):
        assert (ROOT / name).exists(), name


def test_figures_are_pictures_of_the_gallery() -> None:
    figures = re.findall(r"!\[[^\]]+\]\(examples/figures/([a-z-]+)\.png\)", README)
    assert len(figures) == 3 == len(list((ROOT / "examples" / "figures").iterdir()))
    drawn = {picture.name for chapter in (*chapters().values(), PLAYGROUND) for picture in chapter}
    assert drawn >= set(figures)
    assert f"({len(drawn)} figures" in README


LONG = (
    "clipped_training.py",
    "compare_optimizers.py",
    "gan_ring.py",
    "mislabeled.py",
    "mislabeled_fashion.py",
    "noise_scale_transformer.py",
    "race_own_rule.py",
    "sweep.py",
)
"""Examples that take more than a few seconds."""

NEEDS = {"flax_norms.py": "flax", "mislabeled_fashion.py": "equinox"}
"""Libraries that an example shows and the package does without."""


@pytest.mark.sampled
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name in LONG else [])
        for path in sorted((ROOT / "examples").glob("*.py"))
    ],
)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    if path.name in NEEDS:
        pytest.importorskip(NEEDS[path.name])
    env = dict(os.environ)
    if path.name in LONG:
        env.pop("XLA_FLAGS", None)  # the suite's are for programs that run once; these run long, as users run them
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_results_are_those_that_were_written() -> None:
    recipes = json.loads((ROOT / "benchmarks" / "results" / "recipes-cpu.json").read_text())["recipes"]
    for name, result in recipes.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        error, spread = result["mean"]["test_error_percent"], result["standard_deviation"]["test_error_percent"]
        assert f"| {error:.2f} ± {spread:.2f}% | {result['seeds']['seconds'][0]:.0f} s |" in row


@pytest.mark.parametrize(
    ("name", "label"),
    [("mlp 128", "MLP 784-512-512-10"), ("cnn 128", "CNN 32-64-128-10"), ("transformer 16", "transformer"),
     ("gru 32", "GRU")],
)  # fmt: skip
def test_the_table_of_recorded_models_is_what_was_written(name: str, label: str) -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "per_example_any-cpu.json").read_text())
    rows = {(row["quantity"], row["rival"].split()[0]): row for row in results["tables"][name]["rows"]}

    def time(quantity: str, rival: str) -> str:
        row = rows.get((quantity, rival))
        if row is None:
            return "-"
        over = row["over jax.grad"] if rival != "Opacus" else row["over torch"]
        return f"{over[0]:.3g}" if over[0] >= 100 else f"{over[0]:.2f}"

    def two(what: str) -> str:
        return ", ".join(f"{rows[quantity, 'jaxnn'][what]:.2f}" for quantity in ("norms and mean", "clipped sum"))

    cells = [time("norms and mean", "jaxnn"), time("norms and mean", "vmap(grad)")]
    cells += [time("clipped sum", rival) for rival in ("jaxnn", "vmap(grad)", "jax_privacy", "Opacus")]
    cells += [two("temporary MiB over jax.grad"), two("compile s over jax.grad")]
    assert f"| {label} | {' | '.join(cells)} |" in README


def test_the_classical_table_is_what_was_written_and_in_its_ranges() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "mnist_table-cpu.json").read_text())["rows"]
    for name, row in rows.items():
        error, (least, most) = row["test_error_percent"], row["published_percent"] or (0, 100)
        assert least <= error <= most
        line = next((line for line in README.splitlines() if f"| {row['family']} |" in line), None)
        if row["published_percent"]:
            assert line is not None
            assert f"| {least:g}-{most:g}% |" in line
            assert f"{error:.2f}% in {row['seconds']:.0f} s" in line, name


def test_the_table_of_single_examples_is_what_was_written() -> None:
    tables = json.loads((ROOT / "benchmarks" / "results" / "per_example-cpu.json").read_text())["tables"]
    labels = {"gradient": "mean gradient", "clipped sum": "clipped sum", "variance": "variance"}
    for quantity, label in labels.items():
        lines = [line for line in README.splitlines() if line.startswith(f"| {label} |")]
        for line, table in zip(lines, ("mlp 128", "cnn 128"), strict=True):
            row = next(r for r in tables[table]["rows"] if (r["quantity"], r["rival"]) == (quantity, "jaxnn"))
            assert line.split("|")[2].strip() == f"{row['over jax.grad'][0]:.2f}"


def test_the_figures_beside_deepobs_are_those_that_were_written() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "deepobs-cpu.json").read_text())["problems"]
    for problem in found.values():
        rows = problem["rows"].values()
        here = " | ".join(f"{row['mean']:.2f} ± {row['standard_deviation']:.2f}" for row in rows)
        assert f"| here | {here} |" in README
        assert "| DeepOBS | " + " | ".join(f"{row['published']:.2f}" for row in rows) + " |" in README


def test_the_figures_of_sweeps_are_those_that_were_written() -> None:
    tables = json.loads((ROOT / "benchmarks" / "results" / "sweep-cpu.json").read_text())["tables"]

    def saved(table: str, rival: str) -> str:
        return f"{statistics.median(tables[table]['rows'][rival]['in_turn_over_it_processor_time']):.1f}"

    mnist, digits = tables["mnist"]["compile_multiple"], tables["digits"]["compile_multiple"]
    words = " ".join(README.split())
    for told in (
        f"{saved('mnist', 'sweep, 32 at a time')} times what they cost in one sweep",
        f"({saved('mnist', 'sweep, 16 at a time')} at 16 at a time)",
        f"8 rates take {mnist['8']:.1f} times what the sweep's one compilation takes, and 64 settings would take "
        f"{mnist['64']:.0f} times",
        f"figures are {saved('digits', 'sweep, 64 at a time')} (at 64 at a time), {digits['8']:.1f} and "
        f"{digits['64']:.0f}.",
        f"digits take {tables['thousand']['seconds']:.0f} s in one call",
    ):
        assert told in words, told
