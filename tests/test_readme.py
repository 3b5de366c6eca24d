"""The READMEs: their Python runs, their figures are those of benchmarks/results, what they name exists."""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import runpy
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from benchmarks import devices, precision
from jaxnn import backprop, losses, models, optim, per_example, train
from jaxnn.cli.pictures import MORE
from jaxnn.cli.recipes import RECIPES
from jaxnn.compare.cases import all_cases
from jaxnn.gallery.build import chapters
from tests.helpers import slow
from tests.test_architecture import FLOORS, FOLDERS

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "jaxnn/README.md", "benchmarks/README.md", "examples/README.md")
PAGES = {name: (ROOT / name).read_text() for name in NAMES}
README, HOUSE, BENCHMARKS, EXAMPLES = PAGES.values()
TEST_COMMAND = '-m pytest -n 2 -m "not slow"'
TRAIN_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -q -e . && .venv/bin/jaxnn train\n"


def sections(page: str) -> dict[str, str]:
    """The text below each heading of a page."""
    parts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text: str) -> list[list[str]]:
    """The cells of all tables in a text, without headings and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def shown(figure: float) -> str:
    """Three digits, at most two of them after the point."""
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


PROGRAMS = {
    f"{name}: {title}": "\n".join(blocks)
    for name, page in PAGES.items()
    for title, text in sections(page).items()
    if (blocks := re.findall(r"```python\n(.*?)```", text, re.DOTALL))
}
"""The Python below each heading, as one program."""

QUICK = ("README.md: Optimizers", "README.md: Train")
"""What the short run takes of them."""


@pytest.mark.parametrize(
    "name", [*(n for n in PROGRAMS if n.startswith(QUICK)), *slow(*(n for n in PROGRAMS if not n.startswith(QUICK)))]
)
def test_python_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("flax", "equinox"):
        if f"import {library}" in PROGRAMS[name]:
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAMS[name], name, "exec"), {"__name__": "__main__"})


def test_the_readme_is_short_and_its_programs_too() -> None:
    assert README.count("\n") <= 200
    lengths = [len([line for line in PROGRAMS[n].splitlines() if line]) for n in PROGRAMS if n.startswith("README")]
    assert len(lengths) == 4
    assert all(length <= most for length, most in zip(lengths, (15, 10, 15, 15), strict=True)), lengths


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert TRAIN_COMMAND in README
    assert TEST_COMMAND in README
    assert TEST_COMMAND in (ROOT / ".ci" / "run").read_text()


LONG = (
    "clipped_training.py",
    "compare_optimizers.py",
    "gan_ring.py",
    "gpt_norms.py",
    "mislabeled.py",
    "mislabeled_fashion.py",
    "multihost.py",
    "noise_scale_transformer.py",
    "race_own_rule.py",
    "sweep.py",
)
"""Examples that take more than a few seconds."""

NEEDS = {
    "flax_norms.py": "flax",
    "gpt_norms.py": "flax",
    "grain_stream.py": "grain",
    "mislabeled_fashion.py": "equinox",
}
"""Libraries that an example shows and the package does without."""

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", slow(*(path.name for path in SCRIPTS if path.name not in LONG)))
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_examples_run_as_users_run_them(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    env = dict(os.environ)
    env.pop("XLA_FLAGS", None)  # the suite's are for programs that run once
    path = ROOT / "examples" / name
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def heading_links(page: str) -> set[str]:
    """What a link to a heading of a page looks like: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for target, _, heading in (link.partition("#") for link in re.findall(r"\]\(([^)\s:]+)\)", PAGES[name])):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        assert not heading or heading in heading_links(path.read_text()), f"{target}#{heading}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_name_files_and_objects_that_exist(name: str) -> None:
    page = PAGES[name]
    for path in re.findall(r"(?:python|pytest) ((?:benchmarks|examples|tests)\S*?)[`\s]", page):
        assert (ROOT / path).exists() or path == "examples/NAME.py", path
    for module in re.findall(r"python -m (benchmarks\.\w+)", page):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    for recipe in re.findall(r"--recipe ([a-z-]+)", page):
        assert recipe in RECIPES
    for path in re.findall(r"help\((?:jaxnn\.)?([\w.]+)\)", page):
        assert located(path) is not None, path


