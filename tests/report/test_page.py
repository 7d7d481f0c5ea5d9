"""The page as a document: valid structure, no network, no script, nothing of the data taken for markup."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from undersong.report.page import render_html

Json = dict[str, Any]
VOID = {"meta", "link", "br", "hr", "img", "input", "source", "wbr"}
SECTIONS = (
    "verdict",
    "replies",
    "jsr_by_step",
    "jsr_by_distance",
    "modality",
    "defenses",
    "refusal_gap",
    "samples",
    "comparisons",
    "runs",
    "provenance",
)
EVIL = "<script>alert('x')</script>\"'&</svg></style><img src=x onerror=alert(1)>"


class Node:
    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes, self.children, self.text = tag, attributes, [], ""

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, tag: str) -> list[Node]:
        return [node for node in self.walk() if node.tag == tag]

    def words(self) -> str:
        return " ".join([self.text, *(child.words() for child in self.children)])


class Tree(HTMLParser):
    """Reads a page whose every element is closed, and says so where one is not."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("root", {})
        self.open = [self.root]
        self.feed(page)
        self.close()
        assert [node.tag for node in self.open] == ["root"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


CASES: dict[str, Json] = {
    "demo": {},
    "one seed, no interval": {"seeds": (0,), "intervals": False},
    "nothing happened": {"effect": 0.0},
    "one arm": {"kinds": ("closest",), "modalities": ("audio",), "seeds": (0,)},
    "thirty arms": {"axes": ("semantic", "acoustic", "mixed", "internal", "fifth"), "seeds": (0, 1), "layers": 28},
    "no arm": {"kinds": ()},
    "text only": {"modalities": ("text",)},
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def tree(request: pytest.FixtureRequest, make_results: Callable[..., Json]) -> Node:
    return Tree(render_html(make_results(**CASES[request.param]))).root


def test_ids_are_unique_and_links_lead_to_them(tree: Node) -> None:
    ids = [node.attributes["id"] for node in tree.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    targets = [str(node.attributes["href"]) for node in tree.all("a")]
    assert targets
    assert all(target.startswith("#") and target[1:] in ids for target in targets)
    labels = [node.attributes["aria-labelledby"] for node in tree.walk() if "aria-labelledby" in node.attributes]
    assert labels
    assert set(labels) <= set(ids)


def test_every_section_is_there_in_order_and_says_something(tree: Node) -> None:
    sections = tree.all("section")
    assert tuple(node.attributes["id"] for node in sections) == SECTIONS
    for node in sections:
        assert node.words().split()


def test_headings_do_not_skip_a_level(tree: Node) -> None:
    levels = [int(node.tag[1]) for node in tree.walk() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_figures_have_captions_and_plots_have_words(tree: Node) -> None:
    assert all(len(figure.all("figcaption")) == 1 for figure in tree.all("figure"))
    outer = [
        node
        for node in tree.all("svg")
        if {"plot", "strip", "databar"} & set(str(node.attributes.get("class")).split())
    ]
    assert outer
    for node in outer:
        named = node.attributes.get("role") == "img" and str(node.attributes.get("aria-label")).strip()
        assert named or node.attributes.get("aria-hidden") == "true"


def test_tables_have_captions_heads_and_even_rows(tree: Node) -> None:
    assert tree.all("table")
    for table in tree.all("table"):
        assert table.all("caption")[0].words().strip()
        assert all(node.attributes.get("scope") for node in table.all("th"))
        assert table.all("thead")
        widths = {
            sum(int(cell.attributes.get("colspan") or 1) for cell in row.children)
            for body in table.all("tbody")
            for row in body.all("tr")
        }
        assert len(widths) <= 1


def test_wide_content_scrolls_in_its_own_box_and_by_keyboard(tree: Node) -> None:
    boxes = [node for node in tree.walk() if node.attributes.get("class") == "scroll"]
    inside = [table for box in boxes for table in box.all("table")]
    assert len(inside) == len(tree.all("table"))
    assert all(box.attributes["tabindex"] == "0" and box.attributes["aria-label"] for box in boxes)


def test_nothing_is_loaded_and_one_script_runs(tree: Node) -> None:
    assert not {"link", "iframe", "object", "embed", "form", "base"} & {node.tag for node in tree.walk()}
    (script,) = tree.all("script")
    assert script.attributes == {}
    assert not re.search(
        r"innerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|XMLHttp|WebSocket", script.text
    )
    assert re.findall(r"https?:[^\"]*", script.text) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    for node in tree.walk():
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "poster", "xlink:href", "action"):
                assert str(value).startswith(("#", "data:audio/"))
    style = tree.all("style")[0].text
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style
    policy = [node.attributes["content"] for node in tree.all("meta") if node.attributes.get("http-equiv")]
    rules = dict(rule.split(" ", 1) for rule in str(policy[0]).split("; "))
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert not {"connect-src", "script-src-elem", "script-src-attr", "frame-src"} & set(rules)


def _everywhere(value: Any, keys: bool) -> Any:
    """The same results with every free text replaced by markup; names that link records stay linked."""
    fixed = {
        "undersong-results/2",
        "harm",
        "near",
        "far",
        "audio",
        "text",
        "plain",
        "safe",
        "base",
        "closest",
        "random",
    }
    fixed |= {"distant", "jsr", "refusal_rate", "none", "recipe", "nearest", "a", "b"}
    if isinstance(value, dict):
        return {(f"{EVIL}{key}" if keys else key): _everywhere(inner, False) for key, inner in value.items()}
    if isinstance(value, list):
        return [_everywhere(inner, False) for inner in value]
    return f"{EVIL}{value}" if isinstance(value, str) and value not in fixed else value


def test_no_text_from_data_becomes_markup(results: Json) -> None:
    clean = Tree(render_html(copy.deepcopy(results))).root
    evil = _everywhere(results, False)
    for screen in evil["screening"]:
        screen["by_label"] = _everywhere(screen["by_label"], True)
    for part in ("packages", "model_facts"):
        evil["provenance"][part] = _everywhere(results["provenance"][part], True)
    for part in ("artifacts", "cpu_seconds_by_stage"):
        evil["provenance"][part] = {EVIL: 1}
    for run in evil["runs"]:
        for row in run["rates"]:
            row["by_voice"] = {f"{EVIL}{name}": voice for name, voice in row["by_voice"].items()}
    page = render_html(evil, {evil["screening"][0]["closest"][0]["id"]: (b"x", "audio/ogg")}, show_replies=True)
    dirty = Tree(page).root
    assert page.count("<script") == 1
    assert "<img" not in page
    assert page.count("&lt;script&gt;") > 500
    tags = [[node.tag for node in tree.walk() if node.tag != "audio"] for tree in (clean, dirty)]
    assert set(tags[1]) <= {*tags[0], "blockquote"}
    plots = [node for node in dirty.all("svg") if "alert" in str(node.attributes.get("aria-label")) + node.words()]
    assert plots, "text from data stands in the pictures too"


def test_a_kind_from_data_is_no_style_class(results: Json) -> None:
    for run in results["runs"]:
        run["kind"] = run["kind"].replace("random", 'x" onload="alert(1)')
    tree = Tree(render_html(results)).root
    assert any("k-other" in str(node.attributes.get("class")) for node in tree.walk())
    assert not any("onload" in str(node.attributes.get("class")) for node in tree.walk())


def test_equal_results_give_equal_bytes(make_results: Callable[..., Json]) -> None:
    assert render_html(make_results()) == render_html(make_results())


def test_percentages_have_one_decimal_and_intervals_brackets(results: Json) -> None:
    verdict = next(
        node for node in Tree(render_html(results)).root.all("section") if node.attributes["id"] == "verdict"
    )
    numbers = re.findall(r"(\d+(?:\.\d+)?)\u202f%", verdict.all("h1")[0].words() + verdict.all("dl")[0].words())
    shares = [number for number in numbers if number != "25"]  # the fraction in an arm's name
    assert shares
    assert all(re.fullmatch(r"\d+\.\d", number) for number in shares)
    assert re.search(r"\[\d+\.\d,\u00a0\d+\.\d\]", verdict.words())
