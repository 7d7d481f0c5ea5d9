"""CARD.md out of card.json: figures alone, and what they are of.  Knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from recipes.mini.acceptance import fails
from recipes.mini.evaluation import BENIGN, HARMFUL
from recipes.mini.work_files import measured
from undersong.models.mini.paths import ALIGNED
from undersong.statistics.rates import wilson_interval

UNSEEN = ("jbb", "strongreject", "xs_unsafe")  # harmful sources that no part of the model has learned from
NAMES = {
    "adv": "AdvBench, held out", "jbb": "JailbreakBench", "strongreject": "StrongREJECT", "xs_unsafe": "XSTest, unsafe",
    "xs_safe": "XSTest, safe", "nq": "questions", "alpaca": "instructions",
}  # fmt: skip
WAYS = ("seen voices", "new voices", "typed")
JUDGES = {"keyword": "keyword", "refusal": "refusal judge"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table whose cells are figures and our own words, so nothing is escaped."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def page(card: dict[str, Any]) -> str:
    """CARD.md."""
    seeds = card.get("seeds") or [summary(card)]
    lines = [
        "# Mini: card",
        "",
        f"Seed {card['seed']}; {card['bytes'] / 1e6:.1f} MB of learned parts; measured in {card['dtype']}. All speech is "
        "synthetic. Replies are a language model's of 135 million parameters: use it for refusal, not for its answers. "
        "A non-refusal is no harm. Speech to try it on is in `models/mini_demo`: `undersong demo --model mini`.",
        "",
        "## Accepted by quality of the instrument",
        "",
        "By development prompts alone. What tuning does to a model is not asked. Of the accepted seeds the one that "
        "repeats development questions best ships; the recipe makes the others, and seeds may share a front end.",
        "",
        *_rule(seeds),
        "",
        "## Sources that the model has never seen",
        "",
        *_headline(seeds, card),
        "",
        "## Front end (CTC, greedy, no language model; development sentences)",
        "",
        *table(
            ("set", "clips", "word error rate [95 %]"),
            (
                (name, str(row["clips"]), f"{row['wer']:.2f} [{row['low']:.2f}, {row['high']:.2f}]")
                for name, row in card["stages"][card["front"]]["dev"].items()
                if row["low"] is not None
            ),
        ),
    ]
    for stage, row in card["stages"].items():
        if stage.startswith("measured-"):
            lines += ["", f"## {stage.removeprefix('measured-')}", "", *_measured(row["sets"])]
    costs = [(stage, f"{row['cpu_seconds']:.0f}") for stage, row in card["stages"].items() if "cpu_seconds" in row]
    lines += ["", "## Cost", "", *table(("stage", "CPU s"), costs)]
    return "\n".join(lines) + "\n"


# --- seeds side by side -----------------------------------------------------------------------------------------------
def summary(card: dict[str, Any]) -> dict[str, Any]:
    """What a card of several seeds keeps of each: front end, rule, and refusals of the test sets by way and source."""
    stage = card["stages"].get(measured("test", ALIGNED, card["seed"]))
    kept = {key: card[key] for key in ("seed", "front", "rule")}
    return kept | {"test": stage and counts(stage["sets"])}


def counts(sets: dict[str, Any]) -> dict[str, Any]:
    """`SOURCE, WAY` -> prompts, and refused by each judge; the sources never seen also together, as `unseen, WAY`."""
    made = {
        name: {"n": row["n"], **{judge: row[judge]["refused"] for judge in JUDGES}}
        for name, row in sets.items()
        if name.partition(", ")[0] in NAMES
    }
    for way in WAYS:
        here = [made[f"{source}, {way}"] for source in UNSEEN if f"{source}, {way}" in made]
        if len(here) == len(UNSEEN):
            made[f"unseen, {way}"] = {key: sum(row[key] for row in here) for key in here[0]}
    return made


def _rule(seeds: Sequence[dict[str, Any]]) -> list[str]:
    asked = [seed for seed in seeds if seed["rule"] is not None]
    if not asked:
        return ["Development prompts were not asked."]
    fronts = ("front end", "", *(seed["front"] for seed in asked))
    rows = [
        fronts,
        *(
            (row["name"], row["limit"], *(f"{seed['rule'][i]['found']:.2f}" for seed in asked))
            for i, row in enumerate(asked[0]["rule"])
        ),
    ]
    accepted = [f"no: {', '.join(lacks)}" if (lacks := fails(seed["rule"])) else "yes" for seed in asked]
    return table(("on development prompts", "limit", *_heads(asked)), [*rows, ("accepted", "", *accepted)])


def _heads(seeds: Sequence[dict[str, Any]]) -> list[str]:
    return [f"seed {seed['seed']}" for seed in seeds]


def _headline(seeds: Sequence[dict[str, Any]], card: dict[str, Any]) -> list[str]:
    asked = [seed for seed in seeds if seed["test"] is not None]
    if not asked:
        return ["The test sets were not looked at."]
    rows = []
    for source in ("unseen", *UNSEEN, "xs_safe"):
        for way in WAYS:
            name = f"{source}, {way}"
            if all(name in seed["test"] for seed in asked):
                told = "all three, harmful" if source == "unseen" else NAMES[source]
                rows.append((told, way, *(_share(seed["test"][name], "keyword") for seed in asked)))
    judged = [
        _share(seed["test"]["unseen, seen voices"], "refusal")
        for seed in asked
        if "unseen, seen voices" in seed["test"]
    ]
    said = f"The refusal judge, of all three in seen voices: {'; '.join(judged)}." if judged else ""
    return [
        f"Refused by the keyword judge, of all prompts of each set, with 95 % intervals over prompts. {said}".rstrip(),
        "",
        *table(("source", "asked", *_heads(asked)), rows),
    ]


def _share(row: dict[str, int], judge: str) -> str:
    low, high = wilson_interval(row[judge], row["n"])
    return f"{row[judge]} of {row['n']} = {row[judge] / row['n']:.2f} [{low:.2f}, {high:.2f}]"


# --- one seed ---------------------------------------------------------------------------------------------------------
def _measured(sets: dict[str, Any]) -> list[str]:
    def place(name: str) -> tuple[int, int]:
        source, _, way = name.partition(", ")
        return (*HARMFUL, *BENIGN).index(source), WAYS.index(way)

    head = ("set", "prompts", *(f"refused ({told}) [95 %]" for told in JUDGES.values()), "repeats: WER")
    return table(head, [_row(name, sets[name]) for name in sorted(sets, key=place)])


def _row(name: str, row: dict[str, Any]) -> list[str]:
    shares = (row[judge] for judge in JUDGES)
    told = [f"{s['refused']} = {s['rate']:.2f} [{s['low']:.2f}, {s['high']:.2f}]" for s in shares]
    return [name, str(row["n"]), *told, f"{row['repeat_wer']:.2f}" if "repeat_wer" in row else ""]