def located(path: str) -> Any:
    """A room, module or object by its path below `jaxnn`."""
    try:
        return importlib.import_module(f"jaxnn.{path}")
    except ModuleNotFoundError:
        return functools.reduce(getattr, path.split("."), jaxnn)


def test_every_script_has_its_line_and_every_picture_its_source() -> None:
    listed = [re.findall(r"\((\w+\.py)\)", row[0])[0] for row in table(EXAMPLES)[1:]]
    assert sorted(listed) == [path.name for path in SCRIPTS]
    pictures = {path.name for path in (ROOT / "examples" / "figures").iterdir()}
    assert set(re.findall(r"!\[[^\]]+\]\(figures/(\S+)\)", EXAMPLES)) == pictures
    assert len(re.findall(r"!\[[^\]]+\]\(examples/figures/\S+\)", README)) == 1
    drawn = {picture.name for chapter in (*chapters().values(), *MORE.values()) for picture in chapter}
    assert f"({len(drawn)} figures" in EXAMPLES
    written = "\n".join(path.read_text() for path in SCRIPTS)
    for picture in pictures:
        stem = picture.removesuffix(".png")
        assert stem in drawn or f'"{stem.replace("-", "_")}.png"' in written, picture


def ticked(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_the_rooms_stand_on_their_floors() -> None:
    floors: dict[str, set[str]] = {}
    for room, floor in FLOORS.items():
        floors.setdefault(str(floor), set()).add(room)
    house = table(sections(HOUSE)["Floors"])
    assert {row[0]: set(ticked(row[1])) for row in house if row[0].isdigit()} == floors
    for floor, text in table(sections(README)["Layout"])[1:]:
        assert floors[floor] <= set(ticked(text)), floor


def test_the_folders_of_rooms_are_those_of_the_architecture() -> None:
    def folder(name: str) -> str:
        return "" if name == "the top" else name.strip("`")

    found: dict[str, dict[str, tuple[str, ...]]] = {}
    rows = [row for row in table(sections(HOUSE)["Floors"]) if len(row) == 4]
    for room, name, _, leans in rows[1:]:
        if room:
            last = found.setdefault(room.strip("`"), {})
        last[folder(name)] = () if leans == "-" else tuple(map(folder, leans.split(", ")))
    assert found == FOLDERS


def test_every_recipe_and_case_stands_in_the_results() -> None:
    for name in RECIPES:
        assert f"| `{name}` |" in BENCHMARKS, f"{name} is not in the table"
    assert f"all {len(all_cases())} cases are equal" in BENCHMARKS


def called(function: Callable[[], Any]) -> list[tuple[str, str]]:
    """The functions of the package that are called meanwhile, in order, by file and name."""
    package = f"{Path(jaxnn.__file__).parent}/"
    found: list[tuple[str, str]] = []

    def note(frame: Any, event: str, arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package):
            found.append((code.co_filename.removeprefix(package), code.co_qualname.replace(".<locals>", "")))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


def trained() -> None:
    net, loss = models.mlp([4, 3, 2]), losses.softmax_cross_entropy
    vg = backprop.value_and_grad(net, loss)
    data = np.ones((8, 4), np.float32), np.zeros(8, np.int32)
    key = jax.random.key(0)
    train.fit(net, loss, optim.adam(1e-3), data, key=key, epochs=1, batch_size=4, value_and_grad=vg, progress=False)


def clipped() -> None:
    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ params["w"].T))

    def sums(params: Any, X: Any) -> Any:
        return per_example.clipped_grad(per_example.record(loss)(params, X), 1.0)

    jax.eval_shape(sums, {"w": np.ones((2, 4), np.float32)}, np.ones((8, 4), np.float32))


def streamed() -> None:
    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ params["w"].T))

    norms = per_example.value_and_grad(loss)
    jax.eval_shape(lambda *args: norms(*args), {"w": np.ones((2, 4), np.float32)}, np.ones((8, 64, 4), np.float32))


