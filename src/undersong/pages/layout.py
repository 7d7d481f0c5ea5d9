"""The layout of HTML pages: templates, the page script and its policy; everything from data is escaped."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from undersong.pages import formatting


def render_layout(folder: str, **content: Any) -> str:
    """Render the layout around the sections named in `contents`, with templates from `folder` ("" or "NAME/")."""
    number = count(1).__next__
    return render_template("layout.html", folder=folder, script=page_script("page.js"), number=number, **content)


def render_template(name: str, **content: Any) -> str:
    """Render one template with the filters of the report; everything is escaped."""
    return _template_environment().get_template(name).render(**content)


def encode_html(text: str) -> bytes:
    """Encode a page as UTF-8; other characters become character references."""
    return text.encode("utf-8", errors="xmlcharrefreplace")


class PageScript(NamedTuple):
    """The page's script, and how its policy names it: by hash, so that no other runs."""

    text: Markup
    source: str


@cache
def page_script(name: str) -> PageScript:
    """Return a script of `templates`, and how a policy names it."""
    text = (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return PageScript(Markup(text), f"'sha256-{digest}'")


@cache
def _template_environment() -> Environment:
    """The environment of all templates: what comes from data is escaped, and what is missing is an error."""
    environment = Environment(
        loader=PackageLoader("undersong.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=formatting.percent,
        bracket=_interval_filter,
        count=formatting.count,
        sentence=formatting.capitalize_first,
        tight=lambda text: text.replace(" %", "\u202f%"),
    )
    environment.filters.update(exact=_exact_number)
    return environment


def _interval_filter(interval: Any) -> str:
    """For anything with `low` and `high`."""
    return formatting.bracket(interval.low, interval.high)


def _exact_number(number: float) -> str:
    """Format a number as it is saved, with ten digits, so that 0.1 + 0.2 is 0.3."""
    return f"{number:.10g}"
