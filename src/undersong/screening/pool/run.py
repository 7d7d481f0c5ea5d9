"""Run a screening: read, check, embed, rank, select, and write the output folder last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from undersong.options import key_values
from undersong.screening.marked_samples import read_marked_ids
from undersong.screening.pool.axis_choice import DEFAULT_AXES, checked_axes
from undersong.screening.pool.checks import (
    check_options,
    check_output_outside_inputs,
    check_unused_audio,
    dropped_axis_lines,
)
from undersong.screening.pool.findings import padding_checks, screening_findings
from undersong.screening.pool.inputs import (
    ScreeningCorpora,
    check_benign_quarantine,
    pool_quarantine,
    read_corpora,
)
from undersong.screening.pool.options import (
    PRECOMPUTED,
    SHIPPED_ORDINARY,
    ScreeningOptions,
    ScreeningRequest,
    harm_sets_by_name,
    match_selection_ids,
    selection_rules,
)
from undersong.screening.pool.output import (
    ScreeningFindings,
    ScreeningResult,
    publish_screening,
    read_screening,
    writable_screening_folder,
    write_screening,
)
from undersong.screening.pool.predictor_axes import harm_sample_vectors, predictor_artifacts
from undersong.screening.pool.rehearsal import (
    REHEARSAL_STEP,
    rehearsal_stage,
    rehearse_sets,
    unusable_samples,
)
from undersong.stages.context import RunContext
from undersong.stages.embeddings import EmbeddingRequest, embed_corpus, embed_shard
from undersong.stages.engine import DEFAULT_ENGINE
from undersong.stages.output_folder import locked_output_folder, partial_store, report_kept_artifacts
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs, Store
from undersong.types import Embeddings, Quarantined

PARTIAL_SHARDS = (  # what a failed screening leaves
    "embeddings/*/embeddings-00001.parquet", "*/*.shards/rows-*", "rehearsal/*/rehearsal.json",
)  # fmt: skip
SCREENING_VERSION = 6  # of what a screening finds
SELECTION_OPTIONS = (  # agreement and separation of axes do not depend on them
    "select_axis", "keep", "match_selection", "seed", "check_padding", "rehearse", "rehearse_seeds", "rehearse_by",
    "rehearse_learning_rate",
)  # fmt: skip
DEFAULT_OPTIONS = ScreeningOptions()


def run_screening(
    pool: str | Path,
    harm: str | Path | Mapping[str, str | Path],
    out: str | Path,
    options: ScreeningOptions = DEFAULT_OPTIONS,
) -> ScreeningResult | None:
    """Measure `pool` against the harm sets on every axis, select on one of them, and write the folder `out`.

    With `options.store` all artifacts and findings are cached there, so repeating a screening is a look-up. Without it,
    embeddings are kept in `OUT.*.partial` until the screening is written, so that a killed run can continue. With its
    own shard (`options.engine`) a job embeds that shard into the store and returns None.

    Args:
        pool: Reference of the pool.
        harm: Reference of the harm set, or references by name.
        out: The output folder.
        options: Options of the screening.

    Raises:
        UndersongError: The screening is not possible; nothing is written to `out`.
    """
    harm_refs, out = harm_sets_by_name(harm), writable_screening_folder(Path(out))
    selection_rules(options)  # a wrong rule is an error before anything is read
    check_options(options, harm_refs, out)
    if options.writes_views:
        from undersong.pages.data_page import check_view_paths

        check_view_paths(options.page, options.explore)
    match_selection_ids(options)
    with ExitStack() as stack:
        if options.engine.shard is None:  # the job of one shard writes to the store only
            writable_screening_folder(stack.enter_context(locked_output_folder(out)))
        ctx, store = stack.enter_context(_open_run_context(options, out, [str(pool), harm_refs]))
        check_unused_audio(options, str(pool), harm_refs)
        corpora = read_corpora(ctx, str(pool), harm_refs, options)
        if options.axes is None and corpora.pool.precomputed is None:
            for line in dropped_axis_lines(DEFAULT_AXES, corpora):
                ctx.announce(line)
        check_output_outside_inputs(corpora, out)
        if options.engine.shard is not None:
            for encoder in checked_axes(corpora, options).values():
                embed_shard(ctx, _views(encoder, corpora, options)[0], store)
            return None

        def make(draft: Draft) -> None:
            axis_encoders = checked_axes(corpora, options)
            extra_findings: dict[str, Any] = (
                {"padding": padding_checks(axis_encoders, corpora, options.loading.device)}
                if options.check_padding
                else {}
            )
            rehearsal = rehearsal_stage(ctx, corpora, options) if options.rehearse else None
            lost = [] if rehearsal is None else unusable_samples(rehearsal)
            computed, quarantined = rank_pool(ctx, store, corpora, axis_encoders, options, (config, inputs), lost)
            if corpora.pool.dropped:
                extra_findings |= {"dropped": len(corpora.pool.dropped)}
            if rehearsal is not None:
                extra_findings |= {"rehearsal": rehearse_sets(rehearsal, computed, options).model_dump(mode="json")}
            write_screening(computed, extra_findings, corpora.pool, quarantined, draft.path)

        config, inputs = screening_key(harm_refs, corpora, options)
        artifact = store.get_or_make("screening", SCREENING_VERSION, config, inputs, make, seed=options.seed)
        result = read_screening(artifact.path)
        publish_screening(artifact.path, out, options.output_format)
        if options.writes_views:
            result = replace(result, written_views=_write_views(ctx, corpora, result, options))
    return result


def rank_pool(
    ctx: RunContext,
    store: Store,
    corpora: ScreeningCorpora,
    axis_encoders: Mapping[str, str],
    options: ScreeningOptions,
    key: tuple[dict[str, Any], Inputs],
    lost_in_rehearsal: Sequence[Quarantined],
) -> tuple[ScreeningFindings, tuple[Quarantined, ...]]:
    """Findings of a screening before any rehearsal, and the pool items that no axis ranks.

    Args:
        ctx: The run context.
        store: Its store.
        corpora: The corpora.
        axis_encoders: Encoder of each axis.
        options: Options of the screening.
        key: Config and inputs of the screening.
        lost_in_rehearsal: Pool items that a rehearsal cannot use, with reasons.

    Raises:
        UndersongError: Too many items of the pool or of the benign reference are lost.
    """
    from undersong.encoders.embeddings import drop_embeddings, remove_items

    lost_by_step: dict[str, Sequence[Quarantined]] = {REHEARSAL_STEP: lost_in_rehearsal} if options.rehearse else {}
    embeddings_by_axis = {
        axis: _read_or_embed(ctx, corpora, encoder, options) for axis, encoder in axis_encoders.items()
    }
    lost_by_step |= {axis: sides[0].quarantined for axis, sides in embeddings_by_axis.items()}
    quarantined = pool_quarantine(corpora.pool, lost_by_step)
    first_axis = next(iter(embeddings_by_axis.values()))[0]
    total = len(first_axis.ids) + len(first_axis.quarantined) + len(corpora.pool.quarantined)
    _check_pool_quarantine(total, lost_by_step, quarantined, options.max_quarantined)
    if corpora.benign is not None:
        for axis, axis_embeddings in embeddings_by_axis.items():
            reason = f"cannot be used on axis {axis}"
            check_benign_quarantine(reason, corpora.benign, axis_embeddings[-1].quarantined, options.max_quarantined)
    for axis_embeddings in embeddings_by_axis.values():  # an item lost on one axis is left out of all
        axis_embeddings[0] = drop_embeddings(axis_embeddings[0], quarantined, store.root)
        axis_embeddings[0] = remove_items(axis_embeddings[0], corpora.pool.dropped, store.root)
    n_ranked = len(next(iter(embeddings_by_axis.values()))[0].ids)
    ctx.announce(f"ranking {n_ranked:,} samples by {', '.join(axis_encoders)}")
    findings = screening_findings(
        corpora,
        axis_encoders,
        embeddings_by_axis,
        selection_rules(options),
        options,
        partial(_cached_findings, store, *key),
        harm_sample_vectors(ctx, corpora, axis_encoders, options),
    )
    return findings, quarantined


def _write_views(
    ctx: RunContext, corpora: ScreeningCorpora, result: ScreeningResult, options: ScreeningOptions
) -> tuple[str, ...]:
    from undersong.pages.data_page import MAX_SHOWN, write_views
    from undersong.screening.pool.view import build_screening_view

    ctx.announce(f"writing {' and '.join(str(path) for path in (options.page, options.explore) if path is not None)}")
    encoder = result.report["axes"][result.report["selected_by"]["axis"]]
    sides = _read_or_embed(ctx, corpora, encoder, options)
    view = build_screening_view(corpora, sides, result, options, MAX_SHOWN)
    return write_views(view, options.page, options.explore)


@contextmanager
def _open_run_context(
    options: ScreeningOptions, out: Path, corpus_refs: list[Any]
) -> Iterator[tuple[RunContext, Store]]:
    """Open the user's store, or a temporary one next to `out`.

    The temporary store is removed when the screening is written, or if it fails before its second shard; otherwise the
    embeddings stay for the next run.
    """
    if options.store is not None:
        store = Store(options.store)
        with report_kept_artifacts(store.root):
            yield RunContext(store, options.loading, options.progress), store
        return
    key_parts = [
        *corpus_refs,
        options.axes,
        options.model,
        options.system_prompt,
        options.columns,
        options.harm_columns,
        options.benign_reference_columns,
    ]
    key = [*key_parts, str(options.benign_reference), options.loading.cache_key]
    with partial_store(out, key, PARTIAL_SHARDS, "embeddings") as store:
        yield RunContext(store, options.loading, options.progress), store


def _cached_findings(
    store: Store, config: dict[str, Any], inputs: Inputs, name: str, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Result of `compute`, from the store if it was computed before with another rule.

    Args:
        store: The store.
        config: Config of the screening.
        inputs: Its inputs.
        name: Name of the stage: agreement or separation.
        compute: Computes the findings.
    """

    def make(draft: Draft) -> None:
        with draft.file(f"{name}.json") as path:
            path.write_text(json.dumps(compute(), allow_nan=False), encoding="utf-8")

    axes_config = {option: value for option, value in config.items() if option not in SELECTION_OPTIONS}
    artifact = store.get_or_make(name, SCREENING_VERSION, axes_config, inputs, make)
    return dict(json.loads((artifact.path / f"{name}.json").read_text(encoding="utf-8")))


