"""The pages in a real browser: they open, move, filter, fit a telephone, and can be read."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scored_run import (
    CASES,
    FRAMES_PER_SWEEP,
    N_FRAMES,
    QUALITY_LABELS,
    ScoredRun,
    grey_of,
)
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from evaluation.__main__ import main

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if BROWSER is None or DRIVER is None:
    # CI has to have both, so that a browser that is missing there does not pass for success.
    assert not os.environ.get("CI"), "CI has to install chromium and chromium-driver"
    pytest.skip("no chromium, or no chromedriver", allow_module_level=True)

WIDE, NARROW = 1280, 390
PAGES = ("view", "report", "board")
# WebP at the page's quality leaves level areas within this of their grey.
GREY_TOLERANCE = 1.4
# Web Content Accessibility Guidelines 2.1, level AA: for text, and for large text.
LEAST_CONTRAST, LEAST_CONTRAST_LARGE = 4.5, 3.0
# A copy of a canvas of the page: to read pixels of the page's own makes the browser warn.
COPY = """
  const copy = name => {
    const from = document.getElementById(name), to = document.createElement("canvas");
    Object.assign(to, { width: from.width, height: from.height });
    const pen = to.getContext("2d", { willReadFrequently: true });
    pen.drawImage(from, 0, 0);
    return [pen, to.width, to.height];
  };
"""


@pytest.fixture(scope="module")
def pages(scored_run: ScoredRun) -> dict[str, Path]:
    scored = str(scored_run.scored)
    assert main(["view", "case-a", "--scored", scored, "--model", str(scored_run.bundle)]) == 0
    assert main(["report", scored, "--workers", "1"]) == 0
    board = scored_run.scored.parent / "board"
    assert main(["compare", scored, str(scored_run.other), "--output", str(board)]) == 0
    return {
        "view": scored_run.scored / "cases" / "case-a.html",
        "report": scored_run.scored / "report.html",
        "board": board / "leaderboard.html",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


Open = Callable[..., webdriver.Chrome]


@pytest.fixture
def open_page(browser: webdriver.Chrome, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page at a width; in the end its console must hold no error or warning."""

    def open_(name: str, width: int = WIDE) -> webdriver.Chrome:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == NARROW}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get("about:blank")  # A page that is open already would keep its state.
        browser.get(pages[name].as_uri())
        return browser

    yield open_
    said = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry["message"] for entry in said] == []


def text_of(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.ID, name).text


def wait_for(browser: webdriver.Chrome, condition: Callable[[], object]) -> None:
    WebDriverWait(browser, 10, poll_frequency=0.02).until(lambda _: condition())


def shown(browser: webdriver.Chrome) -> int:
    """The frame that is painted, once it is the one that is asked for."""
    script = """
      const painted = document.getElementById("frame").dataset.shown;
      return document.getElementById("position").value === painted ? [Number(painted)] : null;
    """
    waiting = WebDriverWait(browser, 10, poll_frequency=0.02)
    return int(waiting.until(lambda _: browser.execute_script(script))[0])


def grey(browser: webdriver.Chrome) -> float:
    """The mean grey of a patch at the lower middle of the painted frame, without outlines."""
    script = """
      const [pen, width, height] = copy("frame");
      const x = Math.round(width / 2), y = Math.round(height * 0.93);
      const pixels = pen.getImageData(x - 8, y - 8, 16, 16).data;
      return pixels.filter((_, k) => k % 4 === 0).reduce((a, b) => a + b) / 256;
    """
    return float(browser.execute_script(COPY + script))


def press(browser: webdriver.Chrome, *keys: str) -> None:
    actions = ActionChains(browser)
    for key in keys:
        actions.send_keys(key)
    actions.perform()


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_fits_and_says_that_it_is_simulated(
    page: str, width: int, open_page: Open
) -> None:
    browser = open_page(page, width)
    assert "SIMULATED" in browser.find_element(By.TAG_NAME, "main").text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # Nothing outside of the page was asked for.
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert not [name for name in browser.execute_script(loaded) if name.startswith("http")]


@pytest.mark.parametrize("page", PAGES)
def test_text_has_contrast_and_controls_have_names(page: str, open_page: Open) -> None:
    browser = open_page(page)
    found = browser.execute_script((Path(__file__).parent / "contrast.js").read_text())
    assert found["checked"] > 30
    poor = [
        entry
        for entry in found["texts"]
        if entry["ratio"] < (LEAST_CONTRAST_LARGE if entry["large"] else LEAST_CONTRAST)
    ]
    assert poor == []
    assert found["nameless"] == []


