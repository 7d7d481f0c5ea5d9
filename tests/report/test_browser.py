"""The page in a real browser: nothing is asked of a network, tables sort and filter, figures are saved, clips play."""

from __future__ import annotations

import copy
import csv
import io
import math
import struct
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import BROWSER, DRIVER, Browser

from undersong.report.page import render_html
from undersong.research.report import multi_study

pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
if not (BROWSER and DRIVER):
    pytest.skip("no chromium and chromedriver on the path (Debian: chromium, chromium-driver)", allow_module_level=True)

Json = dict[str, Any]
EVIL = (
    "<script>window.hit=1</script><img src=x onerror='window.hit=1'><svg onload=window.hit=1>"
    "\"' onmouseover=window.hit=1 x='</title></style></script><a href=javascript:window.hit=1>javascript:window.hit=1"
    "\u202e\u2066gnp.live\u2069{{7*7}}${7*7}=cmd|' /C calc'!A0"
)


def tone(seconds: float = 0.5) -> bytes:
    """A WAV file: a tone that grows."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        n = int(8000 * seconds)
        file.writeframes(struct.pack(f"<{n}h", *(int(20000 * i / n * math.sin(0.4 * i)) for i in range(n))))
    return out.getvalue()


def clips(results: Json) -> dict[str, tuple[bytes, str]]:
    near = [item for screen in results["screening"] for item in screen["closest"]]
    return {item[key]: (tone(), "audio/wav") for item in near for key in ("id", "nearest_id")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def demo(make_results: Callable[..., Json]) -> str:
    results = make_results()
    return render_html(results, clips(results))


@pytest.fixture
def opened(browser: Browser, demo: str, tmp_path: Path) -> Browser:
    """The demo's page, which tests leave as it was; opened anew where another was open."""
    if browser.shown != "demo":
        browser.open(demo, tmp_path, name="demo")
    return browser


TABLE = (
    "return [...document.querySelectorAll('main table')].find((one) => one.caption.textContent.includes(arguments[0]))"
)


def column(browser: Browser, caption: str, at: int) -> list[str]:
    """The visible cells of a column."""
    return browser.ask(
        f"const table = (() => {{ {TABLE} }})(...arguments);"
        "return [...table.tBodies].flatMap((body) => [...body.rows]).filter((row) => !row.hidden)"
        ".map((row) => row.cells[arguments[1]].textContent.trim())",
        caption,
        at,
    )


def press(browser: Browser, caption: str, at: int) -> str | None:
    """Presses the head of a column; the order it then says it is in."""
    return browser.ask(
        f"const table = (() => {{ {TABLE} }})(...arguments); const head = table.tHead.rows[0].cells[arguments[1]];"
        "head.querySelector('button').click(); return head.getAttribute('aria-sort')",
        caption,
        at,
    )


def test_nothing_is_asked_of_a_network(opened: Browser) -> None:
    assert opened.complaints() == []
    opened.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    opened.ask("window.scrollTo(0, document.body.scrollHeight)")
    assert opened.requests() == []
    assert opened.complaints() == []
    opened.ask("document.querySelectorAll('main details:not(.axis)').forEach((one) => { one.open = false; })")


def test_the_policy_lets_no_other_script_run(opened: Browser) -> None:
    """So that the next test does not rest on escaping alone."""
    opened.ask(
        "const one = document.createElement('script'); one.textContent = 'window.hit = 1'; document.body.append(one);"
        "const two = document.createElement('p'); two.setAttribute('onclick', 'window.hit = 1');"
        "document.body.append(two); two.click(); one.remove(); two.remove()"
    )
    assert opened.ask("return window.hit === undefined")
    assert all("Content Security Policy" in line for line in opened.complaints())