def _views(encoder: str, corpora: ScreeningCorpora, options: ScreeningOptions) -> list[EmbeddingRequest]:
    """Requests of one encoder for every corpus (none for precomputed embeddings).

    A fitted encoder is fitted on all corpora: unknown words would have no weight, and texts would seem too close.
    """
    fit = [corpus_input.corpus for corpus_input in corpora.inputs if corpus_input.corpus is not None]
    engines = (options.engine, *(DEFAULT_ENGINE for _ in corpora.inputs[1:]))
    return [
        EmbeddingRequest(encoder, corpus_input.corpus, fit, options.model, engine=engine)
        for corpus_input, engine in zip(corpora.inputs, engines)
        if corpus_input.corpus is not None
    ]


def _read_or_embed(
    ctx: RunContext, corpora: ScreeningCorpora, encoder: str, options: ScreeningOptions
) -> list[Embeddings]:
    """Of every side: pool, harm sets, benign reference."""
    from undersong.encoders.embeddings import read_embeddings
    from undersong.encoders.registry import is_predictor

    precomputed = [corpus_input.precomputed for corpus_input in corpora.inputs if corpus_input.precomputed is not None]
    if precomputed:
        return precomputed
    if is_predictor(encoder):
        artifacts = predictor_artifacts(ctx, corpora, encoder, options)
    else:
        artifacts = [embed_corpus(ctx, view) for view in _views(encoder, corpora, options)]
    return [read_embeddings(artifact.path, corpora.pool.scratch) for artifact in artifacts]


