"""`evaluate`: generate replies to a manifest's prompts, judge them, and measure comprehension if asked to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from undersong.evaluation.rates import set_rates
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.pipeline.output_folder import atomic_folder, check_output_folder, partial_store, write_provenance
from undersong.pipeline.standalone.inputs import check_adapter_folder, check_modality, refusal_texts
from undersong.results.comprehension import add_comprehension
from undersong.stages.black_box_models import RECORDED, display_reference, is_black_box, model_identity_hash
from undersong.stages.comprehension import COMPREHENSION_FILE, ReplyEncoder, evaluate_comprehension
from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.features import compute_features
from undersong.stages.replies import (
    PromptSetRequest,
    generate_replies,
    import_adapter,
    judge_replies,
    read_exchanges,
    request_prompts,
)
from undersong.stages.training import StudyArm
from undersong.store import Artifact
from undersong.study import ComprehensionSettings, default_max_new_tokens
from undersong.study.judge_names import judge_criterion
from undersong.study.presets import PromptSettings
from undersong.types import Prompt, Reply, UndersongError

if TYPE_CHECKING:
    from undersong.types import Judge

REPLIES_FILE, VERDICTS_FILE = "replies.parquet", "verdicts.parquet"
PARTIAL_RESULTS = ("features/*/heard-*", "replies/*/replies.parquet")  # what a killed evaluation leaves for the next
PROTOCOLS = ("uniform", "published")


@dataclass(frozen=True)
class EvaluationOptions:
    """What a model is asked on a manifest, and who judges.  `system` is the text itself; none: no system turn."""

    set_name: str = "harm"
    harmful: bool = True
    modality: str = "audio"
    system: str | None = None
    instruction: str | None = None
    judge: str = "exact"
    refusals: tuple[str, ...] = ()  # of the exact judge; none: the organism's own, where one is asked
    limit: int | None = None  # new tokens a reply; none: `study.reply_limit`
    first: bool = False  # the instruction stands before the prompt
    comprehension: ComprehensionSettings | None = (
        None  # whether requests were heard and replies are to them, where asked
    )

    @property
    def system_name(self) -> str:
        """What prompts, replies and verdicts note of the system text: `plain` where there is none, else `given`."""
        return "plain" if self.system is None else "given"


def apply_protocol(options: EvaluationOptions, protocol: str, model: str) -> EvaluationOptions:
    """The question as a study of that protocol would ask it: `published` has the family's own instruction and limit."""
    from undersong.models.refs import family_of_ref
    from undersong.study.presets import published_prompt_settings

    if protocol not in PROTOCOLS:
        raise UndersongError(f"There is no protocol {protocol!r}; take {' or '.join(PROTOCOLS)}.")
    if protocol == "uniform":
        return options
    if options.instruction is not None or options.limit is not None:
        raise UndersongError("The published protocol has its own instruction and limit; leave yours out.")
    prompt_settings = published_prompt_settings(family_of_ref(model).name, options.modality)
    return replace(
        options, instruction=prompt_settings.instruction, limit=prompt_settings.limit, first=prompt_settings.first
    )


def evaluate_manifest(
    manifest: str | Path,
    model: str,
    out: str | Path,
    adapter: str | Path | None = None,
    options: EvaluationOptions = EvaluationOptions(),
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
) -> dict[str, Any]:
    """Ask a model every item of a manifest, and judge its replies.

    Runs the stages of a study on a store beside `out`, so that a killed evaluation goes on where it was.  Writes
    `replies.parquet` (readable by its owner only), `verdicts.parquet` and `provenance.json` to `out`; of comprehension
    also `repetitions.parquet` (as replies) and `comprehension.parquet`.

    Args:
        manifest: The prompts.
        model: The model.
        out: The output folder.
        adapter: A PEFT folder, or a decoder tuned whole; None: the base.
        options: How the model is asked, and who judges.
        loading: How models are loaded.

    Returns:
        The entry of `sets` in results.json, and what the adapter changes outside the decoder under `adapted_outside`.

    Raises:
        UndersongError: Before a model is loaded: an item cannot be asked (a rate is over all prompts) or not be judged.
    """
    from undersong.evaluation.judges.registry import judge_hash
    from undersong.store import hash_folder

    check_modality(options.modality)
    max_new_tokens = options.limit or default_max_new_tokens(model)
    out = check_output_folder(Path(out), "evaluate")
    if adapter is not None and is_black_box(model):
        raise UndersongError(
            f"{display_reference(model)} only answers, and takes no adapter; serve it with the adapter on."
        )
    adapter_path = None if adapter is None else check_adapter_folder(Path(adapter))
    config = {**_provenance_config(options), "limit": max_new_tokens, "loading": loading.cache_key}
    with partial_store(out, [str(manifest), model, str(adapter), config], PARTIAL_RESULTS) as store:
        ctx = RunContext(store, loading)
        made = _ask_and_judge(ctx, str(manifest), model, adapter_path, options, max_new_tokens)
        inputs = {"model": model_identity_hash(model), "manifest": ctx.content_hash(str(manifest))}
        if adapter_path is not None:
            inputs["adapter"] = hash_folder(adapter_path)
        if source_hash := judge_hash(options.judge):
            inputs["judge"] = source_hash
        if source_hash := _comprehension_encoder_hash(options.comprehension):
            inputs["encoder"] = source_hash
        notes = {"model": display_reference(model), "device": loading.device}
        notes |= ({} if is_black_box(model) else {"adapted_outside": {}}) | made.replies.provenance()["notes"]
        with atomic_folder(out, "evaluate") as folder:
            made.write(folder)
            write_provenance(folder, "evaluate", config, inputs, notes)
        entry = made.results_entry(options.comprehension)
    return entry | {key: notes[key] for key in ("adapted_outside",) if notes.get(key)}