def test_a_column_sorts_both_ways_and_back(opened: Browser) -> None:
    caption, at = "JSR of every arm", 1
    before = column(opened, caption, at)

    def rates() -> list[float]:
        return [float(cell.split("\u202f")[0]) for cell in column(opened, caption, at)]

    first = rates()
    assert first not in (sorted(first), sorted(first, reverse=True))
    assert press(opened, caption, at) == "ascending"
    assert rates() == sorted(first)
    assert press(opened, caption, at) == "descending"
    assert rates() == sorted(first, reverse=True)
    assert press(opened, caption, at) is None
    assert column(opened, caption, at) == before


def test_what_was_not_measured_stands_last_either_way(browser: Browser, results: Json, tmp_path: Path) -> None:
    results["mechanism"]["late_gap_changes"][0]["gap_change"] = -2.5
    results["comparisons"][1].update(p=None, p_adjusted=None)
    results["comparisons"][2].update(p=0.00001, p_adjusted=0.00001)
    browser.open(render_html(results), tmp_path)
    for _ in range(2):
        press(browser, "Comparisons", 3)
        cells = column(browser, "Comparisons", 3)
        assert cells[-1] == "–"
        numbers = [float(cell.replace("<\u00a0", "")) for cell in cells if cell != "–"]
    assert numbers == sorted(numbers, reverse=True)
    press(browser, "Change of the refusal gap", 3)
    gaps = [float(cell.replace("\u2212", "-")) for cell in column(browser, "Change of the refusal gap", 3)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0


def test_a_table_filters_by_every_word_and_says_how_many(opened: Browser) -> None:
    name = "Refusal gap by arm and layer"
    whole = column(opened, name, 0)
    typed = (
        f"const table = (() => {{ {TABLE} }})(...arguments);"
        "const tools = table.closest('.scroll').previousElementSibling;"
        "const field = tools.querySelector('input'); field.value = arguments[1];"
        "field.dispatchEvent(new Event('input')); return tools.querySelector('[role=status]').textContent"
    )
    said = opened.ask(typed, name, "closest  TYPED")
    left = column(opened, name, 0)
    assert 0 < len(left) < len(whole)
    assert all("closest" in cell for cell in left)
    assert set(column(opened, name, 1)) == {"typed"}
    assert said == f"{len(left)} of {len(whole)}"
    assert opened.ask(typed, name, "nobody says this").startswith("0 of")
    assert opened.ask(typed, name, "") == ""
    assert column(opened, name, 0) == whole


def test_the_samples_filter(opened: Browser) -> None:
    shown = (
        "const list = document.querySelector('ol.samples'); const field = list.parentElement.querySelector('.filter');"
        "field.value = arguments[0]; field.dispatchEvent(new Event('input'));"
        "return [...list.children].filter((one) => one.offsetHeight).map((one) => one.textContent)"
    )
    every = opened.ask(shown, "")
    word = "bicycle" if any("bicycle" in one for one in every) else "lantern"
    left = opened.ask(shown, word)
    assert 0 < len(left) < len(every) == 10
    assert all(word in one for one in left)
    opened.ask(shown, "")


SAVE = (
    "const figures = [...document.querySelectorAll('main figure')];"
    "const figure = figures.find((one) => one.querySelector('figcaption').textContent.startsWith(arguments[0]));"
    "[...figure.querySelectorAll('.save')].find((one) => one.textContent === arguments[1]).click()"
)


def test_every_figure_is_saved_as_svg_png_and_csv(opened: Browser) -> None:
    figures = opened.ask(
        "return [...document.querySelectorAll('main figure figcaption b')].map((one) => one.textContent)"
    )
    kinds = opened.ask(
        "return [...document.querySelectorAll('main figure')].map((one) =>"
        "[...one.querySelectorAll('.save')].map((button) => button.textContent).join(' '))"
    )
    assert len(figures) >= 6
    assert kinds == ["SVG PNG CSV"] * len(figures)


def test_a_saved_svg_stands_alone_and_shows_what_the_page_shows(opened: Browser) -> None:
    opened.ask(SAVE, "Figure 1", "SVG")
    root = ElementTree.fromstring(opened.saved("figure-1.svg"))
    told = " ".join("".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "Base" in told
    assert "Closest 25" in told
    assert "Figure 1." in told
    assert "CSV" not in told
    marks = list(root.iter("{http://www.w3.org/2000/svg}path"))
    assert len(marks) == 8  # base, six arms, a system text
    style = dict(part.split(":", 1) for part in str(marks[1].get("style")).split(";"))
    assert style["fill"].startswith("rgb(")  # no variable of a style sheet that is not there
    assert not [node for node in root.iter() if node.get("class")]
    assert b"var(--" not in opened.saved("figure-1.svg")


def test_a_saved_png_is_a_picture_of_it(opened: Browser, tmp_path: Path) -> None:
    import matplotlib.image

    opened.ask(SAVE, "Figure 2", "PNG")
    (tmp_path / "figure.png").write_bytes(opened.saved("figure-2.png"))
    pixels = matplotlib.image.imread(tmp_path / "figure.png")[..., :3]
    assert pixels.shape[1] > 1500
    orange = np.abs(pixels - np.array([0xD5, 0x5E, 0x00]) / 255).max(axis=-1) < 0.02
    assert orange.sum() > 200  # the closest arm
    assert (pixels.min(axis=-1) > 0.99).mean() > 0.8  # on white


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))


