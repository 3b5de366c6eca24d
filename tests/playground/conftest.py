"""The page and its modules in headless Chromium, from disk and without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest

WEB = resources.files("jaxnn.playground") / "web"
ORIGIN = "http://playground.test/"
"""Never asked for: the browser's requests are answered from the folder."""


def serve(browser: Any, *mutants: tuple[str, str, str]) -> Any:
    """A page in which `await import("/network.js")` works; each mutant is (file, text, what replaces it)."""

    def answer(route: Any) -> None:
        name = route.request.url.removeprefix(ORIGIN)
        if not name.endswith(".js"):
            return route.fulfill(body="<!doctype html>", content_type="text/html")
        text = (WEB / name).read_text(encoding="utf-8")
        for file, old, new in mutants:
            if file == name:
                assert text.count(old) == 1, (file, old)
                text = text.replace(old, new)
        return route.fulfill(body=text, content_type="text/javascript")

    page = browser.new_page()
    page.route("**/*", answer)
    page.goto(ORIGIN)
    return page


@pytest.fixture(scope="module")
def modules(browser: Any) -> Iterator[Any]:
    """The modules as they are."""
    page = serve(browser)
    yield page
    page.close()


class Opened(NamedTuple):
    """A page in the browser, what its console said, and what it asked for."""

    page: Any
    said: list[str]
    requests: list[str]


Opens: TypeAlias = Callable[..., Any]
"""(HTML text, options of the browser's page) -> the page, whose time only tests make pass."""


def until(page: Any, expression: str, argument: Any = None) -> None:
    """Wait for an expression to be true; the page's security policy forbids `wait_for_function`, which evaluates."""
    for _ in range(200):
        if page.evaluate(expression, argument):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")


@pytest.fixture
def opens(browser: Any, tmp_path: Path) -> Iterator[Opens]:
    """Open pages; in the end, no console said anything and nothing was asked for but the files."""
    opened: list[tuple[Opened, str]] = []

    def open_(text: str, **options: Any) -> Any:
        file = tmp_path / f"page-{len(opened)}.html"
        file.write_text(text, encoding="utf-8")
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}} | options)
        one = Opened(page, [], [])
        opened.append((one, file.as_uri()))
        page.on("console", lambda message: one.said.append(message.text))
        page.on("pageerror", lambda error: one.said.append(str(error)))
        page.on("request", lambda request: one.requests.append(request.url))
        page.clock.install(time=0)
        page.goto(file.as_uri())
        page.clock.pause_at(1000)
        return page

    yield open_
    for one, address in opened:
        assert one.said == []
        assert [url for url in one.requests if not url.startswith("data:")] == [address]
        one.page.close()
