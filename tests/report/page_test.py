"""The page in a real browser; `make browser` installs it."""

import dataclasses
import re

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from shared.browser import start

from dqa_keras.report import page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def findings(examined):
    return dataclasses.replace(examined[-1], name="stripes & <more>")


@pytest.fixture(scope="module")
def opened(browser, findings, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render(findings))
    browser.get(path.as_uri())
    return browser


def color_scheme(browser, name):
    feature = {"name": "prefers-color-scheme", "value": name}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def brightness(browser, what):
    color = browser.execute_script(
        f"return getComputedStyle(document.body).{what}.match(/\\d+/g).slice(0, 3)"
    )
    return sum(map(int, color)) / 3


def test_nothing_is_asked_of_a_network_and_nothing_fails(opened):
    assert opened.get_log("browser") == []
    loaded = opened.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert opened.title == "DQA report: stripes & <more>"
    headings = [heading.text for heading in opened.find_elements(By.TAG_NAME, "h2")]
    assert headings == [
        "Accuracy against stored bits",
        "Layers",
        "Where the error enters",
        "Memory, step by step",
        "Which channels matter",
        "Activations on the grid of their codes",
        "Not quantized",
        "How it was measured",
    ]


def test_the_table_sorts_by_keyboard(opened):
    table = opened.find_element(By.CSS_SELECTOR, "table.sorts")
    heads = table.find_elements(By.CSS_SELECTOR, "th")
    index = next(i for i, head in enumerate(heads) if "SQNR, dB" in head.text)

    def column():
        cells = table.find_elements(By.CSS_SELECTOR, f"td:nth-child({index + 1})")
        return [float(cell.text) for cell in cells]

    before = column()
    # By Tab alone, from the top of the page.
    opened.find_element(By.TAG_NAME, "body").click()
    wanted = heads[index].find_element(By.TAG_NAME, "button")
    for _ in range(40):
        if opened.switch_to.active_element == wanted:
            break
        opened.switch_to.active_element.send_keys(Keys.TAB)
    assert opened.switch_to.active_element == wanted
    assert [head.get_attribute("aria-sort") for head in heads] == ["none"] * len(heads)
    for order, rows in (
        ("ascending", sorted(before)),
        ("descending", sorted(before, reverse=True)),
    ):
        opened.switch_to.active_element.send_keys(Keys.ENTER)
        assert heads[index].get_attribute("aria-sort") == order
        assert column() == rows
    assert sorted(before) != sorted(before, reverse=True)


def test_light_and_dark_follow_the_reader(opened):
    color_scheme(opened, "light")
    assert brightness(opened, "backgroundColor") > 200 > brightness(opened, "color")
    color_scheme(opened, "dark")
    assert brightness(opened, "backgroundColor") < 60 < brightness(opened, "color")


def test_a_phone_shows_it_without_sideways_scrolling(opened):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        width = opened.execute_script("return document.documentElement.scrollWidth")
        assert width == 390
        # Text of charts is drawn at 10 pixels or more.
        smallest = opened.execute_script(
            "return Math.min(...[...document.querySelectorAll('svg text')]"
            ".map(text => text.getBoundingClientRect().height))"
        )
        assert smallest >= 10
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_what_is_shown_is_escaped_and_stays_small(findings):
    text = page.render(findings)
    assert "<more>" not in text
    assert "stripes &amp; &lt;more&gt;" in text
    assert re.findall(r'(?:src|href)="(?!data:,)([^"]*)"', text) == []
    assert len(text) < 100_000


def test_what_is_absent_is_said_to_be(findings):
    bare = dataclasses.replace(
        findings,
        scores=None,
        timeline=None,
        output_sqnr=None,
        absent={"scores": "No labels.", "memory": "No graph."},
    )
    text = page.render(bare)
    assert "<h2>Accuracy against stored bits</h2>" in text
    assert "No labels." in text
    assert "No graph." in text
    assert 'class="curve direct"' not in text.split("<h2>Which channels")[0]
