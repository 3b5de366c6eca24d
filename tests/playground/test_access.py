"""The page by keyboard, for screen readers, on a phone, without colours, without motion."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from jaxnn.playground.page import render
from tests.playground.conftest import Opens, until
from tests.playground.runs import short_run

pytestmark = pytest.mark.slow

CONTROLS = "button, input, select"


@functools.cache
def text() -> str:
    return render(*short_run())


def names(page: Any) -> list[str]:
    """What a screen reader calls each control: its aria-label, or the text of its label, or its own."""
    return page.locator(CONTROLS).evaluate_all("""controls => controls.map(control =>
        (control.getAttribute("aria-label") ?? [...(control.labels ?? [])].map(l => l.textContent).join() ??
            "").trim() || control.textContent.trim())""")


def test_every_control_has_a_name_and_they_differ_in_each_group(opens: Opens) -> None:
    page = opens(text())
    found = names(page)
    assert len(found) > 50
    assert all(found)
    assert not page.locator("button:not([type=button])").count()
    for role, name in (
        ("button", "Play"),
        ("slider", "epoch shown"),
        ("combobox", "learning rate"),
        ("spinbutton", "batch size"),
        ("checkbox", "x²"),
        ("radio", "spiral"),
        ("group", "hidden layer 2"),
        ("region", "Network"),
        ("img", "output over the plane, x and y from -6 to 6"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, name
    curves = page.get_by_role("img", name="loss against the epoch")
    assert "at epoch 30 training 0." in curves.get_attribute("aria-label")


def test_headings_are_in_order_and_every_section_is_named(opens: Opens) -> None:
    page = opens(text())
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => h.tagName)")
    assert levels == ["H1", *["H2"] * 7]
    labelled = page.locator("section").evaluate_all("""all => all.map(section => section.getAttribute("aria-label") ??
        document.getElementById(section.getAttribute("aria-labelledby")).textContent)""")
    assert all(labelled)
    assert len(set(labelled)) == len(labelled)
    assert page.get_attribute("html", "lang") == "en"


def test_the_tab_key_goes_through_the_page_in_the_order_of_reading(opens: Opens) -> None:
    page = opens(text(), viewport={"width": 400, "height": 900})
    places = []
    for _ in range(120):
        page.keyboard.press("Tab")
        place = page.evaluate("""() => {
            const {activeElement: e} = document, box = e.closest("section")?.id;
            return [e.id || e.value || e.className, box, e.getBoundingClientRect().top + scrollY];
        }""")
        if place[1] is None:
            break
        places.append(place)
    ids = [place[0] for place in places]
    assert ids[:5] == ["reset", "play", "step", "slider", "speed"]
    wanted = [
        "problem",
        "noise",
        "activation",
        "learning_rate",
        "x",
        "more-0",
        "unit",
        "train-points",
        "chosen",
        "file",
    ]
    assert sorted(wanted, key=ids.index) == wanted
    assert ids.count("unit") == 1  # the others by arrow keys
    sections = [place[1] for place in places]
    assert list(dict.fromkeys(sections)) == ["bar", "training", "data", "middle", "result", "editor", "python"]


def test_units_are_reached_by_arrow_keys_and_opened_by_enter(opens: Opens) -> None:
    page = opens(text())
    focused = "document.activeElement.getAttribute('aria-label')"
    page.locator(".unit[tabindex='0']").focus()
    assert page.evaluate(focused) == "hidden layer 1, unit 1"
    for key, name in (
        ("ArrowDown", "hidden layer 1, unit 2"),
        ("ArrowUp", "hidden layer 1, unit 1"),
        ("ArrowUp", "hidden layer 1, unit 1"),
        ("ArrowRight", "hidden layer 2, unit 1"),
        ("ArrowRight", "output"),
        ("ArrowRight", "output"),
        ("ArrowLeft", "hidden layer 2, unit 1"),
        ("ArrowDown", "hidden layer 2, unit 2"),
    ):
        page.keyboard.press(key)
        assert page.evaluate(focused) == name
    assert page.locator(".unit[tabindex='0']").count() == 1
    assert page.inner_text("#readout").startswith("hidden layer 2, unit 2: bias")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.labels[0].textContent") == "bias"
    assert page.get_attribute("#values", "aria-label") == "hidden layer 2, unit 2"


def test_losses_are_announced_at_pauses_and_seldom_during_play(opens: Opens) -> None:
    page = opens(text())
    assert page.get_attribute("#status", "role") == "status"  # a polite live region
    assert page.locator("output, [aria-live], [role=status], [role=alert], [role=log]").count() == 1
    page.evaluate("""() => {
        window.announced = [];
        new MutationObserver(() => announced.push(document.getElementById("status").textContent)).observe(
            document.getElementById("status"), {childList: true, characterData: true, subtree: true});
    }""")
    page.select_option("#speed", "1")
    page.click("#play")
    page.clock.run_for(12_500)
    page.click("#play")
    announced = page.evaluate("announced")
    assert 2 <= len(announced) <= 4
    assert all("training loss" in line and "test loss" in line for line in announced)


def test_what_a_slider_sets_is_told_with_its_value(opens: Opens) -> None:
    page = opens(text())
    page.locator("#probe-x").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#probe-x", "aria-valuetext").startswith("0.1, output at (0.1, 0): 0.")
    page.locator("#noise").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#noise", "aria-valuetext") == "0.11 (11%)"
    assert page.evaluate("document.activeElement.id") == "noise"  # though the points are new


def test_nothing_is_told_by_colour_alone(opens: Opens) -> None:
    page = opens(text())
    weights = page.evaluate("playground.session.net.layers.flatMap(({w}) => [...w])")
    dashes = page.locator(".link").evaluate_all("all => all.map(line => getComputedStyle(line).strokeDasharray)")
    layers = page.evaluate("playground.session.net.layers.map(({w}) => w.length)")
    assert layers == [12, 12, 3]
    assert [dash == "none" for dash in dashes] == [w > 0 for w in weights]
    targets = page.evaluate("[...playground.session.points.train.y]")
    shapes = page.locator("#train-group > *").evaluate_all("all => all.map(mark => mark.tagName)")
    assert shapes == ["circle" if t > 0 else "rect" for t in targets]
    assert len(page.get_attribute("#zero", "d")) > 200
    curves = [page.get_attribute(f"#{name}-curve", "stroke-dasharray") for name in ("train", "test")]
    assert curves == ["none", "7 4"]


@pytest.mark.parametrize("width", [320, 768])
def test_it_fits_a_phone(opens: Opens, width: int) -> None:
    page = opens(text(), viewport={"width": width, "height": 640}, has_touch=True)
    page.evaluate(
        "playground.change({hidden: Array(6).fill(8), features: ['x', 'y', 'x2', 'y2', 'xy', 'sinx', 'siny']})"
    )
    assert page.locator(".unit").count() == 49
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.locator("main *").evaluate_all(
        """(all, width) => all.filter(e => {
            const {left, right} = e.getBoundingClientRect();
            return !e.closest("svg, option") && (right > width + 1 || left < -1);
        }).map(e => e.outerHTML)""",
        width,
    )
    assert outside == []
    boxes = page.locator("button").evaluate_all("all => all.map(b => b.getBoundingClientRect().toJSON())")
    assert min(min(box["width"], box["height"]) for box in boxes) >= 24
    for first, second in zip(boxes[-49:-1], boxes[-48:], strict=False):  # units do not cover each other
        assert abs(first["x"] - second["x"]) >= 24 or abs(first["y"] - second["y"]) >= 24
    page.evaluate("scrollTo(0, 900)")
    assert page.locator("#play").bounding_box()["y"] < 100  # the bar stays in view
    page.tap("#step")
    assert page.evaluate("playground.session.epoch") == 1


def test_the_picture_follows_the_width(opens: Opens) -> None:
    page = opens(text())
    wide = page.locator(".unit").last.bounding_box()
    page.set_viewport_size({"width": 360, "height": 700})
    until(page, "document.querySelector('.unit').getBoundingClientRect().width < 30")
    assert page.locator(".unit").last.bounding_box()["x"] < 360 < wide["x"]


@pytest.mark.parametrize(("motion", "least", "most"), [("reduce", 2, 5), ("no-preference", 40, 90)])
def test_who_prefers_less_motion_gets_a_picture_a_second(opens: Opens, motion: str, least: int, most: int) -> None:
    page = opens(text(), reduced_motion=motion)
    page.evaluate("""() => {
        window.drawn = 0;
        new MutationObserver(() => { drawn += 1; }).observe(document.getElementById("epoch"), {childList: true});
    }""")
    page.click("#play")
    page.clock.run_for(3000)
    assert page.evaluate("playground.session.epoch") == 90
    assert least <= page.evaluate("drawn") <= most