def test_every_frame_that_is_scrubbed_to_is_the_right_one(open_page: Open) -> None:
    browser = open_page("view")
    slider = browser.find_element(By.ID, "position")
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
    for frame in (0, 1, 9, 10, 11, 37, N_FRAMES - 1, 3):  # Across the ends of strips, and back.
        browser.execute_script(script, slider, frame)
        assert shown(browser) == frame
        assert grey(browser) == pytest.approx(grey_of(frame), abs=GREY_TOLERANCE)
        sweep = frame // FRAMES_PER_SWEEP + 1
        assert text_of(browser, "place").startswith(f"frame {frame} · sweep {sweep}, ")


def test_a_quick_scrub_ends_on_the_last_frame_that_was_asked_for(open_page: Open) -> None:
    browser = open_page("view")
    browser.execute_script("for (const frame of [70, 3, 55, 20, 41]) go(frame)")
    assert shown(browser) == 41
    time.sleep(0.2)  # What was asked for before may still be decoded.
    assert grey(browser) == pytest.approx(grey_of(41), abs=GREY_TOLERANCE)


def test_the_keyboard_moves_and_switches(open_page: Open) -> None:
    browser = open_page("view")
    chosen = shown(browser)
    press(browser, Keys.HOME)
    assert shown(browser) == 0
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert shown(browser) == 1
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(
        Keys.SHIFT
    ).perform()
    assert shown(browser) == 11
    press(browser, Keys.ARROW_DOWN)
    assert shown(browser) == 11 + FRAMES_PER_SWEEP
    press(browser, Keys.ARROW_UP, Keys.HOME, "n")
    assert shown(browser) == min(QUALITY_LABELS)
    press(browser, Keys.END, "p")
    assert shown(browser) == max(QUALITY_LABELS)
    press(browser, "5")
    assert shown(browser) // FRAMES_PER_SWEEP == 4
    press(browser, "c")
    assert shown(browser) == chosen
    for key, name in (("m", "mask"), ("e", "ellipse"), ("t", "truth"), ("b", "beside")):
        button = browser.find_element(By.CSS_SELECTOR, f'[data-show="{name}"]')
        before = button.get_attribute("aria-pressed")
        press(browser, key)
        assert {before, button.get_attribute("aria-pressed")} == {"true", "false"}
    press(browser, " ")
    wait_for(browser, lambda: shown(browser) != chosen)
    press(browser, " ")
    assert browser.find_element(By.ID, "play").get_attribute("aria-pressed") == "false"


def coloured(browser: webdriver.Chrome, name: str) -> int:
    """How many pixels of a canvas are not grey: what is drawn in colour over the frame."""
    script = """
      const [pen, width, height] = copy(arguments[0]);
      const pixels = pen.getImageData(0, 0, width, height).data;
      let count = 0;
      for (let k = 0; k < pixels.length; k += 4) count += Math.abs(pixels[k] - pixels[k + 2]) > 60;
      return count;
    """
    return int(browser.execute_script(COPY + script, name))


def test_outlines_are_drawn_and_can_be_switched_off(open_page: Open) -> None:
    browser = open_page("view")
    shown(browser)
    assert coloured(browser, "frame") > 100
    browser.find_element(By.CSS_SELECTOR, '[data-show="mask"]').click()
    wait_for(browser, lambda: coloured(browser, "frame") == 0)
    annotated = next(k for k, label in QUALITY_LABELS.items() if label == 1)
    browser.execute_script("go(arguments[0])", annotated)
    shown(browser)
    assert coloured(browser, "true") > 100
    assert "optimal" in text_of(browser, "nearest")
    browser.find_element(By.CSS_SELECTOR, '[data-show="truth"]').click()
    wait_for(browser, lambda: coloured(browser, "true") == 0)
    browser.execute_script("go(20)")
    nearest = browser.find_element(By.CSS_SELECTOR, "#nearest button")
    assert nearest.text == "frame 17"
    nearest.click()
    assert shown(browser) == 17


