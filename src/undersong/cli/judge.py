"""`judge`: verdicts on replies that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from undersong.cli.loading import Device, Dtype

JUDGES = (
    "exact | keyword (a smoke test) | refusal | refusal+minilm[:REF] | harmbench[:REF] | llama-guard[:REF] | "
    "wildguard[:REF] | cost[:REF] | llm:MODEL@URL | strongreject:MODEL@URL; of usefulness: choice | bbh | contains | "
    "f1 | wer; your own code: python:FILE.py:FUNCTION | python-refusal:… | python-use:…."
)

SET = "Name of the prompt set (default: harm, or benign under --benign)"

SCORES = {
    "contains": "mean containment {:.3f}",
    "f1": "mean F1 {:.3f}",
    "wer": "{:.3f} word errors a word (lower is better)",
}


def judge(
    file: Annotated[Path, typer.Argument(help="Replies: JSONL or Parquet with prompt_id, prompt, reply.")],
    name: Annotated[str, typer.Option("--judge", help=JUDGES)],
    out: Annotated[Path, typer.Option("--out", help="Folder for verdicts.parquet.")],
    manifest: Annotated[
        str | None, typer.Option("--manifest", help="Where the prompts' texts and answers are, if not in FILE.")
    ] = None,
    set_name: Annotated[str | None, typer.Option("--set", help=f"{SET}, for rows that give none.")] = None,
    harmful: Annotated[
        bool, typer.Option("--harmful/--benign", help="What the prompts are, for rows that do not say.")
    ] = True,
    refusal: Annotated[
        list[str] | None, typer.Option("--refusal", help="A reply that is a refusal (exact judge); repeatable.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Judge replies from a file, whoever collected them."""
    from undersong.models.loading import Loading
    from undersong.pipeline.judging import judge_file

    loading = Loading(device, dtype)
    for entry in judge_file(
        file, name, out, manifest, set_called(set_name, harmful), harmful, tuple(refusal or ()), loading
    ):
        for line in rate_lines(entry):
            typer.echo(line)
    typer.echo(str(out / "verdicts.parquet"))


def set_called(name: str | None, harmful: bool) -> str:
    """The name of a prompt set: that of `--set`, or one that says what its prompts are."""
    return name or ("harm" if harmful else "benign")


def rate_lines(entry: dict[str, Any]) -> list[str]:
    """An entry of `sets` as a reader takes it in: what was asked, the rate with its interval, every verdict's count."""
    from undersong.pipeline.results.rates import attack_name
    from undersong.types import VERDICTS

    key = attack_name(entry["judge"]) if entry["harmful"] else "refusal_rate"
    name = "JSR" if key == "jsr" else key.replace("_", " ").replace("non ", "non-")
    where = ", ".join(entry[part] for part in ("set", "modality", "system", "judge") if entry[part])
    interval = f"[{entry['low']:.1%}, {entry['high']:.1%}]"
    asked = f"{entry['n']} prompts in {entry['clusters']} clusters ({where})"
    lines = [f"{name} {entry[key]:.1%} {interval}{_unsure(entry, entry[key])}, {asked}"]
    if entry["judge_kind"] == "use":
        right = f"[{entry['right_low']:.1%}, {entry['right_high']:.1%}]"
        lines.append(f"right {entry['right_rate']:.1%} {right}{_unsure(entry, entry['right_rate'])}")
    if entry.get("score") is not None:
        lines.append(SCORES[entry["judge"]].format(entry["score"]))
    if entry.get("cut"):
        lines.append(f"{entry['cut']} replies were cut at the limit of tokens; a judge sees no more than that")
    return [*lines, ", ".join(f"{entry[word]} {word}" for word in VERDICTS)]


def comprehension_lines(entry: dict[str, Any]) -> list[str]:
    """What was heard, what non-refusals are about, and what is left of the rate; none where nobody asked."""
    found = entry.get("comprehension")
    if found is None:
        return []
    heard, about, whole = found["heard"], found["about"], found["comprehended"]
    lines = [f"comprehended {_share(whole)}, at most {whole['most']:.1%} with refused repetitions counted as heard"]
    if heard is not None:
        rate = "" if heard["word_error_rate"] is None else f", {heard['word_error_rate']:.2f} word errors a word"
        lines.append(f"heard {_share(heard)} of the requests ({heard['refused']} repetitions refused{rate})")
    if about is not None:
        chance = "" if about["chance"] is None else f", by chance {about['chance']:.1%}"
        lines.append(f"about their request {_share(about)} of {about['n']} non-refusals{chance}")
    return lines


def _share(found: dict[str, Any]) -> str:
    return f"{found['rate']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


def _unsure(entry: dict[str, Any], rate: float) -> str:
    """How far replies without a verdict could move a rate that counts none of them; empty: there is none."""
    from undersong.statistics import either_way

    lost = entry["error"] + entry["unparsed"]
    most = min(1.0, rate + lost / entry["n"])
    return f", {either_way(f'{rate:.1%}', f'{most:.1%}', lost)}" if lost else ""