@pytest.mark.parametrize(
    ("title", "run", "most"), [("Walk 1", trained, 5), ("Walk 2", clipped, 18), ("Walk 3", streamed, 12)]
)
def test_the_walks_are_what_runs(title: str, run: Callable[[], None], most: int) -> None:
    text = next(text for heading, text in sections(HOUSE).items() if heading.startswith(title))
    hops = re.findall(r"`([\w/]+\.py)`\s+`([\w.]+)`", text[text.index("\n1. ") :])
    assert len(hops) > 15
    files = {file for file, _ in hops}
    opened = {file for file in files if file.startswith("optim/")} if title == "Walk 1" else files
    assert len(opened) <= most  # a newcomer opens few
    calls = iter(called(run))
    for hop in hops:
        assert any(call == hop for call in calls), f"{hop} is not called after the hop before it"


def test_the_gradient_is_ten_calls_from_the_matrix_product() -> None:
    """A newcomer who follows the parameters of a dense layer backward opens few functions."""
    stacks: list[list[str]] = []

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_name == "linear_weight_grad":
            stack = []
            while frame.f_code.co_name != "vg":
                frame = frame.f_back
                stack.append(frame.f_code.co_qualname)
            stacks.append([name for name in stack if not name.endswith(">")])  # comprehensions are no functions

    net = models.mlp([4, 3, 2])
    params, state = net.init(jax.random.key(0), (4,))
    vg = backprop.value_and_grad(net, losses.softmax_cross_entropy)
    sys.setprofile(note)
    try:
        jax.eval_shape(vg, params, state, jnp.ones((8, 4)), jnp.zeros(8, jnp.int32))
    finally:
        sys.setprofile(None)
    assert len(stacks) == 2
    assert max(map(len, stacks)) <= 10, stacks


def test_the_errors_of_recipes_are_those_that_were_written() -> None:
    rows = {row[0].strip("`"): row[2:] for row in table(sections(BENCHMARKS)["Test errors of the recipes"])}
    for name, result in results("recipes-cpu")["recipes"].items():
        error, spread = result["mean"]["test_error_percent"], result["standard_deviation"]["test_error_percent"]
        assert rows[name] == [f"{error:.2f} ± {spread:.2f}%", f"{result['seeds']['seconds'][0]:.0f} s"]


def test_the_errors_in_half_precision_are_those_that_were_written() -> None:
    text, found = sections(BENCHMARKS)["Half precision"], results("precision-cpu")
    assert set(found) == set(precision.EPOCHS)
    for name, result in found.items():
        assert precision.row(name, result["epochs"], result["test_error_percent"]) in text.splitlines()


def test_the_classical_table_is_what_was_written_and_in_its_ranges() -> None:
    found = {row[0]: row[1:] for row in table(sections(BENCHMARKS)["The classical table of MNIST"])}
    for name, row in results("mnist_table-cpu")["rows"].items():
        error, (least, most) = row["test_error_percent"], row["published_percent"] or (0, 100)
        assert least <= error <= most
        if row["published_percent"]:
            published, here = found[row["family"]]
            assert published == f"{least:g}-{most:g}%"
            assert f"{error:.2f}% in {row['seconds']:.0f} s" in here, name


def test_the_speed_of_training_is_what_was_written() -> None:
    tables, text = results("training-cpu")["tables"], sections(BENCHMARKS)["Speed of training"]
    rivals = ("flax loop", "flax scan", "torch")

    def ratio(name: str, rival: str) -> str:
        row = tables[name]["rows"].get(rival)
        return (
            f"{row['time_over_jaxnn']:.2f} ({'-'.join(f'{r:.2f}' for r in row['ratio_range'])})" if row else "not run"
        )

    own = [f"{tables['mlp']['rows']['jaxnn']['seconds']:.2f} s", f"{tables['cnn']['rows']['jaxnn']['step_ms']:.1f} ms"]
    expected = [[first, *(ratio(name, r) for r in rivals)] for name, first in zip(("mlp", "cnn"), own, strict=True)]
    assert [row[1:] for row in table(text)[1:]] == expected
    assert f"of jaxnn's {tables['mlp']['rows']['jaxnn']['step_ms']:.1f} ms step" in text


