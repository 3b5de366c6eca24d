"""The page in headless Chromium, from disk: what a user sees and does, and that nothing is asked of a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jaxnn.playground.page import render
from tests.playground.runs import short_run

DELAY = 150


class Open(NamedTuple):
    """A page in the browser, what its console said, and what it asked for."""

    page: Any
    said: list[str]
    requests: list[str]


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Open]:
    file = tmp_path / "playground.html"
    file.write_text(render(*short_run()), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    opened = Open(page, [], [])
    page.on("console", lambda message: opened.said.append(message.text))
    page.on("pageerror", lambda error: opened.said.append(str(error)))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.clock.install(time=0)
    page.goto(file.as_uri())
    page.clock.pause_at(1000)  # from here on only tests make time pass
    yield opened
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]
    page.close()


def frame_of(page: Any) -> int:
    return int(page.get_attribute("body", "data-frame"))


def pictures(page: Any) -> list[str]:
    """What the output, the last hidden unit and the first feature show, and the widths of the lines."""
    canvases = page.locator("#surface"), page.locator(".unit").last, page.locator(".unit").first
    widths = page.locator("#links line").evaluate_all("lines => lines.map(line => line.style.strokeWidth).join()")
    return [*(canvas.evaluate("canvas => canvas.toDataURL()") for canvas in canvases), widths]


def test_the_page_opens_at_the_last_epoch(shown: Open) -> None:
    run, views = short_run()
    page = shown.page
    assert frame_of(page) == len(views.epochs) - 1
    assert page.inner_text("#epoch") == "epoch 30"
    assert f"training {run.train_loss[-1]:.3g}" in page.inner_text("#losses")
    assert page.locator(".unit").count() == 3 + 4 + 3
    assert page.locator("#links line").count() == 3 * 4 + 4 * 3 + 3
    assert page.locator("#points circle:visible").count() == 250
    assert page.title() == "circle: a network in training"


@pytest.mark.slow
def test_the_slider_moves_every_picture(shown: Open) -> None:
    _, views = short_run()
    page = shown.page
    last = pictures(page)
    page.locator("#slider").fill("0")
    first = pictures(page)
    assert (frame_of(page), page.inner_text("#epoch")) == (0, "epoch 0")
    assert [a != b for a, b in zip(first, last, strict=True)] == [True, True, False, True]  # features stay
    page.locator("#slider").press("ArrowRight")
    assert page.inner_text("#epoch") == f"epoch {views.epochs[1]}"
    marker = "document.querySelector('#curves > line:last-of-type').getAttribute('x1')"
    left = float(page.evaluate(marker))
    page.locator("#slider").press("End")
    assert float(page.evaluate(marker)) > left + 100
    assert pictures(page) == last


@pytest.mark.slow
def test_pixels_have_the_colours_of_the_values(shown: Open) -> None:
    """The centre of the disc is blue, the corners orange; the feature x is orange on the left, blue on the right."""
    # From a copy, as the console advises against reading a canvas that is drawn on.
    colour = """([id, x, y]) => {
        const shown = document.querySelector(id), {width, height} = shown, copy = new OffscreenCanvas(width, height);
        const context = copy.getContext("2d", {willReadFrequently: true});
        context.drawImage(shown, 0, 0);
        return [...context.getImageData(x * (width - 1), y * (height - 1), 1, 1).data];
    }"""
    centre, corner = (shown.page.evaluate(colour, ["#surface", at, at]) for at in (0.5, 0))
    assert centre[2] > centre[0] + 50
    assert corner[0] > corner[2] + 50
    assert shown.page.evaluate(colour, [".unit", 0, 0.5]) == [213, 94, 0, 255]
    assert shown.page.evaluate(colour, [".unit", 1, 0.5]) == [0, 114, 178, 255]


@pytest.mark.slow
def test_play_runs_to_the_end_and_pause_stops(shown: Open) -> None:
    _, views = short_run()
    page = shown.page
    page.click("#play")  # at the end: it starts over
    page.clock.run_for(3 * DELAY)
    assert (frame_of(page), page.inner_text("#play")) == (3, "Pause")
    page.click("#play")
    page.clock.run_for(10 * DELAY)
    assert (frame_of(page), page.inner_text("#play")) == (3, "Play")
    page.locator("#slider").fill(str(len(views.epochs) - 3))
    page.click("#play")
    page.clock.run_for(10 * DELAY)
    assert (frame_of(page), page.inner_text("#play")) == (len(views.epochs) - 1, "Play")


@pytest.mark.slow
def test_the_slider_stops_the_play(shown: Open) -> None:
    page = shown.page
    page.click("#play")
    page.clock.run_for(2 * DELAY)
    page.locator("#slider").fill("9")
    page.clock.run_for(5 * DELAY)
    assert (frame_of(page), page.inner_text("#play")) == (9, "Play")


@pytest.mark.slow
def test_test_points_can_be_shown(shown: Open) -> None:
    page = shown.page
    page.check("#test-points")
    assert page.locator("#points circle:visible").count() == 500
    page.uncheck("#train-points")
    assert page.locator("#points circle:visible").count() == 250
    assert page.locator("#train-group").is_hidden()


@pytest.mark.slow
def test_a_request_and_an_error_would_be_seen(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "broken.html"
    broken = render(*short_run()).replace(
        "</body>", "<img src='http://localhost:9/a.png'><script>nowhere()</script></body>"
    )
    file.write_text(broken, encoding="utf-8")
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    page.close()
    assert any("nowhere" in text for text in said)
    assert any("Content Security Policy" in text for text in said)