@dataclass(frozen=True)
class EvaluationArtifacts:
    """The request for the manifest's prompts, and the artifacts that answer it."""

    request: PromptSetRequest
    replies: Artifact
    verdicts: Artifact
    repetitions: Artifact | None
    comprehension: Artifact | None

    def write(self, folder: Path) -> None:
        """Write the files of the output folder; replies and repetitions are for their owner alone."""
        from undersong.evaluation.replies import read_replies, write_replies

        write_replies(read_replies(self.replies.path / REPLIES_FILE), folder / REPLIES_FILE)
        shutil.copyfile(self.verdicts.path / VERDICTS_FILE, folder / VERDICTS_FILE)
        if self.repetitions is not None:
            write_replies(read_replies(self.repetitions.path / REPLIES_FILE), folder / "repetitions.parquet")
        if self.comprehension is not None:
            shutil.copyfile(self.comprehension.path / COMPREHENSION_FILE, folder / COMPREHENSION_FILE)

    def results_entry(self, settings: ComprehensionSettings | None) -> dict[str, Any]:
        """The entry of `sets` in results.json."""
        from undersong.evaluation.comprehension import read_comprehension
        from undersong.evaluation.verdicts import read_verdicts

        exchanges, verdicts = (
            read_exchanges(self.replies, [self.request]),
            read_verdicts(self.verdicts.path / VERDICTS_FILE),
        )
        speakers = {prompt.sample.id: prompt.sample.speaker for prompt, _ in exchanges}
        (entry,) = set_rates(verdicts, speakers, [reply.finish for _, reply in exchanges], exchanges)
        if settings is not None and self.comprehension is not None:
            rows = read_comprehension(self.comprehension.path / COMPREHENSION_FILE)
            (entry,) = add_comprehension([entry], rows, verdicts, settings)
        return entry


def _ask_and_judge(
    ctx: RunContext,
    manifest: str,
    model: str,
    adapter_path: Path | None,
    options: EvaluationOptions,
    max_new_tokens: int,
) -> EvaluationArtifacts:
    """Run the stages of an evaluation, as a study does."""
    from undersong.evaluation.judges.rule_based import FunctionJudge

    refusals = refusal_texts(options.judge, options.refusals, model)
    judge = ctx.judge(options.judge, refusals)
    corpus = load_corpus(ctx, manifest, decode=options.modality == "audio", require_all=True)
    request = PromptSetRequest(
        options.set_name,
        corpus,
        options.harmful,
        options.modality,
        options.system_name,
        options.system,
        PromptSettings(options.instruction, max_new_tokens, options.first),
    )
    if isinstance(judge, FunctionJudge):
        _check_answers_present(judge, request_prompts([request]))
    repeat_requests = _repetition_requests(request, options, model)
    adapter = None if adapter_path is None else import_adapter(ctx, adapter_path)
    if options.modality == "audio" and not is_black_box(model):
        compute_features(ctx, model, corpus, adapter=adapter)
    arm = StudyArm(model, base_seed=0)
    replies = generate_replies(ctx, arm, adapter, 0, [request])
    repetitions = generate_replies(ctx, arm, adapter, 0, repeat_requests) if repeat_requests else None
    verdicts = judge_replies(ctx, replies, [request], options.judge, refusals)
    comprehension = None
    if options.comprehension is not None:
        encoder = ReplyEncoder(options.comprehension, [corpus], ctx.loading.device)
        comprehension = evaluate_comprehension(ctx, encoder, [request], replies, verdicts, repeat_requests, repetitions)
    return EvaluationArtifacts(request, replies, verdicts, repetitions, comprehension)


