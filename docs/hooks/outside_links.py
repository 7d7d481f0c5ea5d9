"""Links that leave `docs/` (a card, a test, a source file): the site has a page for each, so that it is whole offline.

The Markdown keeps links that work where the repository is browsed.  Knows paths and links; does not know MkDocs.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
# Pages that have a place of their own in the navigation, by where they lie in the repository.
PLACES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing/setup.md",
    "SECURITY.md": "explanation/security.md",
    "benchmarks/README.md": "reference/benchmarks.md",
    "src/undersong/data/organism/CARD.md": "reference/card-organisms.md",
    "src/undersong/data/refusal/CARD.md": "reference/card-refusal-judges.md",
}
FENCE = re.compile(r"(^ *(?P<mark>```+|~~~+).*?^ *(?P=mark) *$)|(`[^`\n]+`)", re.S | re.M)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")


def links(text: str) -> list[tuple[str, str]]:
    """(target, anchor) of every relative link of a page, pictures too; code is passed over."""
    return [(found[1], found[2] or "") for found in LINK.finditer(FENCE.sub("", text))]


def relinked(text: str, change: Callable[[str], str]) -> str:
    """The page with every relative target changed; code stays as it is."""
    pieces, last = [], 0
    for code in FENCE.finditer(text):
        pieces += [_changed(text[last : code.start()], change), code[0]]
        last = code.end()
    return "".join([*pieces, _changed(text[last:], change)])


def _changed(prose: str, change: Callable[[str], str]) -> str:
    return LINK.sub(lambda found: change(found[1]) + (found[2] or ""), prose)


def resolved(source: str, target: str) -> str:
    """A target in a file of the repository, as a path from its root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def place_of(path: str) -> str:
    """Where a file of the repository stands in the site's sources."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return PLACES.get(path) or f"source/{path}" + ("" if path.endswith(".md") else ".md")


def reached(pages: Iterable[str]) -> dict[str, str]:
    """Place in the site -> path in the repository, of all files outside `docs/` that pages lead to, and PLACES."""
    there = {place: path for path, place in PLACES.items() if (ROOT / path).is_file()}
    waiting = [*pages, *there.values()]
    while waiting:
        source = waiting.pop()
        for target, _ in links((ROOT / source).read_text(encoding="utf-8")) if source.endswith(".md") else ():
            path = resolved(source, target)
            if not path.startswith(DOCS) and (ROOT / path).is_file() and place_of(path) not in there:
                there[place_of(path)] = path
                waiting.append(path)
    return there


def page_of(path: str) -> str:
    """A file of the repository as a page: Markdown as it is, everything else as code under its name."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    kind = {"py": "python", "yml": "yaml"}.get(ending := path.rpartition(".")[2], ending)
    return f"# {path}\n\n~~~~~~{kind}\n{text.rstrip()}\n~~~~~~\n"


def for_site(text: str, source: str) -> str:
    """A page of the repository with its links as they are in the site."""
    here = posixpath.dirname(place_of(source)) or "."

    def change(target: str) -> str:
        path = resolved(source, target)
        inside = source.startswith(DOCS) and path.startswith(DOCS)
        known = path.startswith(DOCS) or (ROOT / path).is_file()
        return target if inside or not known else posixpath.relpath(place_of(path), here)

    return relinked(text, change)
