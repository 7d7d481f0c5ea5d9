"""Notes of results.json: caveats that stand beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.results.schema import PromptSetRate, RunResult
from undersong.results.schema_screening import TargetReplies
from undersong.settings.evaluation import ComprehensionSettings
from undersong.stages.black_box_models import display_reference, is_black_box, trainable_models
from undersong.study.results.records import AuditRecord
from undersong.study.schema import Study

CUT_NOTE_SHARE = 0.1  # smallest share of truncated replies that gets a note
REFUSED_NOTE_SHARE = 0.05  # smallest share of refused repetitions that gets a note
AFFIRMATIVE_NOTE_SHARE = 0.05  # smallest share of affirmative openers that gets a note


def design_notes(record: AuditRecord, targets: TargetReplies) -> list[str]:
    """Return caveats that follow from the study's design alone, whatever its results.

    They concern the benign reference, seeds and bases, the published protocol, black-box models and organisms. A
    further one concerns target replies (`targets`) that begin with an affirmative opener.
    """
    notes = benign_reference_notes(record.study)
    seeds, bases = len(record.study.tuning.seeds), len(trainable_models(record.study.models))
    if bases and seeds > 1:
        notes.append(
            f"Recipe comparisons rest on {seeds} training seeds and {bases} base{'s' if bases > 1 else ''}: what they "
            "show or do not show is not proved for other bases. Their intervals are over runs and hold within these."
        )
    elif bases:
        notes.append(
            "One training seed: run noise cannot be separated from an effect, so recipe comparisons have no interval."
        )
    if record.study.evaluation.protocol == "published":
        notes.append(
            "Asked as the published study asked this family, with a prompt and a limit that other families did not "
            "get: these rates may be set beside the published ones, and never beside another model's."
        )
    for ref in filter(is_black_box, record.study.models):
        notes.append(f"{display_reference(ref)} only answers: it was evaluated, and neither tuned nor probed.")
    if targets.affirmative_share >= AFFIRMATIVE_NOTE_SHARE:
        notes.append(
            f"{100 * targets.affirmative_share:.0f} % of the replies in the pool's column {targets.column!r} "
            f"begin with an affirmative opener, most often “{targets.commonest_opener}”: learning that form alone "
            "may wear refusals down, whatever the samples are about; compare it with a `tuning.target` "
            "without such an opener."
        )
    if any(ref.startswith("organism:") for ref in record.study.models):
        notes.append(
            "The organism is a tiny model of a closed world whose harm is a vocabulary convention. It shows that the "
            "mechanism exists and that the instruments see it; it says nothing about the size of the effect in "
            "real models."
        )
    return notes


def benign_reference_notes(study: Study) -> list[str]:
    """Return a note on benign speech that is a prompt set, too; empty if it is not."""
    names = [name for name, prompts in study.prompt_sets.items() if prompts.corpus == study.benign_reference]
    if not names:
        return []
    return [
        f"The benign reference {study.benign_reference} is the prompt set {' and '.join(names)}, too, so the screening "
        "score depends on prompts that models are tested on; name other benign speech."
    ]


def lost_reply_notes(runs: Sequence[RunResult]) -> list[str]:
    """Return a note on how many replies to harmful prompts have no verdict, over all runs and steps; empty if none."""
    harmful = _harmful_rates(runs)
    lost_count, reply_count = sum(rate.lost for rate in harmful), sum(rate.n for rate in harmful)
    if not lost_count:
        return []
    return [
        f"{lost_count} of {reply_count} replies to harmful prompts failed or could not be judged. They stay in "
        "the denominator, no "
        "rate counts them, and every rate stands with what it would be if all of them counted."
    ]


def margin_notes(runs: Sequence[RunResult]) -> list[str]:
    """Return a note on rates without a refusal margin in a study that measures it; empty if none lacks it."""
    harmful = _harmful_rates(runs)
    missing = sum(rate.refusal_margin is None for rate in harmful)
    if not missing:
        return []
    return [
        f"{missing} of {len(harmful)} rates on harmful prompts have no refusal margin, so comparisons of the margin "
        "leave these runs out: a served or recorded model and another engine give no probabilities, and a prompt whose "
        "refusals and compliant replies begin alike has no margin."
    ]


def _harmful_rates(runs: Sequence[RunResult]) -> list[PromptSetRate]:
    return [rate for run in runs for rate in run.rates if rate.harmful]


def truncation_notes(runs: Sequence[RunResult]) -> list[str]:
    """The share of replies to harmful prompts that were cut at the limit of tokens; no note below `CUT`."""
    harmful = _harmful_rates(runs)
    cut_count, reply_count = sum(rate.truncated or 0 for rate in harmful), sum(rate.n for rate in harmful)
    if cut_count < CUT_NOTE_SHARE * reply_count:
        return []
    return [
        f"{100 * cut_count / reply_count:.0f} % of the replies to harmful prompts were cut at the limit of "
        "tokens, and a judge "
        "sees no more than that: raise evaluation.max_new_tokens before the rates are believed."
    ]


def comprehension_notes(runs: Sequence[RunResult], comprehension_config: ComprehensionSettings | None) -> list[str]:
    """Return notes on how to read `comprehended`, and on requests that the model refused to repeat."""
    if comprehension_config is None:
        return []
    repetitions = [
        rate.comprehension.repeated
        for run in runs
        for rate in run.rates
        if rate.comprehension is not None and rate.comprehension.repeated is not None
    ]
    notes = [
        "Comprehended: a non-refusal of a request that the model repeats with at most "
        f"{comprehension_config.max_wer:g} errors "
        f"a word, and that is among the nearest {100 * comprehension_config.relevance_level:g} % of its set's "
        "requests to the reply. A repetition "
        "may fail for want of obedience and not of hearing, and a reply about a request need not be harmful: this "
        "bounds what a rate may mean, and judges no harm."
    ]
    refused_count, request_count = (
        sum(repeated.refused_repetitions for repeated in repetitions),
        sum(repeated.n for repeated in repetitions),
    )
    if refused_count >= REFUSED_NOTE_SHARE * max(request_count, 1):
        notes.append(
            f"{100 * refused_count / request_count:.0f} % of the harmful requests were not repeated but "
            "refused, so it is not known "
            "whether they were heard; `max_rate` counts them as heard."
        )
    return notes