def test_charts_and_frames_can_be_dragged(open_page: Open) -> None:
    browser = open_page("view")
    shown(browser)
    overview = browser.find_element(By.ID, "overview")
    actions = ActionChains(browser)
    actions.move_to_element_with_offset(overview, int(overview.size["width"] * 0.4), 0).click()
    actions.perform()
    last_sweep = shown(browser) // FRAMES_PER_SWEEP
    assert last_sweep == 5
    canvas = browser.find_element(By.ID, "frame")
    before = shown(browser)
    ActionChains(browser).click_and_hold(canvas).move_by_offset(-90, 0).release().perform()
    assert shown(browser) < before


def test_a_finger_scrubs_on_a_telephone(open_page: Open) -> None:
    browser = open_page("view", NARROW)
    browser.execute_script("go(30); scrollTo(0, 0)")
    assert shown(browser) == 30
    box = browser.find_element(By.ID, "frame").rect
    y = box["y"] + box["height"] / 2
    for kind, x in (
        ("touchStart", 100),
        ("touchMove", 160),
        ("touchMove", 220),
        ("touchEnd", None),
    ):
        points = [] if x is None else [{"x": x, "y": y}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert shown(browser) == pytest.approx(30 + FRAMES_PER_SWEEP * 120 / box["width"], abs=1)


def visible_names(browser: webdriver.Chrome) -> list[str]:
    script = """return Array.from(document.querySelectorAll("#cases > *"))
      .filter(item => !item.hidden).map(item => item.dataset.name)"""
    return list(browser.execute_script(script))


def test_the_report_sorts_filters_and_searches(open_page: Open, scored_run: ScoredRun) -> None:
    browser = open_page("report")
    result = json.loads((scored_run.scored / "metrics.json").read_text())
    cases = {case["case"]: case for case in result["cases"]}
    worst_first = sorted(CASES, key=lambda name: cases[name]["score"])
    scores = [cases[name]["score"] for name in visible_names(browser)]
    assert scores == sorted(scores)
    browser.find_element(By.ID, "order").click()
    assert [cases[name]["score"] for name in visible_names(browser)] == scores[::-1]
    Select(browser.find_element(By.ID, "filter")).select_by_value("suboptimal")
    assert set(visible_names(browser)) == {n for n in worst_first if cases[n]["wfss"] < 1}
    Select(browser.find_element(By.ID, "filter")).select_by_value("all")
    browser.find_element(By.ID, "search").send_keys("case-b")
    assert visible_names(browser) == ["case-b"]
    assert text_of(browser, "count") == "1 of 3 cases"


def test_pictures_load_when_they_are_seen_and_all_of_them_for_print(open_page: Open) -> None:
    browser = open_page("report")
    waiting = "return document.querySelectorAll('img[data-src]').length"
    browser.execute_script("scrollTo(0, 0)")
    assert browser.execute_script(waiting) > 0
    picture = browser.find_element(By.CSS_SELECTOR, "#cases img")
    browser.execute_script("arguments[0].scrollIntoView()", picture)
    wait_for(browser, lambda: browser.execute_script("return arguments[0].naturalWidth", picture))
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(waiting) == 0


def test_the_report_leads_to_a_case_and_gives_its_files(
    open_page: Open, scored_run: ScoredRun, pages: dict[str, Path]
) -> None:
    browser = open_page("report")
    links = browser.find_elements(By.CSS_SELECTOR, "#cases h3 a")
    assert [link.text for link in links] == ["case-a"]
    for name in ("metrics.json", "cases.csv"):
        link = browser.find_element(By.CSS_SELECTOR, f'a[download="{name}"]')
        script = "return fetch(arguments[0].href).then(answer => answer.text())"
        given = browser.execute_script(script, link)
        assert given == (scored_run.scored / name).read_bytes().decode()
    browser.execute_script("arguments[0].click()", links[0])
    wait_for(browser, lambda: browser.current_url.startswith(pages["view"].as_uri()))


def test_the_leaderboard_filters(open_page: Open, pages: dict[str, Path]) -> None:
    browser = open_page("board")
    board = json.loads((pages["board"].parent / "leaderboard.json").read_text())
    select = Select(browser.find_element(By.ID, "filter"))
    for option in select.options:
        select.select_by_value(str(option.get_attribute("value")))
        least = float(str(option.get_attribute("value")))
        wanted = [case["case"] for case in board["cases"] if case["spread"] >= least]
        assert visible_names(browser) == wanted
    winner: WebElement = browser.find_element(By.ID, "winner")
    Select(winner).select_by_index(1)
    best = [c["case"] for c in board["cases"] if c["scores"][0] == max(c["scores"])]
    assert visible_names(browser) == best