QUANTITIES = {
    "mean gradient": "gradient",
    "norms and mean gradient": "norms and mean",
    "clipped sum": "clipped sum",
    "second moment": "second moment",
    "variance": "variance",
    "Gram matrix of 256": "gram",
    "norms, clipped sum, second moment, Gram, noise scale": "everything",
}
"""Labels of the tables and the names of the results."""


def test_the_costs_of_saving_and_streams_are_what_was_written() -> None:
    found = results("saving-cpu")
    low, high = found["ratio_quartiles"]
    parts = (f"{found['one_save'][f'{name}_ms']:.0f} ms" for name in ("foreground", "background", "restore"))
    time, work = found["time_over_without"], found["processor_time_over_without"]
    row = [f"{time:.2f} ({low:.2f}-{high:.2f})", f"{work:.2f}", *parts]
    assert table(sections(BENCHMARKS)["Cost of saving"])[1] == row
    for size, told in zip(("small", "medium"), table(sections(BENCHMARKS)["Cost of streams"])[1:], strict=True):
        rows = results("streams-cpu")["tables"][size]
        more = [f"{rows[name]['more_ms'][1]:.2f}" for name in ("function", "rows", "grain")]
        assert told[1:] == [f"{rows['memory']['ms']:.2f} ms", *more]


def test_the_tables_of_statistics_are_what_was_written() -> None:
    found = results("per_example-cpu")["tables"]
    text = sections(BENCHMARKS)["Speed of per-example statistics: networks of this library"]
    rows = table(text)
    heads = [i for i, row in enumerate(rows) if row[1] == "jaxnn"]
    for name, first, last in zip(("mlp 128", "cnn 128"), heads, (heads[1], len(rows)), strict=True):
        assert [row[0] for row in rows[first + 1 : last]] == list(QUANTITIES)
        for label, *cells in rows[first + 1 : last]:
            of_quantity = [row for row in found[name]["rows"] if row["quantity"] == QUANTITIES[label]]
            assert cells == [fastest(of_quantity, rival) for rival in rows[first][1:]], (name, label)
        (torch,) = (r for r in found[name]["rows"] if (r["quantity"], r["rival"]) == ("gradient", "torch"))
        assert f"{torch['over jax.grad'][0]:.2f} ({name[:3].upper()})" in text


def fastest(rows: list[dict[str, Any]], rival: str) -> str:
    """The multiple of a rival's fastest variant: its microbatch, its kind of clipping."""
    times = [row["over jax.grad"][0] for row in rows if row["rival"] == rival or row["rival"].startswith(f"{rival} ")]
    return shown(min(times)) if times else "-"


RECORDED = {
    "MLP 784-512-512-10": "mlp 128",
    "CNN 32-64-128-10": "cnn 128",
    "transformer": "transformer 16",
    "GRU": "gru 32",
    "8 scanned blocks": "scan8 16",
}
IN_THE_PASS = (
    "norms and gradient, streamed",
    "second moment and gradient, streamed",
    "clipped sum, two passes",
    "clipped sum by parameter, one pass",
)


@pytest.mark.parametrize("label", RECORDED)
def test_the_tables_of_recorded_models_are_what_was_written(label: str) -> None:
    found = results("per_example_any-cpu")["tables"][RECORDED[label]]["rows"]
    rows = {(row["quantity"], row["rival"].split()[0]): row for row in found}

    def time(quantity: str, rival: str) -> str:
        row = rows.get((quantity, rival))
        return "-" if row is None else shown(row["over torch" if rival == "Opacus" else "over jax.grad"][0])

    def two(what: str) -> str:
        return ", ".join(f"{rows[quantity, 'jaxnn'][what]:.2f}" for quantity in ("norms and mean", "clipped sum"))

    def ratios(quantity: str) -> str:
        row = rows[quantity, "jaxnn"]
        return f"{row['over jax.grad'][0]:.2f}, {row['temporary MiB over jax.grad']:.2f}"

    cells = [time("norms and mean", "jaxnn"), time("norms and mean", "vmap(grad)")]
    cells += [time("clipped sum", rival) for rival in ("jaxnn", "vmap(grad)", "jax_privacy", "Opacus")]
    assert [label, time(IN_THE_PASS[0], "jaxnn"), *cells] in table(sections(README)["Speed"])
    cells += [two("temporary MiB over jax.grad"), two("compile s over jax.grad")]
    told = table(sections(BENCHMARKS)["Speed of per-example statistics: any JAX loss"])
    assert [label, *cells] in told
    assert [label, *map(ratios, IN_THE_PASS)] in told