def test_saved_data_have_value_interval_and_n_in_full(opened: Browser, results: Json) -> None:
    opened.ask(SAVE, "Figure 1", "CSV")
    rows = rows_of(opened.saved("figure-1.csv"))
    assert len(rows) == 7
    runs = [run for run in results["runs"] if run["arm"] == "semantic/closest/0.25/audio" and run["step"] == 40]
    rates = [row["rate"] for run in runs for row in run["rates"]
             if (row["prompt_set"], row["modality"], row["system"]) == ("harm", "audio", "plain")]  # fmt: skip
    (found,) = (row for row in rows if row["Arm"] == "closest 25 %, semantic axis, trained on audio")
    assert float(found["JSR, spoken"]) == pytest.approx(100 * np.mean(rates), rel=1e-9)
    assert float(found["JSR, spoken, low"]) < float(found["JSR, spoken"]) < float(found["JSR, spoken, high"])
    assert (found["runs"], found["n, prompts a run"]) == ("3", "108 in 36 clusters")


def test_a_table_with_blocks_and_two_heads_is_saved_whole(opened: Browser, results: Json) -> None:
    opened.ask(
        "const table = document.querySelector('table.defenses');"
        "table.closest('.scroll').previousElementSibling.querySelector('.save').click()"
    )
    rows = rows_of(opened.saved("defenses-in-percent-mean-95-interval-and.csv"))
    assert len(rows) == len(results["defense_tradeoffs"])
    assert {row[""] for row in rows} == {"Trained on audio", "Trained on text"}
    assert rows[1]["JSR, typed"].startswith(f"{100 * results['defense_tradeoffs'][1]['jsr']['text']['value']:.1f} ")


def test_clips_play_one_at_a_time_and_the_line_moves(opened: Browser) -> None:
    players = "const players = [...document.querySelectorAll('.samples audio')];"
    assert opened.ask(f"{players} return players.length") >= 20
    opened.ask(f"{players} players[0].play()")
    opened.wait(f"{players} return players[0].currentTime > 0.01")
    opened.wait("return document.querySelector('.heard .at').getAttribute('x1') !== '0%'")
    assert opened.ask(f"{players} return players[0].duration") == pytest.approx(0.5, abs=0.05)
    opened.ask(f"{players} players[1].play()")
    opened.wait(f"{players} return players[0].paused && players[1].currentTime > 0")
    opened.wait(f"{players} return players[1].ended")
    assert opened.requests() == []


def test_a_press_on_the_waveform_plays_from_there(opened: Browser) -> None:
    opened.ask(
        "const wave = document.querySelectorAll('.heard .wave')[2]; const box = wave.getBoundingClientRect();"
        "wave.dispatchEvent(new MouseEvent('click', { bubbles: true, clientX: box.left + 0.8 * box.width }))"
    )
    opened.wait("return document.querySelectorAll('.heard audio')[2].currentTime >= 0.39")


