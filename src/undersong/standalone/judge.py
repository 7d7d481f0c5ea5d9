"""`judge`: verdicts on the replies of a file, whoever collected them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from undersong.evaluation.rates import VerdictRate, set_rates
from undersong.options import key_values
from undersong.settings.judge_names import judge_criterion
from undersong.stages.output_folder import (
    atomic_folder,
    check_output_folder,
    locked_output_folder,
    report_kept_work,
    write_provenance,
)
from undersong.stages.replies import ANSWERS_SUFFIX
from undersong.standalone.options import JudgeOptions

ANSWERS_KEPT = "the judge's answers so far are kept beside --out, and the same command goes on from them"
NO_CLUSTERS_NOTE = (
    "Note: the replies have no clusters, so the intervals count every prompt as independent; add a column cluster, or "
    "give the prompts' --manifest."
)


def judge_file(
    file: str | Path, out: str | Path, options: JudgeOptions, say: Callable[[str], None] | None = None
) -> list[VerdictRate]:
    """Judge the replies of a file that any program may have collected.

    Writes `verdicts.parquet` and `provenance.json`.

    Args:
        file: Replies, as `evaluation.replies.read_reply_table` reads them.
        out: Output folder.
        options: Judge, and defaults for what the rows do not say.
        say: Receives progress, and a note if neither the file nor the manifest has clusters; None drops them.

    Returns:
        One rate for each prompt set, modality and system prompt.
    """
    from undersong.corpora.registry import corpus_hash, open_corpus
    from undersong.encoders.batching import watch_progress, watch_worker
    from undersong.evaluation.generation_settings import UNKNOWN_SETTINGS, read_generation_settings
    from undersong.evaluation.judges.registry import judge_hash, make_judge
    from undersong.evaluation.refusal_margin import with_margins
    from undersong.evaluation.replies import read_reply_table
    from undersong.evaluation.serving.journal import keep_answers
    from undersong.evaluation.verdicts import with_finishes, write_verdicts
    from undersong.store.hashing import hash_file

    check_output_folder(Path(out), "judge")
    judge_instance = make_judge(options.judge, options.refusal_texts, options.loading.device, options.loading.dtype)
    manifest = options.manifest
    with locked_output_folder(Path(out)) as out:
        check_output_folder(out, "judge")
        samples = None if manifest is None else {sample.id: sample for sample in open_corpus(manifest).samples}
        exchanges = read_reply_table(Path(file), samples, options.set_name, options.harmful)
        answers = out.with_name(
            f"{out.name}{ANSWERS_SUFFIX}"
        )  # of a judge at an address, until the verdicts are written
        with (
            keep_answers(judge_instance, answers) as is_journaled,
            watch_worker(judge_instance, watch_progress(f"{judge_instance.name} judges", say)),
            report_kept_work(lambda: ANSWERS_KEPT if is_journaled and answers.is_file() else None),
        ):
            prompts, replies = [prompt for prompt, _ in exchanges], [reply for _, reply in exchanges]
            verdicts = with_finishes(with_margins(judge_instance.judge(prompts, replies), replies), replies)
        inputs = {"replies": hash_file(Path(file))}
        if manifest is not None:
            inputs["manifest"] = corpus_hash(manifest)
        if source := judge_hash(options.judge):
            inputs["judge"] = source
        config = judge_key_values(options)
        notes: dict[str, Any] = {"judge_criterion": judge_criterion(options.judge), "replies": len(exchanges)}
        if (generation := read_generation_settings(Path(file))) != UNKNOWN_SETTINGS:
            notes["generation"] = asdict(generation)  # so that `compare` and `gate` can tell them apart
        with atomic_folder(out, "judge") as folder:
            write_verdicts(verdicts, folder / "verdicts.parquet")
            write_provenance(
                folder,
                "judge",
                config,
                inputs,
                notes,
            )
        answers.unlink(missing_ok=True)
    if say is not None and all(prompt.sample.group is None for prompt, _ in exchanges):
        say(NO_CLUSTERS_NOTE)
    speakers = {prompt.sample.id: prompt.sample.speaker for prompt, _ in exchanges}
    return set_rates(verdicts, speakers, exchanges=exchanges)


def judge_key_values(options: JudgeOptions) -> dict[str, Any]:
    """Options that verdicts depend on, by name, as their provenance has them."""
    return key_values(options, options.RESULT_NEUTRAL, options.HASHED_INPUTS, prompt_set=options.set_name)