def test_the_table_of_devices_is_what_was_written() -> None:
    text, found = sections(BENCHMARKS)["Compiled for an H200 and a TPU v5e"], results("devices")
    assert f"jax {found['environment']['versions']['jax']}" in text
    told = [line for line in text.splitlines() if line.startswith("|")]
    assert told == devices.markdown(found["programs"])


def test_the_estimates_of_compiled_models_are_what_was_written() -> None:
    programs, text = results("devices")["programs"], " ".join(sections(README)["Speed"].split())
    for name in ("gpt untied", "small gpt untied"):
        ours, rival = (
            programs[f"{name} norms and gradient, streamed"],
            programs[f"{name} gradient by jax.value_and_grad"],
        )
        over = [f"{ours[t]['estimated_us'] / rival[t]['estimated_us']:.2f}" for t in ("cuda", "tpu")]
        assert f"{over[0]} and {over[1]} times" in text
    held = [programs["gpt untied norms and gradient, streamed"][t]["temp_bytes"] for t in ("cuda", "tpu")]
    plain = [programs["gpt untied gradient by jax.value_and_grad"][t]["temp_bytes"] for t in ("cuda", "tpu")]
    assert all(f"{a / b:.2f}" == "1.00" for a, b in zip(held, plain, strict=True)), "in its memory"


def test_the_speed_of_optimizers_is_what_was_written() -> None:
    tables, text = results("optimizers-cpu")["tables"], sections(BENCHMARKS)["Speed of optimizers"]
    for name, (_, median, *cells) in zip(("mlp", "large", "blocks", "packed"), table(text)[1:], strict=True):
        ours = {rule: 1 / row["optax"]["time_ratio"] for rule, row in tables[name]["rows"].items()}
        assert median == f"{statistics.median(ours.values()):.2f}"
        order = sorted(ours, key=ours.get)
        for cell, best in zip(cells, (order, order[::-1]), strict=True):
            told = cell.replace("centred rmsprop", "rmsprop centered").split(", ")
            assert told == [f"{rule} {ours[rule]:.2f}" for rule in best[: len(told)]]
    assert f"{len(tables['blocks']['rows'])} rules" in text
    words = " ".join(text.split())
    leaves, packed = tables["leaves"]["rows"]["adam"]["optax"], tables["packed"]["rows"]["adam"]["jaxnn"]
    deep = [row["jaxnn"]["step_ms"] / row["jaxnn packed"]["step_ms"] for row in tables["end-to-end"]["rows"].values()]
    for told in (
        f"takes {leaves['step_ms']:.0f} ms in optax, and {leaves['compile_s']:.0f} s to compile",
        f"takes {packed['step_ms']:.2f} ms and {packed['compile_s']:.1f} s",
        f"by a factor of {deep[0]:.1f} at 20 layers of 8 x 8, {deep[1]:.1f} at 200 and {deep[2]:.1f} at 2,000",
    ):
        assert told in words, told


def test_the_figures_beside_deepobs_are_those_that_were_written() -> None:
    rows = table(sections(BENCHMARKS)["DeepOBS' published figures, measured again"])
    for problem in results("deepobs-cpu")["problems"].values():
        found = problem["rows"].values()
        assert ["here", *(f"{row['mean']:.2f} ± {row['standard_deviation']:.2f}" for row in found)] in rows
        assert ["DeepOBS", *(f"{row['published']:.2f}" for row in found)] in rows


def test_the_figures_of_sweeps_are_those_that_were_written() -> None:
    tables = results("sweep-cpu")["tables"]

    def saved(name: str, rival: str) -> str:
        return f"{statistics.median(tables[name]['rows'][rival]['in_turn_over_it_processor_time']):.1f}"

    mnist, digits = tables["mnist"]["compile_multiple"], tables["digits"]["compile_multiple"]
    words = " ".join(sections(BENCHMARKS)["Sweeps"].split())
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