def test_all_that_can_be_pressed_is_reached_by_keyboard(opened: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.ask("document.activeElement.blur(); window.scrollTo(0, 0)")
    first = opened.driver.switch_to.active_element
    first.send_keys(Keys.TAB)
    assert opened.ask("return document.activeElement.className") == "skip"
    seen = set()
    for _ in range(60):
        opened.driver.switch_to.active_element.send_keys(Keys.TAB)
        name, outline = opened.ask(
            "const one = document.activeElement;"
            "return [one.className || one.tagName, getComputedStyle(one).outlineStyle]"
        )
        seen.add(name)
        assert outline != "none", name  # it is seen where one is
    assert {"A", "save", "SUMMARY", "sort", "scroll", "filter"} <= seen
    opened.ask(
        "[...document.querySelectorAll('button.sort')].find((one) => !one.closest('details:not([open])')).focus()"
    )
    opened.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert opened.ask("return document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
    opened.ask("const one = document.activeElement; one.click(); one.click()")


def test_what_has_a_role_has_a_name(opened: Browser) -> None:
    tree = opened.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    wanted = {"button", "link", "searchbox", "region", "table", "image", "navigation", "heading"}
    nodes = [node for node in tree if not node.get("ignored") and node.get("role", {}).get("value") in wanted]
    assert {node["role"]["value"] for node in nodes} >= {"button", "link", "table", "image", "heading", "region"}
    assert [node["role"] for node in nodes if not node.get("name", {}).get("value", "").strip()] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_never_wider_than_the_screen(opened: Browser, width: int) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert opened.ask("return document.documentElement.scrollWidth") <= width
    opened.ask("document.querySelectorAll('main details:not(.axis)').forEach((one) => { one.open = false; })")
    opened.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


CONTRAST = """
const light = (color) => { const [r, g, b] = color.match(/[\\d.]+/g).map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const paper = light(getComputedStyle(document.body).backgroundColor);
const walker = document.createTreeWalker(document.querySelector('.page'), NodeFilter.SHOW_TEXT);
const poor = new Set();
while (walker.nextNode()) {
  const one = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !one.getClientRects().length) continue;
  if (one.closest('.flag, .warning, .heat, .scope')) continue;  // on a ground of their own
  const style = getComputedStyle(one);
  const ink = light(one.closest('svg') ? style.fill : style.color);
  const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  if (ratio < 4.5) poor.add(`${one.tagName} ${one.getAttribute('class')} ${ratio.toFixed(2)}`);
}
return [...poor]
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened: Browser, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert (opened.ask("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
        scheme == "light"
    )
    assert opened.ask(CONTRAST) == []
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_print_is_light_and_leaves_out_what_paper_cannot_do(opened: Browser) -> None:
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert opened.ask("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = "return [...document.querySelectorAll(arguments[0])].filter((one) => one.getClientRects().length).length"
    assert opened.ask(shown, ".tools, audio, nav, .skip") == 0
    assert opened.ask(shown, ".wave") > 0
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_without_script_all_is_there_and_nothing_is_dead(browser: Browser, results: Json, tmp_path: Path) -> None:
    browser.open(render_html(results, clips(results)), tmp_path, scripted=False)
    text = browser.source()
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    body = text.split("<script>")[0]
    assert "<button" not in body
    assert "<input" not in body
    assert body.count("<audio controls") >= 20
    assert body.count("The numbers behind this figure") >= 6


def everywhere(value: Any) -> Any:
    """Free text made hostile; names that link records stay linked, and the words the page goes by stay."""
    fixed = {"undersong-results/2", "harm", "near", "far", "audio", "text", "plain", "safe", "base", "closest",
             "random", "distant", "jsr", "refusal_rate", "none", "recipe", "nearest", "a", "b"}  # fmt: skip
    if isinstance(value, dict):
        return {key: everywhere(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [everywhere(inner) for inner in value]
    return f"{EVIL}{value}" if isinstance(value, str) and value not in fixed else value


def test_hostile_names_and_replies_do_nothing(browser: Browser, results: Json, tmp_path: Path) -> None:
    evil = everywhere(copy.deepcopy(results))
    evil["study"]["name"] = f"../../{EVIL}\n\u202egpj.exe"
    for part in ("packages", "cpu_seconds_by_stage", "model_facts"):
        evil["provenance"][part] = {f"{EVIL}{key}": value for key, value in evil["provenance"][part].items()}
    for run in evil["runs"]:
        for row in run["rates"]:
            row["by_voice"] = {f"{EVIL}{name}": voice for name, voice in row["by_voice"].items()}
    browser.open(render_html(evil, clips(evil), show_replies=True), tmp_path)
    browser.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.ask(
        "document.querySelectorAll('.sort, summary').forEach((one) => one.click());"
        "document.querySelectorAll('main *').forEach((one) => one.dispatchEvent(new MouseEvent('mouseover')))"
    )
    browser.ask(SAVE, "Figure 1", "SVG")
    browser.ask(SAVE, "Figure 1", "CSV")
    svg, table = browser.saved("figure-1.svg"), rows_of(browser.saved("figure-1.csv"))
    assert browser.ask("return window.hit === undefined")
    assert browser.requests() == []
    assert browser.complaints() == []
    tags = {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "g", "rect", "text", "line", "path", "title"}
    assert any("<script>" in value for row in table for value in row.values())  # as text
    assert all(one.name.isascii() and one.parent == browser.downloads for one in browser.downloads.iterdir())
    assert browser.ask(
        "return [...document.querySelectorAll('a[href]')].every((one) => one.getAttribute('href').startsWith('#'))"
    )


def test_no_cell_of_a_saved_table_is_a_formula(browser: Browser, results: Json, tmp_path: Path) -> None:
    for screen in results["screening"]:
        screen["quarantined"] = [{"id": '=HYPERLINK("x")', "reason": "@SUM(A1), a\nb"}, {"id": "-1", "reason": "+x"}]
    browser.open(render_html(results), tmp_path)
    browser.ask(
        f"const table = (() => {{ {TABLE} }})(...arguments);"
        "table.closest('.scroll').previousElementSibling.querySelector('.save').click()",
        "Quarantined samples",
    )
    rows = rows_of(browser.saved("quarantined-samples-and-reasons.csv"))
    assert [(row["Sample"], row["Reason"]) for row in rows] == [
        ("'=HYPERLINK(\"x\")", "'@SUM(A1), a b"), ("-1", "'+x"),
    ]  # fmt: skip


def test_a_page_of_5000_samples_opens(browser: Browser, results: Json, tmp_path: Path) -> None:
    near = results["screening"][0]["closest"][0]
    results["screening"][0]["closest"] = [{**near, "rank": i, "id": f"pool-{i:04d}"} for i in range(5000)]
    browser.open(render_html(results), tmp_path)
    count = "document.querySelector('ol.samples').children.length"
    assert browser.wait(f"return document.readyState === 'complete' && {count}") == 5000
    assert browser.complaints() == []


def test_studies_side_by_side_are_such_a_page_too(browser: Browser, results: Json, tmp_path: Path) -> None:
    other = copy.deepcopy(results)
    other["study"] |= {"name": f"other {EVIL}", "judge": "keyword"}
    browser.open(multi_study.render_multi_study_html([("a", results), ("b", other)]), tmp_path)
    assert browser.ask("return document.documentElement.scrollWidth <= innerWidth")
    assert press(browser, "Defenses of every study", 4) == "ascending"
    rates = [float(cell.split()[0]) for cell in column(browser, "Defenses of every study", 4)]
    assert rates == sorted(rates)
    browser.ask(SAVE, "Figure 2", "CSV")
    rows = rows_of(browser.saved("figure-2.csv"))
    assert len(rows) == 2 * 5
    assert {row["not comparable"] for row in rows} == {"–", "judge keyword, where demo has exact"}
    assert browser.ask("return window.hit === undefined")
    assert (browser.requests(), browser.complaints()) == ([], [])
