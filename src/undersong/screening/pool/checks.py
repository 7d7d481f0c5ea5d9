"""Checks of options and corpora before anything is embedded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from undersong.screening.pool.inputs import CorpusInput, ScreeningCorpora, check_benign_quarantine
from undersong.screening.pool.options import (
    CHAT_FORMATS,
    OUTPUT_FORMATS,
    PRECOMPUTED,
    ScreeningOptions,
    name_or_first,
    selection_rules,
)
from undersong.settings.defaults import LEARNING_RATE
from undersong.stages.black_box_models import is_black_box
from undersong.stages.engine import DEFAULT_ENGINE, check_engine
from undersong.tuning.config import LoraRecipe
from undersong.types import Quarantined, UndersongError


def check_options(options: ScreeningOptions, harm_refs: Mapping[str, str], out: Path) -> None:
    """Check the options of a screening before anything is read.

    Raises:
        UndersongError: Options do not fit together, or store and output lie inside each other.
    """
    check_engine(options.engine)
    if options.store is not None and (store := Path(options.store).resolve()) in (out, *out.parents):
        raise UndersongError(f"{out} lies in the store {store}; name a folder outside it with --out.")
    if options.store is not None and out in Path(options.store).resolve().parents:
        raise UndersongError(
            f"The store {options.store} lies in {out}, which is replaced as a whole; keep it elsewhere."
        )
    if options.output_format not in OUTPUT_FORMATS:
        raise UndersongError(
            f"A kept set is not written as {options.output_format!r}; take one of {', '.join(OUTPUT_FORMATS)}."
        )
    if not options.rules and (options.match_selection is not None or options.output_format != "manifest"):
        option = "--match-selection" if options.match_selection is not None else "--output-format"
        raise UndersongError(f"{option} needs samples that are kept; add a rule, such as --keep distant:0.75.")
    name_or_first("harm set", options.select_harm_set, harm_refs)
    if options.axes is not None:
        name_or_first("axis", options.select_axis, options.axes)
    if options.center and options.benign_reference is not None:
        raise UndersongError(
            "A screening score cannot be centered: each set has its own mean; leave out --center or --benign-reference."
        )
    if options.benign_reference is None and options.benign_reference_columns:
        raise UndersongError(
            "--benign-reference-column needs --benign-reference; name that set, or leave the columns out."
        )
    if options.engine.shard is not None and options.store is None:
        raise UndersongError("Jobs of one screening share a store; give all of them the same --store.")
    _check_rehearsal_options(options)


def _check_rehearsal_options(options: ScreeningOptions) -> None:
    if not options.rehearse:
        for option, is_given in (
            ("--rehearse-by", options.rehearse_by is not None),
            ("--rehearse-seeds", options.rehearse_seeds != 1),
            ("--rehearse-learning-rate", options.rehearse_learning_rate != LEARNING_RATE),
        ):
            if is_given:
                raise UndersongError(f"{option} needs a rehearsal; add --rehearse STEPS, such as --rehearse 8.")
        return
    LoraRecipe(learning_rate=options.rehearse_learning_rate)  # which refuses a rate that no training has
    if options.model is None:
        raise UndersongError("A rehearsal trains a model; name the model with --model.")
    if is_black_box(options.model):
        raise UndersongError(
            f"The model {options.model} is known by its replies only, so it cannot rehearse; give one with weights."
        )
    if options.engine != DEFAULT_ENGINE:
        raise UndersongError("A rehearsal trains in one process; leave --engine and --shard out, or --rehearse.")


def check_unused_audio(options: ScreeningOptions, pool: str, harm_refs: Mapping[str, str]) -> None:
    """Check that the default axes would not leave out audio that a corpus has under a name that nobody knows.

    Raises:
        UndersongError: A column holds audio files and is not read.
    """
    from undersong.corpora.registry import corpus_columns
    from undersong.encoders.embeddings import holds_embeddings

    if options.axes is not None:
        return
    maps = [
        ("--column", pool, options.columns),
        *(("--harm-column", ref, options.harm_columns) for ref in harm_refs.values()),
    ]
    for option, ref, columns in maps:
        if Path(ref).is_file() and not holds_embeddings(ref) and (column := corpus_columns(ref, columns).unused_audio):
            raise UndersongError(
                f"Column {column!r} of {ref} names audio files and would not be used; give {option} audio={column}, or "
                "--axis semantic=tfidf to rank by text alone."
            )


def lacking_corpora(field: str, corpora: ScreeningCorpora) -> list[str]:
    """References of the pool and the harm sets that have no `text`, or no `audio`."""
    return [
        corpus_input.ref
        for corpus_input in (corpora.pool, *corpora.harm.values())
        if not any(getattr(sample, field) for sample in corpus_input.samples)
    ]


def dropped_axis_lines(default_axes: Sequence[tuple[str, str, str]], corpora: ScreeningCorpora) -> list[str]:
    """A line for each default axis that the corpora cannot be measured on, with what they lack and what is left.

    Args:
        default_axes: Name, encoder and field of each default axis.
        corpora: The corpora.
    """
    kept = [axis for axis, _, field in default_axes if not lacking_corpora(field, corpora)]
    lines = []
    for axis, encoder, field in default_axes:
        if kept and (refs := lacking_corpora(field, corpora)):
            hint = " Log-mel follows the voice more than the words; an encoder such as speech:ID follows them." * (
                field == "text"
            )
            lines.append(
                f"No axis {axis}={encoder}: {' and '.join(refs)} {'has' if len(refs) == 1 else 'have'} no {field}; the "
                f"ranking is by {', '.join(kept)} alone.{hint}"
            )
    return lines


def check_output_outside_inputs(corpora: ScreeningCorpora, out: Path) -> None:
    """Check that the output would not replace an input.

    Raises:
        UndersongError: An input lies in the output folder.
    """
    folders: dict[str, str] = {}
    out_prefix = os.path.join(out, "")
    for path in (file for corpus_input in corpora.inputs for file in corpus_input.files):
        if os.path.join(_resolved_path(path, folders), "").startswith(out_prefix):
            raise UndersongError(f"{path} is read and lies in {out}, which would be replaced; name another --out.")


def _resolved_path(path: str, folders: dict[str, str]) -> str:
    """Path without links; each folder is resolved once, because a pool may have a million files in a few folders."""
    head, tail = os.path.split(os.path.abspath(path))
    if head not in folders:
        folders[head] = os.path.realpath(head)
    joined = os.path.join(folders[head], tail)
    return os.path.realpath(joined) if os.path.islink(joined) else joined


def check_axes(options: ScreeningOptions, axes: Mapping[str, str], corpora: ScreeningCorpora) -> None:
    """Check rules, score, axes and model against the corpora.

    Raises:
        UndersongError: One of them does not fit.
    """
    from undersong.encoders.registry import is_internal, is_predictor
    from undersong.proximity.rules import resolve_amount
    from undersong.proximity.table import parse_score

    name_or_first("axis", options.select_axis, axes)
    for name, harm_input in corpora.harm.items():
        kind, k = parse_score(options.score, harm_input.item_count)
        if kind == "knn" and k > harm_input.item_count:
            raise UndersongError(
                f"There are no k = {k} neighbors in a harm set of {harm_input.item_count} ({name}); use a smaller K."
            )
    for rule, _ in selection_rules(options).values():
        if rule.kind in ("closest", "distant", "random"):
            resolve_amount(rule.amount, corpora.pool.item_count)
    for axis, encoder in axes.items():
        if corpora.pool.precomputed is not None and encoder != PRECOMPUTED:
            raise UndersongError(
                f"Axis {axis}: the input is precomputed embeddings, not {encoder}; write {axis}={PRECOMPUTED}."
            )
        if corpora.pool.precomputed is None and encoder == PRECOMPUTED:
            raise UndersongError(
                f"Axis {axis}={PRECOMPUTED} needs Parquet files with a column `embedding`; these are manifests."
            )
    if gradient_axis := next(
        (axis for axis, encoder in axes.items() if encoder.partition(":")[0] == "gradients"), None
    ):
        raise UndersongError(
            f"Axis {gradient_axis}: gradients need replies to train on; use this axis in a study instead."
        )
    own_encoders = {axis: encoder for axis, encoder in axes.items() if encoder != PRECOMPUTED}
    internal_axes = [axis for axis, encoder in own_encoders.items() if is_internal(encoder)]
    predictor_axes = [axis for axis, encoder in own_encoders.items() if is_predictor(encoder)]
    if internal_axes and options.model is None:
        raise UndersongError(f"Axis {internal_axes[0]} uses a model's audio encoder; name the model with --model.")
    if predictor_axes and options.model is None:
        raise UndersongError(f"Axis {predictor_axes[0]} runs a model on prompts; name the model with --model.")
    if predictor_axes and options.engine != DEFAULT_ENGINE:
        raise UndersongError(
            f"Axis {predictor_axes[0]} runs the model in one process; leave --engine and --shard out, or this axis."
        )
    if options.model is not None and not internal_axes and not predictor_axes and not options.rehearse:
        raise UndersongError(
            f"No axis uses the model {options.model}; add one, such as --axis internal=internal or --axis "
            "leaning=refusal, or --rehearse."
        )
    if options.system_prompt is not None and not predictor_axes and not options.rehearse:
        raise UndersongError("No axis prompts a model; leave --system-prompt out, or add one, such as refusal.")


def check_pool(options: ScreeningOptions, axes: Mapping[str, str], pool: CorpusInput) -> None:
    """Check that the pool has the columns that rules and output format need.

    Raises:
        UndersongError: A column is missing.
    """
    from undersong.proximity.selection import check_rule_columns
    from undersong.proximity.strata import sample_metadata_table

    columns = sample_metadata_table(pool.samples).column_names if pool.samples else []
    select_axis = name_or_first("axis", options.select_axis, axes)
    for rule, _ in selection_rules(options).values():
        check_rule_columns(rule, columns, [axis for axis in axes if axis != select_axis])
    if pool.precomputed is not None and options.output_format != "manifest":
        raise UndersongError(
            f"Embeddings cannot be kept as {options.output_format}; leave --output-format out, or screen a manifest."
        )
    if options.output_format in CHAT_FORMATS and not any(sample.answer for sample in pool.samples):
        raise UndersongError(
            f"No item of {pool.ref} has an answer to train on, so no {options.output_format} can be written."
        )


def check_modalities(axes: Mapping[str, str], corpora: ScreeningCorpora, max_share: float) -> None:
    """Check before embedding that axes would not lose too many items without text or without audio.

    `max_share` is the share of the pool that may be lost.

    Raises:
        UndersongError: An axis would lose too many.
    """
    from undersong.proximity.table import check_quarantine

    for axis, encoder in axes.items():
        missing = {corpus_input.ref: _items_without_content(encoder, corpus_input) for corpus_input in corpora.inputs}
        pool, location = corpora.pool, f"on axis {axis}"
        for name, harm_input in corpora.harm.items():
            harm_location = f"{location} to {name}" if len(corpora.harm) > 1 else location
            total = pool.item_count + len(pool.quarantined)
            check_quarantine(harm_location, missing[pool.ref], total, missing[harm_input.ref], max_share)
        if corpora.benign is not None:
            check_benign_quarantine(
                f"cannot be used {location}", corpora.benign, missing[corpora.benign.ref], max_share
            )


def _items_without_content(encoder: str, corpus_input: CorpusInput) -> list[Quarantined]:
    """Items of one corpus without the text or audio that an encoder needs; custom encoders check this themselves."""
    from undersong.encoders.spec import parse_encoder

    if encoder == PRECOMPUTED or (encoder_spec := parse_encoder(encoder)).code:
        return []
    text, audio = encoder_spec.needs_text, encoder_spec.needs_audio
    return [
        Quarantined(sample.id, f"no {'text' if text else 'audio'}")
        for sample in corpus_input.samples
        if not (text and (sample.text or "").strip()) and not (audio and sample.audio is not None)
    ]
