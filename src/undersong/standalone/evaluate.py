"""`evaluate`: generate replies to a manifest's prompts, judge them, and measure comprehension if asked to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.evaluation.rates import set_rates
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.options import key_values
from undersong.results.comprehension import add_comprehension
from undersong.results.schema import PromptSetRate
from undersong.settings.defaults import LOCAL_ENGINE, VLLM, default_max_new_tokens
from undersong.settings.evaluation import ComprehensionSettings
from undersong.settings.presets import PromptSettings
from undersong.stages.black_box_models import RECORDED, display_reference, is_black_box, model_identity_hash
from undersong.stages.comprehension import COMPREHENSION_FILE, ReplyEncoder, evaluate_comprehension
from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.features import compute_features
from undersong.stages.output_folder import (
    atomic_folder,
    check_output_folder,
    check_same_options,
    check_same_provenance,
    locked_output_folder,
    partial_store,
    write_provenance,
)
from undersong.stages.prompt_sets import PromptSetRequest, request_prompts
from undersong.stages.replies import (
    ANSWERS_SUFFIX,
    REPLIES_SUFFIX,
    generate_replies,
    import_adapter,
    judge_replies,
    read_exchanges,
)
from undersong.stages.training import StudyArm
from undersong.standalone.inputs import check_adapter, check_modality, refusal_texts
from undersong.standalone.options import EvaluationOptions, apply_protocol
from undersong.store.store import Artifact
from undersong.types import Prompt, Reply, UndersongError

if TYPE_CHECKING:
    from undersong.evaluation.refusal_margin import MarginSettings
    from undersong.types import Judge

REPLIES_FILE, VERDICTS_FILE = "replies.parquet", "verdicts.parquet"
PARTIAL_RESULTS = (  # kept after a failure
    "features/*/features-*",
    "replies/*/replies.parquet",
    f"replies/*{ANSWERS_SUFFIX}",
    f"replies/*{REPLIES_SUFFIX}",
    f"verdicts/*{ANSWERS_SUFFIX}",
)
PARTIAL_WORK = "audio features, replies and answers of a server"
DEFAULT_EVALUATION = EvaluationOptions()


@dataclass(frozen=True)
class ModelEvaluation:
    """The rate of a model on one prompt set, and the modules that its adapter changes outside the language model."""

    rate: PromptSetRate
    adapted_outside: Mapping[str, int]  # module path -> how many modules


def evaluate_manifest(
    manifest: str | Path,
    model: str,
    out: str | Path,
    adapter: str | Path | None = None,
    options: EvaluationOptions = DEFAULT_EVALUATION,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    say: Callable[[str], None] | None = None,
) -> ModelEvaluation:
    """Generate replies of a model, with or without an adapter, to every item of a manifest, and judge them.

    Runs the stages of a study on a store next to `out`, so that an interrupted evaluation resumes. Writes
    `replies.parquet` (readable by its owner only), `verdicts.parquet` and `provenance.json`. The comprehension check
    adds `repetitions.parquet` and `comprehension.parquet`.

    Args:
        manifest: Reference or path of the prompts.
        model: Reference of the model; a served or recorded model takes no adapter.
        out: Output folder; it is written completely or not at all.
        adapter: PEFT folder, or a decoder that `tune --method full` wrote; None for the base.
        options: Prompt, judge and comprehension settings.
        loading: Device, number format and quantization of the model.
        say: Receives notes and progress lines; None drops them.

    Returns:
        The rate, and the modules that the adapter changes outside the decoder.

    Raises:
        UndersongError: A black-box model is given an adapter, an item cannot be prompted or judged, or `out` holds an
            evaluation with other settings or inputs. This is raised before the model is loaded.
    """
    from undersong.evaluation.judges.registry import judge_hash
    from undersong.models.refs import model_folder
    from undersong.store.hashing import hash_folder

    check_modality(options.modality)
    check_output_folder(Path(out), "evaluate")
    if not is_black_box(model):
        model_folder(model)  # a wrong path is reported before anything is read
    options = apply_protocol(options, model)
    config = evaluation_key_values(options, model) | {"loading": loading.cache_key}
    check_same_options(Path(out), "evaluate", config)
    judge_name = options.judge_name(model)
    if options.judge is None and judge_name != "exact" and say is not None:
        say(f"Judge: {judge_name}, which sees English refusals and not harm; --judge names another.")
    if options.engine == VLLM:
        _check_vllm(model, adapter is not None)
    if adapter is not None and is_black_box(model):
        raise UndersongError(
            f"{display_reference(model)} only answers, and takes no adapter; serve it with the adapter on."
        )
    adapter_path = None if adapter is None else check_adapter(Path(adapter), model, allow_outside_decoder=True)
    key = [str(manifest), model, str(adapter), config]
    with (
        locked_output_folder(Path(out)) as out,
        partial_store(check_output_folder(out, "evaluate"), key, PARTIAL_RESULTS, PARTIAL_WORK) as store,
    ):
        ctx = RunContext(store, loading, say, engine=options.engine)
        ctx.judge(judge_name, refusal_texts(judge_name, options.refusal_texts, model))  # or there is none
        inputs = {"model": model_identity_hash(model), "manifest": ctx.content_hash(str(manifest))}
        if adapter_path is not None:
            inputs["adapter"] = hash_folder(adapter_path)
        if source_hash := judge_hash(judge_name):
            inputs["judge"] = source_hash
        if source_hash := _comprehension_encoder_hash(options.comprehension):
            inputs["encoder"] = source_hash
        check_same_provenance(out, "evaluate", config, inputs)
        artifacts = _run_stages(ctx, str(manifest), model, adapter_path, options)
        notes: dict[str, Any] = {"model": display_reference(model), "device": loading.device}
        notes |= ({} if is_black_box(model) else {"adapted_outside": {}}) | artifacts.replies.provenance()["notes"]
        with atomic_folder(out, "evaluate") as folder:
            artifacts.write(folder)
            write_provenance(folder, "evaluate", config, inputs, notes)
        rate = artifacts.prompt_set_rate(options.comprehension)
    return ModelEvaluation(rate, notes.get("adapted_outside") or {})


@dataclass(frozen=True)
class EvaluationArtifacts:
    """Prompts of an evaluation, and the artifacts that its stages made of them."""

    request: PromptSetRequest
    replies: Artifact
    verdicts: Artifact
    repetitions: Artifact | None
    comprehension: Artifact | None

    def write(self, folder: Path) -> None:
        """Write the files of the output folder; only their owner can read replies and repetitions."""
        from undersong.evaluation.replies import read_replies, write_replies
        from undersong.evaluation.verdicts import read_verdicts, with_finishes, write_verdicts

        replies = read_replies(self.replies.path / REPLIES_FILE)
        write_replies(replies, folder / REPLIES_FILE, request_prompts([self.request]))
        # The stage's verdicts do not repeat how the replies ended, so that kept verdicts of studies stay valid.
        verdicts = read_verdicts(self.verdicts.path / VERDICTS_FILE)
        write_verdicts(with_finishes(verdicts, replies), folder / VERDICTS_FILE)
        if self.repetitions is not None:
            write_replies(read_replies(self.repetitions.path / REPLIES_FILE), folder / "repetitions.parquet")
        if self.comprehension is not None:
            shutil.copyfile(self.comprehension.path / COMPREHENSION_FILE, folder / COMPREHENSION_FILE)

    def prompt_set_rate(self, settings: ComprehensionSettings | None) -> PromptSetRate:
        """Rate of the prompt set, with comprehension if it was checked."""
        from undersong.evaluation.comprehension import read_comprehension
        from undersong.evaluation.verdicts import read_verdicts

        exchanges, verdicts = (
            read_exchanges(self.replies, [self.request]),
            read_verdicts(self.verdicts.path / VERDICTS_FILE),
        )
        speakers = {prompt.sample.id: prompt.sample.speaker for prompt, _ in exchanges}
        rates = set_rates(verdicts, speakers, [reply.finish for _, reply in exchanges], exchanges)
        rows = [] if self.comprehension is None else read_comprehension(self.comprehension.path / COMPREHENSION_FILE)
        (rate,) = add_comprehension(rates, rows, verdicts, settings)
        return rate


def _run_stages(
    ctx: RunContext,
    manifest: str,
    model: str,
    adapter_path: Path | None,
    options: EvaluationOptions,
) -> EvaluationArtifacts:
    """Run the stages that a study runs for one prompt set."""
    from undersong.evaluation.judges.rule_based import FunctionJudge

    judge_name = options.judge_name(model)
    refusals = refusal_texts(judge_name, options.refusal_texts, model)
    max_new_tokens = options.max_new_tokens or default_max_new_tokens(model)
    judge = ctx.judge(judge_name, refusals)
    corpus = load_corpus(ctx, manifest, decode=options.modality == "audio", require_all=True)
    request = PromptSetRequest(
        options.set_name,
        corpus,
        options.harmful,
        options.modality,
        options.system_name,
        options.system_prompt,
        PromptSettings(options.instruction, max_new_tokens, options.instruction_first),
        margin=_margin_settings(options, judge_name, refusals),
    )
    if isinstance(judge, FunctionJudge):
        _check_answers_present(judge, request_prompts([request]))
    ctx.announce(
        f"{display_reference(model)}: {len(request_prompts([request]))} {options.modality} prompts of {manifest}"
    )
    repeat_requests = _repetition_requests(request, options, model)
    adapter = None if adapter_path is None else import_adapter(ctx, adapter_path)
    if options.modality == "audio" and ctx.engine == LOCAL_ENGINE and not is_black_box(model):
        compute_features(ctx, model, corpus, adapter=adapter)
    arm = StudyArm(model, base_seed=0)
    replies = generate_replies(ctx, arm, adapter, 0, [request])
    repetitions = generate_replies(ctx, arm, adapter, 0, repeat_requests) if repeat_requests else None
    verdicts = judge_replies(ctx, replies, [request], judge_name, refusals)
    comprehension = None
    if options.comprehension is not None:
        encoder = ReplyEncoder(options.comprehension, [corpus], ctx.loading.device)
        comprehension = evaluate_comprehension(ctx, encoder, [request], replies, verdicts, repeat_requests, repetitions)
    return EvaluationArtifacts(request, replies, verdicts, repetitions, comprehension)


def _margin_settings(options: EvaluationOptions, judge: str, refusals: Sequence[str]) -> MarginSettings | None:
    """Texts of the refusal margin, which is measured on harmful prompts."""
    from undersong.evaluation.refusal_margin import MarginSettings

    if not options.harmful:
        return None
    return MarginSettings(tuple(refusals) if judge == "exact" else ())


def _check_vllm(model: str, adapted: bool) -> None:
    """Check that vLLM is there and serves the model, before anything is read."""
    from undersong.models.refs import family_of_ref
    from undersong.models.vllm_engine import check_family, vllm_python

    if is_black_box(model):
        raise UndersongError(f"{display_reference(model)} only answers, so --engine does not apply; leave it out.")
    vllm_python()
    check_family(family_of_ref(model).name, model, adapted)


def evaluation_key_values(options: EvaluationOptions, model: str) -> dict[str, Any]:
    """Options that an evaluation depends on, by name, as its provenance has them."""
    comprehension = options.comprehension
    return ({} if comprehension is None else {"comprehension": comprehension.model_dump()}) | key_values(
        options,
        options.RESULT_NEUTRAL,
        options.COMPREHENSION,
        judge=options.judge_name(model),
        prompt_set=options.set_name,
        max_new_tokens=options.max_new_tokens or default_max_new_tokens(model),
    )


def _repetition_requests(request: PromptSetRequest, options: EvaluationOptions, model: str) -> list[PromptSetRequest]:
    """Return requests that ask the model to repeat spoken prompts; empty if comprehension is not checked.

    Raises:
        UndersongError: Comprehension cannot be measured.
    """
    from undersong.evaluation.comprehension import check_comprehension

    settings = options.comprehension
    if settings is None:
        return []
    if not options.harmful:
        raise UndersongError(
            "Comprehension is measured on harmful prompts only; leave out --benign or --comprehension-encoder."
        )
    if model.startswith(RECORDED):
        raise UndersongError(
            f"{display_reference(model)} cannot be asked to repeat a clip; leave --comprehension-encoder out."
        )
    check_comprehension(request_prompts([request]), settings)
    if options.modality != "audio":
        return []
    return [
        replace(
            request, margin=None, prompt_settings=PromptSettings(settings.repeat_instruction, settings.max_new_tokens)
        )
    ]


def _check_answers_present(judge: Judge, prompts: Sequence[Prompt]) -> None:
    """Judge dummy replies, so that a missing answer is found now and not after an hour of generation."""
    judge.judge(prompts, [Reply(*prompt.key, "-", 0, "stop") for prompt in prompts])


def _comprehension_encoder_hash(comprehension: ComprehensionSettings | None) -> str:
    """Return the hash of the comprehension encoder's weights; empty if there is no encoder or it has no weights."""
    from undersong.encoders.registry import encoder_weights_hash
    from undersong.encoders.spec import parse_encoder

    return "" if comprehension is None else encoder_weights_hash(parse_encoder(comprehension.encoder)) or ""
