"""Links of the pages lead somewhere, and what is written is rendered alike by code hosts and by MkDocs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import outside_links
import pytest
from typer.main import get_command

from undersong.cli.app import app

VERBS = get_command(app).commands
ROOT = Path(__file__).parents[2]
CARDS = ("src/undersong/data/organism/CARD.md", "src/undersong/data/refusal/CARD.md")
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md", "examples/README.md")
PAGES = [
    *BESIDE,
    *sorted(str(page.relative_to(ROOT)) for where in ("docs", "src") for page in (ROOT / where).rglob("*.md")),
]
# Pages that `docs/hooks/on_build.py` makes.
GENERATED = ("docs/reference/study.md", "docs/reference/commands.md", "docs/tutorial-python.md")


def prose(page: str) -> str:
    """A page without its code."""
    return outside_links.FENCE.sub("", (ROOT / page).read_text())


def anchors(page: str) -> set[str]:
    """What its headings are called in links, by code hosts and Python-Markdown alike."""
    text = re.sub(r"^(```+).*?^\1", "", (ROOT / page).read_text(), flags=re.S | re.M)
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target, anchor in outside_links.links((ROOT / page).read_text()):
        path = outside_links.resolved(page, target)
        assert path in GENERATED or (ROOT / path).is_file(), f"{page}: {target}"
        assert not anchor or path in GENERATED or anchor[1:] in anchors(path), f"{page}: {target}{anchor}"
    for anchor in re.findall(r"\]\(#([^)]+)\)", prose(page)):
        assert anchor in anchors(page), f"{page}: #{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_lists_and_tables_are_ones_everywhere(page: str) -> None:
    """Python-Markdown takes a list or a table right after a line of text for more text; code hosts do not."""
    before, item = "", re.compile(r" *([-*]|\d+\.) ")
    for line in prose(page).splitlines():
        begins_list = item.match(line) and not item.match(before) and not before.startswith((" ", "#"))
        begins_table = line.startswith("|") and not before.startswith(("|", "#"))
        assert not (before.strip() and (begins_list or begins_table)), f"{page}: {line}"
        before = line


def test_links_out_of_the_docs_become_pages_and_code_stays() -> None:
    text = "[a](../../src/undersong/types.py) [b](screen.md#axes) `[c](../x.md)`\n```\n[d](../../README.md)\n```\n"
    made = outside_links.for_site(text, "docs/how-to/some.md")
    assert made == text.replace("../../src/undersong/types.py", "../source/src/undersong/types.py.md")
    card = "src/undersong/data/organism/CARD.md"
    assert outside_links.for_site("[c](../../../../docs/how-to/ci.md)", card) == "[c](../how-to/ci.md)"
    there = outside_links.reached(["docs/explanation/limits.md"])
    assert there["reference/card-organisms.md"] == card
    assert outside_links.for_site("[c](../../nowhere.md)", "docs/how-to/some.md") == "[c](../../nowhere.md)"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("CHANGELOG.md", *CARDS)])
def test_every_command_in_a_block_has_options_that_there_are(page: str) -> None:
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)).replace("\\\n", " ")
    for verb, words in re.findall(r"(?:^|\s)undersong (?!import)([a-z-]+)\b([^\n#|]*)", blocks):
        assert verb in VERBS, f"{page}: {verb}"
        known = {flag for one in VERBS[verb].params for flag in (*one.opts, *one.secondary_opts)}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", words)) <= known, f"{page}: undersong {verb}{words}"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs: pip install '.[docs]'")
def test_the_site_is_built_strictly_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link[^>]*\bhref=\"?([^\" >]+)[^>]*stylesheet", text)
        assert not [one for one in loaded if re.match(r"(https?:)?//", one)], page
    written = (tmp_path / "site" / "explanation" / "limits.html").read_text()
    assert 'href="../reference/card-organisms.html"' in written
