"""The page in headless Chromium: what a user sees, does and trains, and that nothing is asked of a network."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxnn.cli.main import _parse
from jaxnn.cli.playground import PlaygroundConfig
from jaxnn.playground.page import render
from jaxnn.playground.training import Settings, run
from jaxnn.playground.views import make_views
from tests.helpers import float64
from tests.playground.conftest import Opens, until
from tests.playground.runs import SETTINGS, short_run

SECOND = 1000
LINKS = 3 * 4 + 4 * 3 + 3
CASES = {
    "tanh": {"noise": 0.1},
    "relu-l2-partial": {
        "data": "reg-gauss",
        "hidden": (8, 4),
        "activation": "relu",
        "train_ratio": 0.7,
        "batch_size": 13,
        "regularization": "l2",
        "regularization_rate": 0.003,
    },
    "sigmoid-l1": {
        "data": "xor",
        "features": ("xy", "sinx"),
        "activation": "sigmoid",
        "learning_rate": 0.3,
        "batch_size": 1,
        "regularization": "l1",
        "regularization_rate": 0.003,
    },
    "linear-whole": {"data": "reg-plane", "hidden": (), "batch_size": 5000},
}

STATE = """() => {
    const {session} = playground, {net, curve} = session;
    return {epoch: session.epoch, losses: curve.map(({train, test}) => [train, test]), gap: session.gap,
        layers: net.layers.map(({w, b}) => [[...w], [...b]]), settings: session.settings};
}"""


@functools.cache
def text() -> str:
    return render(*short_run())


@pytest.fixture
def page(opens: Opens) -> Any:
    return opens(text())


def epoch_of(page: Any) -> int:
    return page.evaluate("playground.session.epoch")


def pictures(page: Any) -> list[str]:
    """What the output, the last unit and the first feature show, and the widths of the lines."""
    canvases = page.locator("#surface"), page.locator(".unit canvas").last, page.locator(".feature canvas").first
    widths = page.locator(".link").evaluate_all("lines => lines.map(line => line.style.strokeWidth).join()")
    return [*(canvas.evaluate("canvas => canvas.toDataURL()") for canvas in canvases), widths]


def colours(page: Any, selector: str) -> np.ndarray:
    """The pixels of a canvas, (rows, columns, RGB), from a copy: the console advises against reading one drawn on."""
    found = page.locator(selector).first.evaluate("""shown => {
        const {width, height} = shown, copy = new OffscreenCanvas(width, height);
        const context = copy.getContext("2d", {willReadFrequently: true});
        context.drawImage(shown, 0, 0);
        return [[height, width, 4], [...context.getImageData(0, 0, width, height).data]];
    }""")
    return np.reshape(found[1], found[0])[..., :3]


def test_the_page_opens_at_the_end_of_the_run(page: Any) -> None:
    done, _ = short_run()
    assert page.inner_text("#epoch") == "epoch 30"
    assert f"training {done.train_loss[-1]:.3g}" in page.inner_text("#losses")
    assert page.locator(".unit").count() == 4 + 3 + 1
    assert page.locator(".link").count() == LINKS
    assert page.locator("#train-group > :visible").count() == 250
    assert page.title() == "circle: a network in training"
    assert "30 epochs in float32" in page.inner_text("#origin")


def test_training_again_gives_the_numbers_of_python(page: Any) -> None:
    done, _ = short_run()
    page.click("#reset")
    page.evaluate("playground.train(30)")
    state = page.evaluate(STATE)
    np.testing.assert_allclose(state["losses"], np.stack([done.train_loss, done.test_loss], axis=1), atol=1e-5)
    assert 0 < state["gap"] < 1e-5  # Python's are float32
    assert f"at most {state['gap']:.1e}".replace("e-0", "e-") in page.inner_text("#origin")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_hundred_epochs_are_those_of_python_in_float64(opens: Opens, name: str) -> None:
    with float64():
        done = run(Settings(epochs=100, **CASES[name]))
        page = opens(render(done, make_views(done)))
    page.click("#reset")
    page.evaluate("playground.train(100)")
    state = page.evaluate(STATE)
    assert state["epoch"] == 100
    np.testing.assert_allclose(state["losses"], np.stack([done.train_loss, done.test_loss], axis=1), atol=1e-10)
    for (w, b), layer in zip(state["layers"], done.at(-1)[::2], strict=True):
        np.testing.assert_allclose(w, layer["w"].ravel(), atol=1e-10)
        np.testing.assert_allclose(b, layer["b"], atol=1e-10)
    assert state["gap"] < 1e-10
    if name == "sigmoid-l1":
        assert any(0 in w for w, _ in state["layers"])


@pytest.mark.slow
def test_training_goes_on_from_any_epoch_of_the_run(page: Any) -> None:
    done, views = short_run()
    for frame in (3, 0, 11):
        page.locator("#slider").fill(str(frame))
        page.click("#step")
        epoch = int(views.epochs[frame]) + 1
        assert page.inner_text("#epoch") == f"epoch {epoch}"
        np.testing.assert_allclose(page.evaluate(STATE)["losses"][-1][0], done.train_loss[epoch], atol=1e-6)
        assert page.get_attribute("#slider", "max") == str(frame + 1)  # what came later is made anew
        page.click("#reload")
    assert epoch_of(page) == 30


@pytest.mark.slow
def test_the_slider_moves_every_picture(page: Any) -> None:
    _, views = short_run()
    last = pictures(page)
    page.locator("#slider").fill("0")
    first = pictures(page)
    assert page.inner_text("#epoch") == "epoch 0"
    assert [a != b for a, b in zip(first, last, strict=True)] == [True, True, False, True]  # features stay
    page.locator("#slider").press("ArrowRight")
    assert page.inner_text("#epoch") == f"epoch {views.epochs[1]}"
    assert page.get_attribute("#slider", "aria-valuetext") == f"epoch {views.epochs[1]}"
    left = float(page.get_attribute("#curves .now", "x1"))
    page.locator("#slider").press("End")
    assert float(page.get_attribute("#curves .now", "x1")) > left + 100
    assert pictures(page) == last


@pytest.mark.slow
def test_pixels_have_the_colours_of_the_values(page: Any) -> None:
    """Those of the output as the package computes it; the feature x is orange on the left, blue on the right."""
    _, views = short_run()
    shown, values = colours(page, "#surface"), views.output[-1]
    ends = np.where(values[..., None] < 0, [213, 94, 0], [0, 114, 178])
    expected = 247 + np.abs(np.clip(values, -1, 1))[..., None] * (ends - 247)
    assert np.abs(shown - expected).max() <= 2
    feature = colours(page, ".feature canvas")
    assert feature[14, 0].tolist() == [213, 94, 0]
    assert feature[14, 27].tolist() == [0, 114, 178]
    page.get_by_label("discretize the output").check()
    signs = colours(page, "#surface")
    assert {tuple(c) for c in signs.reshape(-1, 3).tolist()} == {(213, 94, 0), (0, 114, 178)}
    assert np.array_equal(signs[..., 0] == 0, values >= 0)


@pytest.mark.slow
def test_play_pause_step_and_speed(page: Any) -> None:
    page.click("#reset")
    assert (epoch_of(page), page.inner_text("#play")) == (0, "Play")
    page.click("#play")
    page.clock.run_for(SECOND)
    assert (epoch_of(page), page.inner_text("#play")) == (20, "Pause")
    page.select_option("#speed", "5")
    page.clock.run_for(SECOND)
    assert epoch_of(page) == 25
    page.click("#play")
    page.clock.run_for(SECOND)
    assert (epoch_of(page), page.inner_text("#play")) == (25, "Play")
    assert page.inner_text("#status").startswith("Epoch 25: training loss 0.")
    page.click("#step")
    assert epoch_of(page) == 26
    page.select_option("#speed", "as many as possible")
    page.click("#play")
    page.clock.run_for(100)
    assert epoch_of(page) > 60
    page.locator("#slider").fill("2")  # stops the play
    shown = epoch_of(page)
    assert shown == page.evaluate("playground.session.history[2].epoch") < 60
    page.clock.run_for(SECOND)
    assert (epoch_of(page), page.inner_text("#play")) == (shown, "Play")


@pytest.mark.slow
def test_a_long_training_keeps_a_few_snapshots(page: Any) -> None:
    page.evaluate("playground.train(600)")
    epochs = page.evaluate("playground.session.history.map(({epoch}) => epoch)")
    assert (epochs[0], epochs[-1]) == (0, 630)
    assert len(epochs) <= 121
    assert max(np.diff(epochs)) <= 16
    assert page.evaluate("playground.session.curve.length") == 631
    assert page.locator("#train-curve").get_attribute("points").count(",") <= 601


SET = [
    ("noise", "fill", "0.25", 0.25),
    ("train_ratio", "fill", "0.3", 0.3),
    ("batch_size", "fill", "32", 32),
    ("points_seed", "fill", "5", 5),
    ("weights_seed", "fill", "5", 5),
    ("activation", "select_option", "relu", "relu"),
    ("learning_rate", "select_option", "0.3", 0.3),
    ("regularization", "select_option", "l1", "l1"),
    ("regularization_rate", "select_option", "0.01", 0.01),
]


@pytest.mark.slow
def test_every_setting_can_be_changed_and_trained_on(page: Any) -> None:
    live = {"batch_size", "learning_rate", "regularization", "regularization_rate"}
    for name, action, value, kept in SET:
        before = epoch_of(page)
        getattr(page.locator(f"#{name}"), action)(value)
        page.locator(f"#{name}").dispatch_event("change")
        state = page.evaluate(STATE)
        assert state["settings"][name] == kept
        assert state["epoch"] == (before if name in live else 0), name
        page.click("#step")
        after = page.evaluate(STATE)
        assert np.isfinite(after["losses"]).all()
        assert after["layers"] != state["layers"]
    assert "other settings than the Python run's on other points" in page.inner_text("#origin")
    assert page.locator("#train-group > *").count() == 150
    for data, problem in (("spiral", "classification"), ("reg-plane", "regression"), ("reg-gauss", "regression")):
        page.select_option("#problem", problem)
        page.locator(f"#sources [value={data}]").check()
        assert page.evaluate("playground.session.settings.data") == data
        assert page.locator("#sources input").count() == (4 if problem == "classification" else 2)
        before = page.evaluate(STATE)["losses"][0][0]
        page.evaluate("playground.train(3)")
        assert page.evaluate(STATE)["losses"][-1][0] < before
    page.click("#reload")
    assert "and so are the points" in page.inner_text("#origin")
    assert page.input_value("#noise") == "0.1"


@pytest.mark.slow
def test_features_layers_and_units_can_be_changed(page: Any) -> None:
    def sizes() -> list[int]:
        return page.evaluate("playground.session.net.layers.map(({inputs}) => inputs)")

    assert sizes() == [3, 4, 3]
    page.locator(".feature [value=siny]").check()
    page.locator(".feature [value=x]").uncheck()
    assert page.evaluate("playground.session.settings.features") == ["y", "x2", "siny"]
    page.get_by_label("one unit more in hidden layer 1").click()
    page.get_by_label("one unit less in hidden layer 2").click()
    assert sizes() == [3, 5, 2]
    page.get_by_label("one hidden layer more").click()
    assert sizes() == [3, 5, 2, 2]
    for count in (3, 2, 1):
        assert page.inner_text("#layers") == f"{count} hidden layer{'s' * (count > 1)}"
        page.get_by_label("one hidden layer less").click()
    assert sizes() == [3]
    assert page.locator("#layer-less").is_disabled()
    assert page.evaluate("document.activeElement.id") == "layer-more"  # the focus is not lost
    page.evaluate("playground.train(5)")
    assert epoch_of(page) == 5
    for name in ("y", "x2"):
        page.locator(f".feature [value={name}]").uncheck()
    assert page.locator(".feature [value=siny]").is_disabled()  # one must stay
    for _ in range(6):
        page.click("#layer-more")
    assert page.locator("#layer-more").is_disabled()
    for _ in range(6):
        page.click("#more-0")
    assert sizes() == [1, 8, 2, 2, 2, 2, 2]
    assert page.locator("#more-0").is_disabled()


@pytest.mark.slow
def test_weights_and_biases_can_be_edited(page: Any) -> None:
    before = page.evaluate(STATE)
    page.locator(".catcher").nth(LINKS - 2).dispatch_event("click")  # from unit 2 of the last layer to the output
    assert page.evaluate("document.activeElement.dataset.from") == "1"
    page.keyboard.type("-2.5")
    page.keyboard.press("Tab")
    after = page.evaluate(STATE)
    assert after["layers"][2][0][1] == -2.5
    assert after["losses"][-1] != before["losses"][-1]
    assert after["losses"][:-1] == before["losses"][:-1]
    line = page.locator(".link").nth(LINKS - 2)
    assert line.evaluate("line => Number(line.style.strokeWidth)") == 0.75 + 2.25 * 2.5
    assert "the weights no longer" in page.inner_text("#origin")
    page.get_by_role("button", name="hidden layer 1, unit 2").click()
    assert page.evaluate("document.activeElement.dataset.from") == "bias"
    page.keyboard.type("0.75")
    page.keyboard.press("Enter")
    assert page.evaluate(STATE)["layers"][0][1][1] == 0.75
    page.click("#step")
    assert epoch_of(page) == 31
    page.locator("#values input").first.fill("")  # no number: it stays
    page.locator("#values input").first.press("Enter")
    assert page.locator("#values input").first.input_value() != ""


@pytest.mark.slow
def test_l1_keeps_weights_at_zero_until_they_are_edited(page: Any) -> None:
    page.select_option("#regularization", "l1")
    page.select_option("#regularization_rate", "0.1")
    page.evaluate("playground.train(40)")
    weights = page.evaluate(STATE)["layers"][0][0]
    zero = weights.index(0)
    assert page.locator(".link.zero").count() >= 1
    page.evaluate("playground.train(5)")
    assert page.evaluate(STATE)["layers"][0][0][zero] == 0
    page.select_option("#chosen", f"0,{zero % 4}")
    field = page.locator("#values input").nth(1 + zero // 4)
    field.fill("1")
    field.press("Enter")
    page.click("#step")
    assert 0 < abs(page.evaluate(STATE)["layers"][0][0][zero] - 1) < 0.5


@pytest.mark.slow
def test_test_points_can_be_shown_and_the_output_read(page: Any) -> None:
    page.get_by_label("test points").check()
    assert page.locator("#test-group > *").count() == 250
    assert page.locator("#test-group").is_visible()
    page.get_by_label("training points").uncheck()
    assert page.locator("#train-group").is_hidden()
    page.locator("#plane").hover(position={"x": 160, "y": 160})
    assert page.inner_text("#probed").startswith("output at (0, 0): 0.")
    page.locator("#probe-x").fill("5")
    page.locator("#probe-y").fill("-5")
    assert page.inner_text("#probed").startswith("output at (5, −5): −0.")  # noqa: RUF001
    page.locator(".unit").nth(1).hover()
    assert page.inner_text("#surface-title") == "Hidden layer 1, unit 2"
    assert page.inner_text("#readout").startswith("hidden layer 1, unit 2: bias ")
    page.locator("h1").hover()
    assert page.inner_text("#surface-title") == "Output"


@pytest.mark.slow
def test_divergence_is_told_and_stops_the_play(page: Any) -> None:
    page.select_option("#problem", "regression")
    page.select_option("#activation", "linear")
    page.select_option("#learning_rate", "10")
    page.click("#play")
    page.clock.run_for(30 * SECOND)
    assert page.inner_text("#play") == "Play"
    assert "The loss is not finite after epoch" in page.inner_text("#status")
    page.select_option("#learning_rate", "0.01")
    page.click("#reset")
    page.evaluate("playground.train(3)")
    assert np.isfinite(page.evaluate(STATE)["losses"]).all()


@pytest.mark.slow
def test_another_page_can_be_loaded(page: Any, tmp_path: Path) -> None:
    done = run(Settings(data="gauss", hidden=(3,), epochs=2))
    other = tmp_path / "other.html"
    other.write_text(render(done, make_views(done)), encoding="utf-8")
    page.set_input_files("#file", other)
    until(page, "playground.session.settings.data === 'gauss'")
    assert epoch_of(page) == 2
    assert page.locator(".unit").count() == 4
    for content, told in (
        ("no run", "neither a page"),
        ("<p>no run</p>", "neither a page"),
        ('{"format": 1}', "expected a run of format 2, got 1"),
        ("null", "got undefined"),
    ):
        other.write_text(content, encoding="utf-8")
        page.set_input_files("#file", [])
        page.set_input_files("#file", other)
        until(page, "told => document.querySelector('#status').textContent.includes(told)", told)
    assert page.evaluate("playground.session.settings.data") == "gauss"


@pytest.mark.slow
def test_the_command_trains_with_the_settings_shown(page: Any) -> None:
    def settings() -> Settings:
        program, name, *words = shlex.split(page.inner_text("#command"))
        assert (program, name) == ("jaxnn", "playground")
        return _parse("playground", PlaygroundConfig, words, None).settings()

    assert settings() == SETTINGS
    page.select_option("#regularization", "l2")
    page.select_option("#regularization_rate", "0.03")
    page.evaluate("playground.train(2)")
    assert (settings().regularization, settings().regularization_rate, settings().epochs) == ("l2", 0.03, 32)
    for _ in range(2):
        page.click("#layer-less")
    page.select_option("#regularization_rate", "0")
    assert (settings().hidden, settings().regularization) == ((), "none")


@pytest.mark.slow
def test_a_request_and_an_error_would_be_seen(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "broken.html"
    broken = text().replace("</body>", "<img src='http://localhost:9/a.png'><script>nowhere()</script></body>")
    file.write_text(broken, encoding="utf-8")
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    page.close()
    assert any("nowhere" in line for line in said)
    assert any("Content Security Policy" in line for line in said)