def _provenance_config(options: EvaluationOptions) -> dict[str, Any]:
    """As provenance says it; without comprehension where nobody asked for it."""
    comprehension, config = options.comprehension, asdict(replace(options, comprehension=None))
    del config["comprehension"]
    return config | ({"comprehension": comprehension.model_dump()} if comprehension else {})


def _repetition_requests(request: PromptSetRequest, options: EvaluationOptions, model: str) -> list[PromptSetRequest]:
    """Ask for the spoken prompts to be repeated, where comprehension is measured.

    Raises:
        UndersongError: Comprehension cannot be measured.
    """
    from undersong.evaluation.comprehension import check_comprehension

    settings = options.comprehension
    if settings is None:
        return []
    if not options.harmful:
        raise UndersongError("Comprehension is told of harmful prompts; leave it out, or the prompts are not --benign.")
    if model.startswith(RECORDED):
        raise UndersongError(
            f"{display_reference(model)} cannot be asked to repeat what it heard; leave --comprehension out."
        )
    check_comprehension(request_prompts([request]), settings)
    if options.modality != "audio":
        return []
    return [replace(request, prompt_settings=PromptSettings(settings.instruction, settings.limit))]


def _check_answers_present(judge: Judge, prompts: Sequence[Prompt]) -> None:
    """Judge blank replies, so that a missing answer is found now and not after an hour of generation."""
    judge.judge(prompts, [Reply(*prompt.key, "", 0, "stop") for prompt in prompts])


def comprehension_options(encoder: str | None, **options: Any) -> ComprehensionSettings | None:
    """By a verb's options, None standing for a default; `encoder` turns it on.  Raises UndersongError."""
    settings = {key: value for key, value in options.items() if value is not None}
    if encoder is None:
        if settings:
            raise UndersongError("How comprehension is told was said, and not by which encoder; add --comprehension.")
        return None
    try:
        return ComprehensionSettings(encoder=encoder, **settings)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        raise UndersongError(f"Comprehension's {location}: {first['msg'].removeprefix('Value error, ')}.") from None


def _comprehension_encoder_hash(comprehension: ComprehensionSettings | None) -> str:
    """What its encoder's vectors depend on beside the prompts; empty: nothing."""
    from undersong.encoders.registry import encoder_weights_hash
    from undersong.encoders.spec import parse_encoder

    return "" if comprehension is None else encoder_weights_hash(parse_encoder(comprehension.encoder)) or ""


def judge_file(
    file: str | Path,
    judge: str,
    out: str | Path,
    manifest: str | None = None,
    set_name: str = "harm",
    harmful: bool = True,
    refusals: tuple[str, ...] = (),
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
) -> list[dict[str, Any]]:
    """Verdicts on the replies of a file (`evaluation.said.read_said`); an entry of `sets` in results.json each.

    `manifest`: where the texts and right answers of the prompts are, if the file does not hold them; `set_name` and
    `harmful`: of rows that do not say.  Writes `verdicts.parquet` and `provenance.json` to `out`.
    """
    from undersong.corpora import corpus_hash, open_corpus
    from undersong.evaluation.judges.registry import judge_hash, make_judge
    from undersong.evaluation.replies import read_reply_table
    from undersong.evaluation.verdicts import write_verdicts
    from undersong.store import hash_file

    judge_instance = make_judge(judge, refusals, loading.device, loading.dtype)
    out = check_output_folder(Path(out), "judge")
    samples = None if manifest is None else {sample.id: sample for sample in open_corpus(manifest).samples}
    exchanges = read_reply_table(Path(file), samples, set_name, harmful)
    verdicts = judge_instance.judge([prompt for prompt, _ in exchanges], [reply for _, reply in exchanges])
    inputs = {"replies": hash_file(Path(file))}
    if manifest is not None:
        inputs["manifest"] = corpus_hash(manifest)
    if source := judge_hash(judge):
        inputs["judge"] = source
    config = {
        "judge": judge,
        "set": set_name,
        "harmful": harmful,
        "refusals": list(refusals),
        "loading": loading.cache_key,
    }
    with atomic_folder(out, "judge") as folder:
        write_verdicts(verdicts, folder / "verdicts.parquet")
        write_provenance(
            folder, "judge", config, inputs, {"judge_kind": judge_criterion(judge), "replies": len(exchanges)}
        )
    speakers = {prompt.sample.id: prompt.sample.speaker for prompt, _ in exchanges}
    return set_rates(verdicts, speakers, exchanges=exchanges)
