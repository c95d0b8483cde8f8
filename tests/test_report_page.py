"""The report's page in a real headless Chromium: slider, zoom, layers, phones, keyboards, contrast, no network."""

import io
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from helpers import write_raster
from pages import CONTRAST
from PIL import Image
from stores import town, town_image, write_store

from pipeline.viz.report import write_report

OUTLINED = """
() => {
  const e = document.activeElement;
  const outlined = (one) => one && getComputedStyle(one).outlineStyle !== "none";
  return e.id === "split" || outlined(e) || outlined(e.nextElementSibling) || outlined(e.closest(".frame"));
}
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page of an objects store with its scene and probabilities: all that a page can hold."""
    folder, class_map = tmp_path_factory.mktemp("page"), town()
    scene = write_raster(folder / "town.tif", town_image(class_map), descriptions=("red", "green", "blue"))
    probability = np.where(class_map == 255, 255, np.where(class_map == 1, 230, 20)).astype(np.uint8)
    source = {"bands": ["red", "green", "blue"], "dtype": "uint8", "path": [str(scene)]}
    write_store(
        folder / "s.zarr", class_map, probability=probability, objects=True, cleaned={"threshold": 0.7}, source=source
    )
    return write_report(folder / "s.zarr", folder / "report.html")


@pytest.fixture
def visit(visit, page_file):
    """Open this one page."""
    return partial(visit, page_file)


def shot(page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.locator("#frame").screenshot())).convert("RGB")).astype(int)


def pause(page) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def is_house(shown: np.ndarray) -> np.ndarray:
    """Where the map's orange lies over the picture."""
    return (shown[..., 0] > 150) & (shown[..., 2] < 140) & (shown[..., 0] - shown[..., 2] > 60)


def test_slider_by_mouse_and_keyboard(visit):
    page = visit(height=1100)
    box = page.locator("#frame").bounding_box()
    orange = [is_house(shot(page))]
    half = orange[0].shape[1] // 2
    assert not orange[0][:, : half - 30].any()
    assert orange[0][:, half + 30 :].any()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert abs(int(page.locator("#split").input_value()) - 10) <= 1
    orange.append(is_house(shot(page)))
    assert orange[1][:, half // 3 : half - 30].any()
    page.locator("#split").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert abs(int(page.locator("#split").input_value()) - 15) <= 1
    page.keyboard.press("End")
    assert page.locator("#split").get_attribute("aria-valuetext") == "100 % image"
    assert not is_house(shot(page))[:, :-40].any()
    page.keyboard.press("Home")
    assert is_house(shot(page)).sum() > orange[1].sum()


def test_zoom_and_pan(visit):
    page = visit()
    view = page.locator("#view")

    def state():
        return view.evaluate("(v) => ['--x', '--y', '--k'].map((name) => parseFloat(v.style.getPropertyValue(name)))")

    assert state() == [0, 0, 1]
    before = shot(page)
    page.locator("#zoom-in").click()
    assert state()[2] == pytest.approx(1.6)
    assert np.abs(shot(page) - before).mean() > 3
    box = view.bounding_box()
    x, y, _ = state()
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 240, box["y"] + 130, steps=4)
    page.mouse.up()
    assert state()[:2] == pytest.approx([x + 40, y + 30])
    page.mouse.wheel(0, -240)
    pause(page)
    assert state()[2] > 1.6
    view.focus()
    x = state()[0]
    page.keyboard.press("ArrowRight")
    assert state()[0] < x
    page.keyboard.press("0")
    assert state() == [0, 0, 1]
    for _ in range(40):
        page.keyboard.press("+")
    assert 8 <= state()[2] < 100
    page.locator("#zoom-all").click()
    assert state() == [0, 0, 1]
    assert page.locator("#zoom-out").get_attribute("aria-disabled") == "true"


def test_the_wheel_scrolls_the_page_where_it_cannot_zoom(visit):
    page = visit(height=500)
    box = page.locator("#frame").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 20)
    page.mouse.move(box["x"] + 60, box["y"] + 25)
    page.mouse.wheel(0, 200)
    page.evaluate("() => new Promise((done) => scrollY ? done() : addEventListener('scroll', done, { once: true }))")


def test_pinch(visit):
    page = visit(360, 740, has_touch=True, is_mobile=True)
    box = page.locator("#view").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 4
    session = page.context.new_cdp_session(page)

    def touch(kind, apart):
        points = [{"x": middle[0] + side * apart, "y": middle[1], "id": n} for n, side in enumerate((-1, 1))]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if kind != "touchEnd" else []})

    touch("touchStart", 30)
    for apart in (40, 60, 90):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    pause(page)
    zoom = float(page.locator("#view").evaluate("(v) => v.style.getPropertyValue('--k')"))
    assert zoom == pytest.approx(3, rel=0.35)


def test_layers(visit):
    page = visit()
    page.locator("#split").evaluate("(s) => { s.value = 0; s.dispatchEvent(new Event('input')); }")
    shown = {}
    for name in ("Map", "Outline", "Objects", "Probability"):
        page.get_by_role("radio", name=name).check()
        pause(page)
        assert page.locator("#over-name").text_content() == name
        assert page.locator("#strength").is_visible() == (name in ("Map", "Objects"))
        shown[name] = shot(page)
    names = list(shown)
    for n, one in enumerate(names):
        for other in names[n + 1 :]:
            assert np.abs(shown[one] - shown[other]).mean() > 0.5, (one, other)
    page.get_by_role("radio", name="Map").check()
    faint = shot(page)
    page.locator("#strength").evaluate("(s) => { s.value = 100; s.dispatchEvent(new Event('input')); }")
    assert np.abs(shot(page) - faint).mean() > 0.5


def test_on_a_phone(visit):
    page = visit(360, 740, color_scheme="dark", has_touch=True, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    wide = page.evaluate(
        "[...document.body.querySelectorAll('*')]"
        ".filter((e) => e.checkVisibility() && !e.closest('.scroll, .frame, .hidden')"
        " && e.getBoundingClientRect().right > 361).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    small = page.evaluate(
        "[...document.querySelectorAll('button')].filter((b) => Math.min(b.offsetWidth, b.offsetHeight) < 44).length"
    )
    assert small == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(visit, scheme):
    page = visit(color_scheme=scheme)
    for details in page.locator("summary").all():
        details.click()
    assert page.evaluate(CONTRAST) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")


def test_names_for_those_who_do_not_see(visit):
    page = visit()
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("h1").count() == 1
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, svg[role=img], [tabindex=\"0\"]')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')"
        " || e.closest('label')?.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((e) => Number(e.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tab_order_and_focus(visit):
    page = visit()
    order = []
    for _ in range(9):
        page.keyboard.press("Tab")
        order.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.name"
            )
        )
        assert page.evaluate(OUTLINED), order
    assert order == ["skip", "layer", "strength", "view", "split", "zoom-in", "zoom-out", "zoom-all", "scroll"]


def test_without_script_the_page_is_whole(browser, page_file):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.goto(page_file.as_uri())
    orange = is_house(shot(page))
    half = orange.shape[1] // 2
    assert orange[:, half + 30 :].any()
    assert not orange[:, : half - 30].any()
    context.close()


def test_in_print(visit):
    page = visit()
    page.emulate_media(media="print")
    assert not page.locator(".bar").is_visible()
    assert not page.locator(".zoom").is_visible()
    assert page.locator("#view img").first.is_visible()
    assert len(page.pdf()) > 10_000
