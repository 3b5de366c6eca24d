"""The report of a race: every figure and number is in it, in one page that a browser opens without a network."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxnn.compare import report
from jaxnn.compare.costs import StepCost
from jaxnn.compare.figures import figures
from jaxnn.compare.result import Race, Result

DIAGNOSTICS = ("grad_norm", "update_norm", "alignment", "distance", "noise_scale", "snr")


def made(optimizer: str, problem: str, *, worse: float = 1.0, target: float | None = 0.5) -> Result:
    generator = np.random.default_rng(len(optimizer))
    curve = worse * np.exp(-np.arange(4.0)) * (1 + 0.1 * generator.random((5, 4)))
    curves = dict.fromkeys(("loss", "validation_loss", "validation_error", *DIAGNOSTICS), curve)
    tuning = np.array([[1.0], [0.2], [0.1], [np.inf]]) * worse
    return Result(
        optimizer, problem, "validation_error", np.geomspace(1e-3, 1, 4), tuning, 0.1, curves, 0.01 * curve[:, -1],
        "test_error", 10, target, StepCost(1e-3 * worse, 0.5, 800, 100),
    )  # fmt: skip


def without_images(text: str) -> str:
    return re.sub(r"base64,[^\"]+", "", text)


@pytest.fixture(scope="module")
def race() -> Race:
    results = [made("sgd", "a", worse=2.0), made("adam<b>", "a"), made("sgd", "b"), made("adam<b>", "b", worse=3.0)]
    ways = {"rosenbrock": {"sgd": (0.1, np.array([[-1.2, 1.0], [0.0, 0.5], [np.nan, 0.0]]))}}
    settings = {"learning_rates": [1e-3, 1.0], "tuning_seeds": 1, "seeds": 5, "epochs": {"a": 4, "b": 4}}
    return Race(tuple(results), ways, settings, {"a": ("Someone (1999)", "published: 3 & 4")})


@pytest.fixture(scope="module")
def page(race: Race, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(race, tmp_path_factory.mktemp("race"), command="jaxnn compare race --optimizers 'sgd,adam<b>'")


@pytest.mark.slow
def test_every_figure_is_a_file_and_in_the_page(race: Race, page: Path) -> None:
    names = [drawing.name for drawing in figures(race)]
    per_problem = [f"{p}-{kind}" for p in "ab" for kind in ("learning", "sensitivity", "diagnostics")]
    assert names == [*per_problem, "ways-rosenbrock", "profile", "costs"]
    text = page.read_text()
    held = {base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', text)}
    assert held == {(page.parent / f"{name}.png").read_bytes() for name in names}
    assert not re.search(r'(?:src|href)="(?!data:)', text)


@pytest.mark.slow
def test_a_figure_stands_under_its_own_problem_alone(tmp_path: Path) -> None:
    text = report.write(Race((made("sgd", "a"), made("sgd", "a-b")), {}, {}, {}), tmp_path).read_text()
    places = [text.index(f'id="{name}"') for name in ("a", "a-learning", "a-b", "a-b-learning")]
    assert places == sorted(places)
    assert text.count('id="a-b-learning"') == 1


@pytest.mark.slow
def test_numbers_words_and_names_are_in_the_page(race: Race, page: Path) -> None:
    text = without_images(page.read_text())
    best = race.results[1]
    assert f"<td class=best>{100 * best.performance:.4g}</td>" in text
    for told in ("--optimizers &#x27;sgd,adam&lt;b&gt;&#x27;", "Someone (1999)", "published: 3 &amp; 4", "mean rank",
                 "jax", "device", "5 of 5", "target: validation error (%) of 50"):  # fmt: skip
        assert told in text, told
    assert "adam<b>" not in text


@pytest.mark.slow
def test_the_best_is_first(page: Path) -> None:
    tables = re.findall(r"<table>.*?</table>", page.read_text(), flags=re.DOTALL)
    first = [re.findall(r"<tr><td>(.*?)</td>", table)[0] for table in tables[1:3]]
    assert first == ["adam&lt;b&gt;", "sgd"]


@pytest.mark.slow
def test_what_is_saved_is_strict_json(page: Path) -> None:
    def refuse(word: str) -> Any:
        raise ValueError(word)

    told = json.loads((page.parent / "race.json").read_text(), parse_constant=refuse)
    assert len(told["results"]) == 4
    assert told["results"][0]["tuning"][3] == [None]
    assert told["settings"]["seeds"] == 5


@pytest.mark.slow
def test_a_race_without_targets_costs_or_ends_is_reported_too(tmp_path: Path) -> None:
    lost = made("sgd", "a", target=None)
    lost = Result(**(vars(lost) | {
        "tuning": np.full((4, 1), np.inf), "final": np.full(5, np.inf), "cost": None,
        "curves": {name: np.full((5, 4), np.nan) for name in lost.curves},
    }))  # fmt: skip
    text = report.write(Race((lost,), {}, {}, {}), tmp_path).read_text()
    assert "sgd diverged at every learning rate of the grid" in text
    assert "no target" in text
    assert not re.search(r"\bnan\b|\binf\b", without_images(text))


@pytest.mark.slow
def test_a_browser_shows_it_without_an_error_or_a_request(page: Path, browser: Any) -> None:
    sheet = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    sheet.on("request", lambda request: asked.append(request.url))
    sheet.on("console", lambda message: said.append(message.text))
    sheet.on("pageerror", lambda error: said.append(str(error)))
    sheet.goto(page.as_uri())
    assert sheet.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert sheet.evaluate("document.images.length") == 9
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert said == []
