"""The page of a report in a real browser: no error, tables are sorted, columns and lines are hidden."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import xpo_bench
from xpo_bench.report.content import assemble
from xpo_bench.report.render.html import page as render
from xpo_bench.runner.store import Store

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian's package chromium)"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("report") / "a <b> & c"
    xpo_bench.run("dpo,ipo,kto", tasks="bandit,deterministic", steps=30, seeds=2, out=root)
    store = Store(root)
    path = root / "report.html"
    path.write_text(render(assemble(root, store.records(), store.read_run())), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=["light", "dark"])
def opened(request: pytest.FixtureRequest, browser: Any, url: str) -> Iterator[tuple[str, Any]]:
    """The page in a scheme; afterwards nothing was said, has failed, or was asked of a network."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on(
        "request",
        lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None,
    )
    page.goto(url)
    yield request.param, page
    context.close()
    assert wrong == []


def column(page: Any, table: Any, index: int) -> list[str]:
    return [row.locator("th, td").nth(index).inner_text() for row in table.locator("tbody tr").all()]


def test_sorting_and_hiding(opened: tuple[str, Any]) -> None:
    _, page = opened
    section = page.locator("section.task").first
    table = section.locator("table.sortable").first
    names = column(page, table, 0)
    assert sorted(names) == ["dpo", "ipo", "kto"]
    head = table.locator("thead th")
    place = next(i for i, text in enumerate(head.all_inner_texts()) if text.startswith("frontier_gap"))
    for direction in ("ascending", "descending"):
        head.nth(place).locator("button").click()
        assert head.nth(place).get_attribute("aria-sort") == direction
        gaps = [float(text.split("±")[0]) for text in column(page, table, place)]
        assert gaps == sorted(gaps, reverse=direction == "descending")
    assert column(page, table, 0) != names or gaps != sorted(gaps)
    cell = table.locator("tbody tr").first.locator("th, td").nth(place)
    assert cell.is_visible()
    tools = section.locator("details.tools").first
    tools.locator("summary").click()
    tools.locator("label").nth(place - 1).locator("input").uncheck()
    assert not cell.is_visible()
    tools.locator("label").nth(place - 1).locator("input").check()
    assert cell.is_visible()


def test_lines_are_hidden_by_their_legend(opened: tuple[str, Any]) -> None:
    _, page = opened
    figure = page.locator("figure").filter(has=page.locator(".entry")).first
    button = figure.locator(".entry button").first
    series = figure.locator(".entry").first.get_attribute("data-s")
    assert figure.locator(f".plot [data-s='{series}']").count() > 0
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert figure.locator(f".plot [data-s='{series}']:not(.off)").count() == 0


def test_both_schemes_are_drawn(opened: tuple[str, Any]) -> None:
    scheme, page = opened
    text, ground = (
        page.evaluate(
            f"getComputedStyle(document.body).{name}.match(/[0-9.]+/g).slice(0, 3)"
            ".reduce((a, b) => a + +b, 0)"
        )
        for name in ("color", "backgroundColor")
    )
    assert (ground > text) == (scheme == "light")
    assert abs(ground - text) > 400  # of 765: read with ease
    assert page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth"
    )  # tables scroll, the page does not


SMALLEST = 9.3
"""Pixels of a screen below which the text of a chart is not legible."""


@pytest.mark.parametrize("width", [1400, 400])
def test_charts_are_legible_on_a_desk_and_on_a_telephone(browser: Any, url: str, width: int) -> None:
    """Within the page, no text too small, none cut, and no two of one picture on top of each other."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(url)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    pictures = page.locator(".plot > svg")
    assert pictures.count() > 8
    for i in range(pictures.count()):
        found = pictures.nth(i).evaluate(
            """svg => {
              const place = e => e.getBoundingClientRect();
              const box = e => (({left, top, right, bottom}) => [left, top, right, bottom])(place(e));
              const scale = place(svg).width / svg.viewBox.baseVal.width;
              const texts = [...svg.querySelectorAll("text")].map(
                t => [t.textContent, scale * t.getAttribute("font-size"), box(t)]);
              return [box(svg), texts];
            }"""
        )
        (left, top, right, bottom), texts = found
        assert 0 <= left < right <= width
        assert texts
        for text, size, (x0, y0, x1, y1) in texts:
            assert size >= SMALLEST, text
            assert left - 1 <= x0 < x1 <= right + 1, text
            assert top - 2 <= y0 < y1 <= bottom + 2, text
        # the boxes of a font are taller than its letters
        boxes = [(t, x0, y0 + 0.2 * (y1 - y0), x1, y1 - 0.2 * (y1 - y0)) for t, _, (x0, y0, x1, y1) in texts]
        for a, b in combinations(boxes, 2):
            assert a[3] <= b[1] or b[3] <= a[1] or a[4] <= b[2] or b[4] <= a[2], (a[0], b[0])
    page.close()


def test_the_numbers_of_a_chart_open(opened: tuple[str, Any]) -> None:
    _, page = opened
    figure = page.locator("figure").first
    assert not figure.locator("pre").is_visible()
    figure.locator("summary").click()
    assert figure.locator("pre").inner_text().startswith("# ")


def test_it_prints(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("details.tools").first.is_visible()  # nothing to click on paper


def test_it_is_whole_without_its_script(browser: Any, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert page.locator("table.sortable tbody tr").first.is_visible()
    assert page.locator("figure svg").first.is_visible()
    context.close()


def test_a_script_that_is_smuggled_in_is_refused(browser: Any, url: str, tmp_path: Path) -> None:
    """The policy of the page, beside its escaping: an image or a script that got into it would not load."""
    source = Path(
        url.removeprefix("file://")
        .replace("%20", " ")
        .replace("%3C", "<")
        .replace("%3E", ">")
        .replace("%26", "&")
    )
    evil = tmp_path / "evil.html"
    smuggled = "<script>document.title='taken'</script><img src='https://example.org/x.png'></body>"
    evil.write_text(source.read_text("utf-8").replace("</body>", smuggled), encoding="utf-8")
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(evil.as_uri())
    assert page.title() != "taken"
    assert len(refused) >= 2
    assert all("Content Security Policy" in text for text in refused)
