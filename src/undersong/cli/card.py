"""`undersong card RESULTS`: the safety section of a model card, with metadata for the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.terminal import echo, echo_lines
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.audits.card import CardLabels
    from undersong.audits.gate.rises import VerdictPair


def card(
    results: Annotated[
        Path,
        typer.Argument(help="Verdicts of the model (.parquet, .jsonl, the folder of `evaluate`), or a results.json."),
    ],
    before: Annotated[
        Path | None, typer.Option(help="Verdicts of the model before, on the same prompts, to compare with.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model on the hub. Default: the folder's name.")] = None,
    arm: Annotated[str | None, typer.Option(help="Arm of the study whose model the card describes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed, if the arm has several runs.")] = None,
    change: Annotated[str, typer.Option(metavar="LABEL", help="What made this model of the one before.")] = "",
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="FILE", help="Labels by `undersong label`, by which the rates are corrected too."
        ),
    ] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="SET=ID", help="Data set on the hub of a prompt set; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write, which must not exist. Default: print it.")
    ] = None,
) -> None:
    """Write the safety section of a model card.

    Markdown with the rates and their intervals, under metadata (`model-index`) that the Hugging Face Hub reads. It
    holds no prompt and no reply.
    """
    from undersong.audits.card import card_entries, card_text

    title, (verdicts_before, verdicts_after) = _read_pair(results, before, arm, seed)
    ids = dict(_split_dataset(text) for text in datasets or ())
    card_labels = None if labels is None else _read_labels(labels, results, before, arm, title)
    entries = card_entries(verdicts_after, verdicts_before or None, card_labels)
    if unknown := sorted(set(ids) - {entry.rate.prompt_set for entry in entries}):
        known = ", ".join(sorted({entry.rate.prompt_set for entry in entries})) or "none"
        raise UndersongError(f"{results} has no prompt set {unknown[0]!r} for --dataset; it has {known}.")
    folder = results if results.is_dir() else results.resolve().parent
    notes = () if before is None else _generation_notes((before, results), (verdicts_before, verdicts_after))
    text = card_text(entries, name or folder.name, ids, change=change.strip(), notes=notes)
    if out is None:
        echo_lines(text.rstrip("\n"))
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UndersongError(
            f"{out} exists already; name a new file with --out, or print the card and paste it."
        ) from None
    echo(str(out))


def _generation_notes(files: tuple[Path, Path], verdicts: VerdictPair) -> tuple[str, ...]:
    """Say how the replies of the two models were generated differently; cut at other limits, they are no pair."""
    from undersong.evaluation.generation_settings import setting_notes, token_limit_note
    from undersong.phrases import capitalize_first

    notes = token_limit_note(files, verdicts), *setting_notes(files, verdicts)
    return tuple(capitalize_first(note) for note in notes if note)


def _read_labels(labels: Path, results: Path, before: Path | None, arm: str | None, title: str) -> CardLabels:
    """Read the labels of what `_read_pair` reads; `title` is that of a study's run."""
    from undersong.audits.card import CardLabels
    from undersong.audits.gate.inputs import labels_of_study
    from undersong.evaluation.labels import find_replies_hash, read_sample
    from undersong.results.run_replies import find_results_file

    if (study := find_results_file(results)) is not None:
        source = labels_of_study(study, labels, arm)
        if title not in source.replies_hashes:
            raise UndersongError(
                f"{labels} has no labels of {title} and its base; make them with `undersong label {results} --arm ARM`."
            )
        hash_before, hash_after = source.replies_hashes[title]
        return CardLabels(source.sample, hash_after, hash_before)
    digests = [None if path is None else find_replies_hash(path) for path in (before, results)]
    assert digests[1] is not None
    return CardLabels(read_sample(labels), digests[1], digests[0])


def _read_pair(results: Path, before: Path | None, arm: str | None, seed: int | None) -> tuple[str, VerdictPair]:
    """Return the title of a study's run ('': none), and the verdicts before (empty: none) and after."""
    from undersong.audits.gate.inputs import verdicts_from_study
    from undersong.evaluation.verdicts import read_verdicts
    from undersong.results.run_replies import find_results_file

    if (study := find_results_file(results)) is not None:
        results = study
        if before is not None:
            raise UndersongError(f"{results} has its own base; leave out --before.")
        pairs = verdicts_from_study(results, arm)
        titles = [title for title in pairs if seed is None or f" seed {seed} " in title]
        if len(titles) != 1:
            raise UndersongError(
                f"{results} has {len(titles)} such models, and a card describes one; name it with --arm and --seed, of "
                f"{'; '.join(pairs)}."
            )
        return titles[0], pairs[titles[0]]
    if arm is not None or seed is not None:
        raise UndersongError("Verdict files have no arms and seeds; leave out --arm and --seed.")
    tables = [read_verdicts(path) for path in (before, results) if path is not None]
    return "", (tables[0], tables[1]) if before is not None else ((), tables[0])


def _split_dataset(text: str) -> tuple[str, str]:
    set_name, equals, identifier = text.partition("=")
    if not (set_name and equals and identifier):
        raise UndersongError(f"--dataset {text} names no data set; give PROMPT_SET=ID.")
    return set_name, identifier