def _check_pool_quarantine(
    total: int,
    lost_by_step: Mapping[str, Sequence[Quarantined]],
    quarantined: Sequence[Quarantined],
    max_share: float,
) -> None:
    """Check quarantined items by the steps that lost them, because later they are missing on every axis."""
    from undersong.proximity.table import check_quarantine

    lossy_axes = [step for step, lost in lost_by_step.items() if lost and step != REHEARSAL_STEP]
    places = [f"on {'axis' if len(lossy_axes) == 1 else 'the axes'} {', '.join(lossy_axes)}"] if lossy_axes else []
    places += [f"in {REHEARSAL_STEP}"] if lost_by_step.get(REHEARSAL_STEP) else []
    check_quarantine(" and ".join(places) or "as it is", quarantined, total, (), max_share)


def screening_key_values(options: ScreeningOptions) -> dict[str, Any]:
    """Options that the findings depend on, by name; corpora, columns and weights enter the key as hashes."""
    from undersong.proximity.selection import ids_hash

    return key_values(
        options,
        options.RESULT_NEUTRAL,
        options.HASHED_INPUTS,
        {"pool", "harm", "out"} if isinstance(options, ScreeningRequest) else (),
        axes=[[axis, encoder] for axis, encoder in (options.axes or {}).items()],  # the first is selected by
        keep=list(options.rules),
        drop=None if options.drop is None else ids_hash(sorted(read_marked_ids(options.drop))),
        match_selection=None if options.match_selection is None else ids_hash(match_selection_ids(options)),
    )


