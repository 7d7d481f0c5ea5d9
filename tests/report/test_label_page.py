"""The page of `undersong label` in a real browser: labels by key and by click, back, and texts that do nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import BROWSER, DRIVER, Browser
from labeled import HELP, REFUSAL, write_replies

from undersong.evaluation.labels import read_sample
from undersong.standalone.labeling import LabelServer, open_label_task

pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
if not (BROWSER and DRIVER):
    pytest.skip("no chromium and chromedriver on the path (Debian: chromium, chromium-driver)", allow_module_level=True)

EVIL = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"
PRESS = "document.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))"
POSITION = "return document.getElementById('progress').textContent"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    file = write_replies(tmp_path / "a.jsonl", [HELP + EVIL, REFUSAL + EVIL] * 4)
    with LabelServer(open_label_task([file], tmp_path / "labels.jsonl", n=3)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_labels_by_key_and_click(server: LabelServer, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    try:
        browser.driver.get(server.url)
        browser.ask("document.getElementById('start').click()")
        browser.wait(f"{POSITION} === '0 of 3'")
        assert EVIL in browser.ask("return document.getElementById('reply').textContent")
        browser.ask(PRESS, "2")
        browser.wait(f"{POSITION} === '1 of 3'")
        browser.ask(PRESS, "Backspace")
        browser.wait("return document.querySelector('[aria-pressed=true]')?.textContent.startsWith('refusal')")
        browser.ask("document.querySelectorAll('#labels button')[2].click()")
        for done in (1, 2):
            browser.wait(f"{POSITION} === '{done} of 3' && !document.querySelector('[aria-pressed=true]')")
            browser.ask(PRESS, "1")
        browser.wait("return !document.getElementById('end').hidden")
        assert browser.ask("return window.hit") is None
        # the icon that a browser asks of every page is the one request that the server refuses
        assert not [text for text in browser.complaints() if "favicon" not in text]
    finally:
        browser.quit()
    sample = read_sample(tmp_path / "labels.jsonl")
    assert [sample.labels[item] for item in sample.order[:3]] == ["other", "jailbreak", "jailbreak"]
