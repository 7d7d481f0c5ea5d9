"""The report of a large study: 100 arms on 5,000 prompts, written, and opened in a browser; and 5,000 samples listed.

The study is made up, in the form that `undersong run` writes.  Needs chromium and chromedriver for what is opened.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ARMS, PROMPTS, SAMPLES = 100, 5_000, 5_000
Json = dict[str, Any]


def large(synthetic: Any) -> Json:
    """Seventeen axes, three kinds and two modalities of training: 102 arms of three runs, as wide as they come."""
    axes = tuple(f"axis-{i:02d}" for i in range(-(-ARMS // 6)))
    results = synthetic(axes=axes, layers=28)
    for run in results["runs"]:
        for row in run["rates"]:
            more = PROMPTS - row["n"] if row["harmful"] else 0
            row["n"], row["other"] = row["n"] + more, row["other"] + more
            row["clusters"] = row["n"] // 3
    return results


def listed(synthetic: Any) -> Json:
    """A study that lists 5,000 samples of one axis."""
    results = synthetic()
    near = results["screening"][0]["closest"][0]
    results["screening"][0]["closest"] = [{**near, "rank": i, "id": f"pool-{i:05d}"} for i in range(SAMPLES)]
    return results


def opened(page: str, folder: Path) -> float | None:
    """Seconds until the page is laid out and its script done, the middle of five; None without a browser."""
    from browser import BROWSER, DRIVER, Browser

    if not (BROWSER and DRIVER):
        return None
    browser = Browser(folder)
    try:
        seconds = []
        for i in range(5):
            (folder / str(i)).mkdir()
            start = time.monotonic()
            browser.open(page, folder / str(i))
            browser.ask("return document.body.scrollHeight")
            seconds.append(time.monotonic() - start)
        return sorted(seconds)[2]
    finally:
        browser.quit()


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from results_factory import synthetic

    from undersong.report.markdown import write_markdown
    from undersong.report.page import render_html, write_report

    for name, results in (("102 arms x 5,000 prompts", large(synthetic)), ("5,000 samples", listed(synthetic))):
        render_html(copy.deepcopy(results))  # what is imported and compiled once
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results.json"
            file.write_text(json.dumps(results))
            start = time.process_time()
            content = json.loads(file.read_text())
            write_report(content, Path(folder) / "report.html")
            write_markdown(content, Path(folder) / "report.md")
            took = time.process_time() - start
            page = (Path(folder) / "report.html").read_text()
            shown = opened(page, Path(folder))
        told = f"opened in {shown:.2f} s" if shown is not None else "not opened: no chromium and chromedriver"
        print(f"report, {name}: {took:.1f} CPU s, {len(page) / 2**20:.1f} MiB; {told}")


if __name__ == "__main__":
    main()