def screening_key(
    harm_refs: Mapping[str, str], corpora: ScreeningCorpora, options: ScreeningOptions
) -> tuple[dict[str, Any], dict[str, Artifact | str]]:
    """Config and inputs that the findings depend on: options, corpora and weights, but not the output format."""
    from undersong.corpora.registry import corpus_hash
    from undersong.encoders.registry import encoder_weights_hash
    from undersong.encoders.spec import parse_encoder
    from undersong.models.refs import model_hash
    from undersong.stages.transcripts import asr_model
    from undersong.store.user_code import code_hash

    axes = options.axes or {}
    config = screening_key_values(options) | {"harm": list(harm_refs)}
    inputs: dict[str, Artifact | str] = {f"side{i}": corpus_input.hash for i, corpus_input in enumerate(corpora.inputs)}
    specs = [encoder for encoder in axes.values() if encoder != PRECOMPUTED]
    weights = [options.model, *(parse_encoder(spec).weights for spec in specs), *(asr_model(spec) for spec in specs)]
    inputs |= {f"weights{i}": model_hash(ref) for i, ref in enumerate(dict.fromkeys(filter(None, weights)))}
    speaker_specs = dict.fromkeys(
        encoder_spec.canonical for encoder_spec in map(parse_encoder, specs) if encoder_spec.kind == "speaker"
    )
    inputs |= {f"speaker{i}": str(encoder_weights_hash(parse_encoder(spec))) for i, spec in enumerate(speaker_specs)}
    code_refs = dict.fromkeys(filter(None, (parse_encoder(spec).code for spec in specs)))
    inputs |= {f"code{i}": code_hash(ref) for i, ref in enumerate(code_refs)}
    if corpora.benign is None:
        inputs |= {"ordinary": corpus_hash(SHIPPED_ORDINARY)}  # which axes of words are measured with
    return config, inputs
