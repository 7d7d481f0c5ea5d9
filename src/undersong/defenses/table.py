"""Defenses as Markdown: one table an undefended arm, and what is recommended of it.  Knows priced rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from undersong.defenses.price import PLACE
from undersong.study.judges import RATES

Row = Mapping[str, Any]
NONE = "–"


def table(rows: Sequence[Row], recommended: Sequence[Row], costs: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Lines of Markdown; rates in per cent with their 95 % intervals over runs.

    `costs`: name -> CPU seconds a run to `make` and to `ask` it, means over runs of all undefended arms.
    """
    reasons = {tuple(one[name] for name in PLACE): one for one in recommended}
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in PLACE), []).append(row)
    for place, mine in groups.items():
        family, axis, fraction, modality = place
        yield f"## {family or 'Models that only answer'}: trained on {modality}, {axis} at {fraction:g}"
        yield ""
        yield from _body(mine, costs or {})
        for row in mine:
            if row["note"]:
                yield ""
                yield f"{row['defense']}: {row['note']}."
        if one := reasons.get(place):
            yield ""
            yield f"Recommended: {one['defense'] or 'none'}. {one['reason']}"
        yield ""


def _body(rows: Sequence[Row], costs: Mapping[str, Any]) -> Iterator[str]:
    attack = RATES[rows[0]["metric"]]
    columns: list[tuple[str, str, str | None, str]] = [(attack, "jsr", None, m) for m in _modalities(rows)]
    harmful = list(dict.fromkeys(name for row in rows for name in row["jsr_by_set"]))[1:]  # the first is the JSR
    columns += [(f"{attack} {name}", "jsr_by_set", name, m) for name in harmful for m in _modalities(rows)]
    columns += [
        (f"{attack} tuned again", "again", None, m) for m in _modalities(rows) if any(row["again"] for row in rows)
    ]
    columns += [
        (f"{title} {name}", group, name, m)
        for title, group in (("refused", "over_refusal"), ("right", "utility"))
        for name in sorted({name for row in rows for name in row[group]})
        for m in _modalities(rows)
    ]
    columns = [one for one in columns if any(_of(row, one[1], one[2]).get(one[3]) is not None for row in rows)]
    heads = [f"{title}, {'spoken' if m == 'audio' else 'typed'}" for title, _, _, m in columns]
    heads += ["still learned", "costs at most", *(("CPU s to make", "to ask") if costs else ())]
    yield f"| Defense | {' | '.join(heads)} | shown safe |"
    yield "|---|" + "---:|" * len(heads) + "---|"
    for row in rows:
        cost, safe = NONE if row["cost"] is None else f"{row['cost']:.1%}", "yes" if row["safe"] else "no"
        cells = [_cell(_of(row, group, name).get(m)) for _, group, name, m in columns]
        seconds = [f"{costs[row['defense']][what]['mean']:.1f}" for what in ("make", "ask")] if costs else []
        yield f"| {row['defense']} | {' | '.join([*cells, _cell(row['kept']), cost, *seconds, safe])} |"


def _of(row: Row, group: str, name: str | None) -> Mapping[str, Any]:
    """Prompt modality -> rate, of a set where the group has one a set."""
    return row[group] if name is None else row[group].get(name, {})


def _modalities(rows: Sequence[Row]) -> list[str]:
    return [m for m in ("audio", "text") if any(m in row["jsr"] for row in rows)]


def _cell(found: Mapping[str, float | None] | None) -> str:
    if found is None or found["mean"] is None:
        return NONE
    text = f"{100 * found['mean']:.1f}"
    low, high = found["low"], found["high"]
    return text if low is None or high is None else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"
