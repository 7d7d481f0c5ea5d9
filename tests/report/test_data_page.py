"""The page of checked data in a real browser: clicks, keys, marks, clips, hostile texts and the size of the page."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import BROWSER, DRIVER, Browser

from undersong.pages.clip_embedding import embed_clips
from undersong.pages.data_page import check_view_paths, render_data_page, write_views
from undersong.pages.data_view import DATA, HARM, ORDINARY, DataView, ViewItem, choose_harm, choose_shown
from undersong.screening.marked_samples import read_marked_ids
from undersong.types import UndersongError

EVIL = (
    "<script>window.hit=1</script><img src=x onerror='window.hit=1'></script><!--<script>"
    "\"' onmouseover=window.hit=1 x=' \u2028\u202e&lt;{{7*7}}\ud800"
)
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver on the path")


def tone(seconds: float = 0.3, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(np.arange(int(rate * seconds)) * 0.2), rate, format="WAV")
    return out.getvalue()


def make_view(n: int = 40, m: int = 10, evil: bool = False) -> DataView:
    rng = np.random.default_rng(0)
    texts = [f"sample number {i}" for i in range(n)]
    ids = [f"s{i}" for i in range(n)]
    if evil:
        texts[0], ids[1] = EVIL, '"#\n' + EVIL.replace("\ud800", "")
    samples = [
        ViewItem(ids[i], texts[i], "web" if i % 2 else "book", None, tone() if i < 3 else None) for i in range(n)
    ]
    harm = [
        ViewItem(f"h{j}", EVIL if evil and j == 0 else f"harmful {j}", audio=tone() if j == 0 else None)
        for j in range(m)
    ]
    distances = np.linspace(0.1, 0.9, n)
    return DataView(
        data=EVIL.replace("\ud800", "") if evil else "data.jsonl",
        verb="check",
        axis=("words", "tfidf"),
        samples=samples,
        ranks=np.arange(1, n + 1),
        distances=distances,
        nearer=distances < 0.3,
        harm=harm,
        nearest=np.arange(n) % m,
        vectors=rng.normal(size=(n + m, 6)).astype(np.float32),
        total=n,
        histogram={DATA: distances, ORDINARY: distances + 0.05, HARM: np.linspace(0, 0.5, m)},
        threshold=0.3,
        verdict="More of your data is close to harm than of ordinary data",
        sentence=f"Some of {n} samples lie nearer.",
        notes=(EVIL.replace("\ud800", ""),) if evil else ("A note.",),
        drop_command="undersong check data.jsonl --fix OUT --drop undersong-marks.txt",
    )


def render(view: DataView) -> str:
    clips = [(("data", i), item.audio) for i, item in enumerate(view.samples) if item.audio]
    clips += [(("harm", j), item.audio) for j, item in enumerate(view.harm) if item.audio]
    return render_data_page(view, embed_clips(clips))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.quit()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    """The page of an ordinary view, without marks."""
    browser.open(render(make_view()), tmp_path)
    browser.wait("return document.body.dataset.ready")
    return browser


def listed(browser: Browser) -> list[str]:
    """Texts of the rows that exist."""
    return browser.ask(
        "return [...document.querySelectorAll('#body tr[data-i]')].map((row) => row.cells[3].textContent)"
    )


def click(browser: Browser, selector: str) -> None:
    from selenium.webdriver.common.by import By

    browser.driver.find_element(By.CSS_SELECTOR, selector).click()


def press(browser: Browser, keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser.driver, duration=0).send_keys(keys).perform()


@needs_browser
def test_keys_move_and_mark_and_the_marks_are_a_list_that_can_be_read(page: Browser, tmp_path: Path) -> None:
    assert page.complaints() == []
    assert page.requests() == []
    click(page, "#body tr[data-i='4']")
    press(page, "jjkx")  # 5, 6, 5
    assert "sample number 5" in page.ask("return document.getElementById('card').textContent")
    click(page, "#body tr[data-i='2'] input")
    assert page.ask("return document.getElementById('export').textContent") == "Save 2 marks"
    click(page, "#export")
    (tmp_path / "marks.txt").write_bytes(page.saved("undersong-marks.txt"))
    assert read_marked_ids(tmp_path / "marks.txt") == ("s2", "s5")
    click(page, "#only-marked")
    assert listed(page) == ["sample number 2", "sample number 5"]
    click(page, "#clear")
    assert listed(page) == []


@needs_browser
def test_the_table_sorts_and_filters(page: Browser) -> None:
    from selenium.webdriver.common.by import By

    assert listed(page)[:2] == ["sample number 0", "sample number 1"]
    click(page, "#heads th:nth-child(3) button")
    assert page.ask("return document.querySelector('#heads th:nth-child(3)').ariaSort") == "ascending"
    click(page, "#heads th:nth-child(3) button")
    assert listed(page)[0] == "sample number 39"
    page.driver.find_element(By.ID, "filter").send_keys("book 3")
    assert set(listed(page)) == {f"sample number {i}" for i in range(0, 40, 2) if "3" in f"{i} {i % 10}"}
    page.ask(
        "const field = document.getElementById('filter'); field.value = ''; field.dispatchEvent(new Event('input'))"
    )
    click(page, "#only-nearer")
    assert page.ask("return document.getElementById('count').textContent") == f"{sum(make_view().nearer)} of 40"


@needs_browser
def test_a_clip_plays_by_key_and_stops(page: Browser) -> None:
    page.ask(
        "window.played = []; const play = HTMLMediaElement.prototype.play;"
        "HTMLMediaElement.prototype.play = function () { window.played.push(this.src); return play.call(this); };"
    )
    click(page, "#body tr[data-i='1']")
    press(page, " ")
    assert page.ask("return window.played")[0].startswith("data:audio/mpeg;base64,")
    assert page.ask("return document.querySelectorAll('#card audio').length") == 1  # no clip of harmful item 1
    click(page, "#body tr[data-i='0'] .play button")
    assert len(page.ask("return window.played")) == 2
    assert page.ask("return document.querySelectorAll('#card audio').length") == 2


@needs_browser
def test_pointing_at_the_map_shows_texts_and_plays_and_a_click_selects(page: Browser) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    page.ask(
        "window.played = [];"
        "HTMLMediaElement.prototype.play = function () { window.played.push(1); return Promise.resolve(); };"
    )
    canvas = page.driver.find_element(By.ID, "map")
    page.ask("arguments[0].scrollIntoView({ block: 'center' })", canvas)
    x, y, width, height = page.ask(
        "const { data } = JSON.parse(document.getElementById('content').textContent); const box = arguments[0];"
        "return [data.x[1], data.y[1], box.clientWidth, box.clientHeight]",
        canvas,
    )
    offset = round((x - 500) * (width - 24) / 1000), -round((y - 500) * (height - 24) / 1000)
    ActionChains(page.driver, duration=0).move_to_element_with_offset(canvas, *offset).perform()
    assert page.wait("const tip = document.getElementById('tip'); return !tip.hidden && tip.textContent") == (
        "sample number 1near: harmful 1"
    )
    page.wait("return window.played.length")
    ActionChains(page.driver, duration=0).click().perform()
    assert "sample number 1" in page.ask("return document.getElementById('card').textContent")


@needs_browser
def test_hostile_texts_are_shown_and_not_obeyed(browser: Browser, tmp_path: Path) -> None:
    browser.open(render(make_view(evil=True)), tmp_path)
    browser.wait("return document.body.dataset.ready")
    for i in range(2):
        click(browser, f"#body tr[data-i='{i}'] td:nth-child(4)")
        press(browser, "x")
    assert browser.ask("return window.hit === undefined")
    assert browser.ask("return document.querySelectorAll('img, #body script, #card script').length") == 0
    assert "onerror" in browser.ask("return document.getElementById('card').textContent + document.title")
    assert browser.complaints() == []
    click(browser, "#export")
    (tmp_path / "marks.txt").write_bytes(browser.saved("undersong-marks.txt"))
    assert read_marked_ids(tmp_path / "marks.txt") == ("s0", make_view(evil=True).samples[1].id)


@needs_browser
def test_ten_thousand_samples_make_few_rows(browser: Browser, tmp_path: Path) -> None:
    """The table is as fast as for ten, because rows out of sight do not exist."""
    browser.open(render(make_view(10_000, 500)), tmp_path)
    browser.wait("return document.body.dataset.ready")
    assert len(listed(browser)) < 60
    browser.ask("document.getElementById('table').scrollTop = 35 * 5000")
    browser.wait("return [...document.querySelectorAll('#body tr[data-i]')].some((row) => row.dataset.i === '5000')")
    assert len(listed(browser)) < 60


def test_the_page_loads_nothing_and_runs_one_script() -> None:
    text = render(make_view(evil=True))
    assert "default-src 'none'" in text
    assert re.findall(r"(?:src|href)=[\"']?(?!#)[a-z]+:", text) == []
    assert re.findall(r"<script[^>]*>", text) == [
        '<script type="application/json" id="content">',
        "<script>",
        *(f'<script type="text/plain" id="clip-{i}">' for i in range(4)),
    ]
    content = json.loads(re.search(r'id="content">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert content["data"]["text"][0] == EVIL
    assert "safe" not in re.sub(r"<script.*?</script>", "", text[text.index("<body") :], flags=re.DOTALL).lower()


def test_clips_beyond_the_limit_are_left_out_and_counted() -> None:
    one = len(embed_clips([("a", tone())]).files[0][1]) * 3 // 4
    clips = embed_clips(
        [("a", tone()), ("a", b"not read"), ("bad", b"noise"), ("b", tone()), ("c", tone())], one * 2 + 9
    )
    assert (dict(clips.places), clips.left_out, clips.unreadable) == ({"a": 0, "b": 1}, 1, 1)
    limited = embed_clips([("a", tone()), ("b", tone(3.0)), ("c", tone())], one * 2 + 9)
    assert (dict(limited.places), limited.left_out) == ({"a": 0}, 2)  # none after the first that is too large
    long = embed_clips([("a", tone(31.0, 8000))])
    assert long.shortened == 1


def test_a_large_file_shows_the_nearest_half_and_a_random_rest() -> None:
    shown = choose_shown(1000, 100, 0)
    assert shown[:50].tolist() == list(range(50))
    assert len(set(shown.tolist())) == 100
    assert shown.max() > 500
    assert choose_shown(5, 100, 0).tolist() == [0, 1, 2, 3, 4]
    kept, nearest = choose_harm(np.array([7, -1, 3]), 10, 0, limit=4)
    assert {3, 7} <= set(kept.tolist())
    assert len(kept) == 4
    assert [None if j < 0 else kept[j] for j in nearest] == [7, None, 3]


def test_a_page_replaces_a_page_and_no_other_file(tmp_path: Path) -> None:
    view = make_view(12, 4)
    other, page = tmp_path / "data.html", tmp_path / "page.html"
    other.write_text("<html>mine</html>")
    with pytest.raises(UndersongError, match=r"data.html exists and was not written by --page; name another file\."):
        check_view_paths(other, None)
    assert write_views(view, page, None) == (f"The page is {page}; open it in a browser.",)
    check_view_paths(page, None)
    with pytest.raises(UndersongError, match="was not written by --explore"):
        check_view_paths(None, page)


def test_a_view_without_a_ranking_has_a_verdict_alone(tmp_path: Path) -> None:
    nothing = np.zeros(0)
    view = dataclasses.replace(
        make_view(), samples=(), harm=(), vectors=None, ranks=nothing, distances=nothing, nearer=nothing,
        nearest=nothing, histogram={}, total=0, axis=("", ""), threshold=None,
    )  # fmt: skip
    text = render(view)
    assert "More of your data" in text
    assert "<canvas" not in text
    with pytest.raises(UndersongError, match=r"data.jsonl is not ranked, so there is nothing to explore"):
        write_views(view, None, tmp_path / "e.parquet")
