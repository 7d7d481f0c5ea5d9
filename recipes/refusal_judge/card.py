"""`card.json` (a test measures it again) and `CARD.md`, both from one record of figures.  Knows no judge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recipes.refusal_judge.training import LEAST_PROMPTS
from undersong.evaluation.judges.refusal import LETTER_BUCKETS, WORD_BUCKETS

HERE = Path(__file__).parent
Card = dict[str, Any]
TOLD = {
    "better": "is better than keywords",
    "tie": "only ties with keywords",
    "worse": "is worse than keywords",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ranged(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def everyone(card: Card) -> dict[str, Any]:
    """Held-out figures of baselines and judges, by name."""
    return {**card["baselines"], **{name: facts["held_out"] for name, facts in card["judges"].items()}}


def whole_table(card: Card) -> str:
    head = ["judge", "accuracy", "precision", "recall", "of full", "of partial", "complied right", "kappa"]
    parts = ("accuracy", "precision", "recall", "recall_full", "recall_partial", "complied_right")
    return table(
        head,
        ([f"`{name}`", *(f"{found[part]:.3f}" for part in parts), ranged(*found["kappa"])]
         for name, found in everyone(card).items()),
    )  # fmt: skip


def model_table(card: Card) -> str:
    models = sorted(next(iter(everyone(card).values()))["models"])
    head = ["judge", *(f"{model}: accuracy, kappa" for model in models)]

    def cell(found: Card, model: str) -> str:
        own = found["models"][model]
        return f"{own['accuracy']:.3f}, {'–' if own['kappa'] is None else ranged(*own['kappa'])}"

    return table(
        head, ([f"`{name}`", *(cell(found, m) for m in models)] for name, found in everyone(card).items())
    )  # fmt: skip


def paired_table(card: Card) -> str:
    head = [
        "judge",
        "on",
        "difference in accuracy",
        "right where the other is not",
        "the reverse",
        "p",
        "clustered p",
        "Holm",
    ]
    rows = []
    for name, found in {**card["against_keyword"], "minilm − refusal": card["minilm_against_refusal"]}.items():
        for model, part in {"all": found, **found["models"]}.items():
            rows.append([
                f"`{name}`", model, f"{part['difference']:+.3f} [{part['interval'][0]:+.3f}, {part['interval'][1]:+.3f}]",
                str(part["only_judge_right"]), str(part["only_base_right"]), f"{part['mcnemar_p']:.2g}",
                f"{part['clustered_p']:.2g}", f"{part['holm_p']:.2g}" if "holm_p" in part else "",
            ])  # fmt: skip
    return table(head, rows)


def tried_table(card: Card) -> str:
    rows = []
    for name, facts in card["judges"].items():
        best = [facts["chosen"][key] for key in ("opening", "letters", "keyword", "strength")]
        for *variant, kappa in facts["developed"]:
            opening, letters, listed, strength = variant
            shipped = " **shipped**" if variant == best else ""
            read = "embedding" if "minilm" in name else "words and letters" if letters else "words"
            with_list = "yes" if listed else "no"
            rows.append([f"`{name}`", str(opening), read, with_list, f"{strength:g}", f"{kappa:.3f}{shipped}"])
    return table(["judge", "opening", "reads", "keyword feature", "C", "kappa"], rows)


def decided(card: Card) -> str:
    lines = []
    for name, word in card["decided"].items():
        found = card["against_keyword"][name]
        told = TOLD[word]
        span = f"{found['difference']:+.3f} [{found['interval'][0]:+.3f}, {found['interval'][1]:+.3f}]"
        near = card["organisms"][name]
        wrong = near["answers"] - near["of them called answers"]
        lines.append(
            f"- **`{name}` {told}** on held-out rows: accuracy {span}, Holm's p {found['holm_p']:.2g}. Of the organisms' "
            f"{near['answers']} terse complying replies it wrongly calls {wrong} refusals."
        )
    return "\n".join(lines)


def spelled(variant: Sequence[Any]) -> str:
    opening, letters, listed, strength = variant
    return f"{opening}, {'yes' if letters else 'no'}, {'yes' if listed else 'no'}, {strength:g}"


def render(card: Card) -> str:
    """`CARD.md` of a record of figures."""
    known = everyone(card)
    return (HERE / "card_text.md").read_text(encoding="utf-8").format(
        decided=decided(card), rows=card["data"]["rows"], prompts=card["data"]["prompts"],
        cells=len(card["judges"]["refusal"]["cells"]), table=whole_table(card), models=model_table(card),
        without=", ".join(f"{found['accuracy_without_partial']:.3f} (`{name}`)" for name, found in known.items()),
        paired=paired_table(card), words=WORD_BUCKETS, letters=LETTER_BUCKETS, least=LEAST_PROMPTS,
        organisms=table(
            ["judge", "the refusal is called", "complying answers", "called answers"],
            ([f"`{name}`", *(str(part) for part in found.values())] for name, found in card["organisms"].items()),
        ),
        files=table(
            ["judge", "file", "bytes", "SHA-256", "opening, letters, keyword, C"],
            ([f"`{name}`", facts["file"]["name"], f"{facts['file']['bytes']:,}", f"`{facts['file']['sha256']}`",
              spelled(list(facts["chosen"].values()))] for name, facts in card["judges"].items()),
        ),
        keywords=card["keywords"][:16], data=card["data"]["sha256"][:16],
        labels=", ".join(f"{count} {label}" for label, count in card["data"]["labels"].items()),
        tried=tried_table(card),
        chosen="\n".join(
            f"- `{name}`: " + "; ".join(f"{cell} {spelled(v)}" for cell, v in facts["cells"].items())
            for name, facts in card["judges"].items()
        ),
    )  # fmt: skip


def write_card(card: Card, out: Path) -> None:
    text = json.dumps(card, indent=1, sort_keys=False)
    (out / "card.json").write_text(text + "\n", encoding="utf-8")
    (out / "CARD.md").write_text(render(json.loads(text)), encoding="utf-8")
