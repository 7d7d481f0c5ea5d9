"""The page: every section built from the checked results and set in its template."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from undersong.report import words
from undersong.report.schema import models, read
from undersong.report.sections import (
    abreast,
    advice,
    axes,
    comprehended,
    contrasts,
    damage,
    defended,
    details,
    gap,
    headline,
    judges,
    making,
    modality,
    nearness,
    noise,
    predicts,
    samples,
    selected,
    sources,
)
from undersong.store import write_atomic

CONTENTS = (
    ("verdict", "Verdict"),
    ("steps", "Damage, step by step"),
    ("proximity", "Damage against proximity"),
    ("modality", "Audio against text"),
    ("models", "Models side by side"),
    ("defenses", "Defenses, charged"),
    ("layers", "Where the refusal went"),
    ("axes", "Known beforehand"),
    ("samples", "Which samples"),
    ("comparisons", "Comparisons"),
    ("runs", "Every run"),
    ("making", "How it was made"),
)


def render(results: Mapping[str, Any], audio: Mapping[str, tuple[bytes, str]] = {}, show_replies: bool = False) -> str:
    """The report on `results` (the content of a results.json) as one HTML document; equal input gives equal bytes.

    `audio`: sample id -> (an audio file's bytes, its media type), embedded beside the samples the page names.
    `show_replies`: replies to harmful prompts are shown as far as the results hold them; else they are redacted.
    Errors: UndersongError where the results are of another schema or broken, or a media type is not audio.
    """
    found = read(results)
    side_by_side, beforehand = abreast.build(found), axes.build(found)
    left_out = {name for name, there in (("models", side_by_side), ("axes", beforehand)) if not there}
    contents = [one for one in CONTENTS if one[0] not in left_out]
    return page(
        "",
        title=found.study.name,
        study=found.study,
        models=models(found),
        contents=contents,
        titles=dict(contents),
        headline=headline.build(found),
        advice=advice.build(found),
        damage=damage.build(found),
        nearness=nearness.build(found),
        modality=modality.build(found),
        abreast=side_by_side,
        defended=defended.build(found),
        gap=gap.build(found),
        axes=beforehand,
        samples=samples.build(found, audio),
        selected=selected.build(found),
        contrasts=contrasts.build(found),
        noise=noise.build(found),
        sources=sources.build(found),
        sources_notes=sources.notes(found),
        judges=judges.build(found),
        apart=judges.apart(found),
        comprehended=comprehended.build(found),
        predicts=predicts.build(found),
        predicts_notes=predicts.notes(found),
        details=details.build(found, show_replies),
        making=making.build(found),
    )


def page(folder: str, **content: Any) -> str:
    """The layout around the sections named in `contents`, whose templates lie in `folder` ("" or "NAME/")."""
    number = count(1).__next__
    return _environment().get_template("layout.html").render(folder=folder, script=_script(), number=number, **content)


def write_report(
    results: Mapping[str, Any],
    path: str | Path,
    audio: Mapping[str, tuple[bytes, str]] = {},
    show_replies: bool = False,
) -> None:
    """`render` into a file, whole or not at all."""
    write_atomic(path, encoded(render(results, audio, show_replies)))


def encoded(text: str) -> bytes:
    """A page's bytes.  A character that UTF-8 cannot hold becomes a character reference."""
    return text.encode("utf-8", errors="xmlcharrefreplace")


class Script(NamedTuple):
    """The page's script, and how its policy names it: by hash, so that no other runs."""

    text: Markup
    source: str


@cache
def _script() -> Script:
    text = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Script(Markup(text), f"'sha256-{digest}'")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("undersong.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=words.percent, bracket=_bracket, count=words.count, sentence=words.sentence)
    environment.filters.update(exact=_exact)
    return environment


def _bracket(interval: Any) -> str:
    """For anything with `low` and `high`."""
    return words.bracket(interval.low, interval.high)


def _exact(number: float) -> str:
    """As it is saved: ten digits, so that 0.1 + 0.2 is 0.3."""
    return f"{number:.10g}"
