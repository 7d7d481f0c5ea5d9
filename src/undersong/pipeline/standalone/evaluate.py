"""`evaluate`: generate replies to a manifest's prompts, judge them, and measure comprehension if asked to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.evaluation.rates import VerdictRate, set_rates
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.options import key_values
from undersong.pipeline.output_folder import atomic_folder, check_output_folder, write_provenance
from undersong.pipeline.standalone.inputs import cache_all_audio, check_adapter_folder, refusal_texts, usable_samples
from undersong.pipeline.standalone.options import EvaluationOptions, JudgeOptions, apply_protocol
from undersong.results.comprehension import add_comprehension
from undersong.results.schema import PromptSetRate
from undersong.stages.black_box_models import (
    RECORDED,
    BlackBoxModel,
    display_reference,
    is_black_box,
    load_black_box_model,
    model_identity_hash,
)
from undersong.study import ComprehensionSettings, default_max_new_tokens
from undersong.study.judge_names import judge_criterion
from undersong.types import Prompt, Reply, Sample, UndersongError, Verdict

if TYPE_CHECKING:
    from undersong.evaluation.comprehension import PromptComprehension
    from undersong.types import Encoder, Judge

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
) -> ModelEvaluation:
    """Generate replies of a model, with or without an adapter, to every item of a manifest, and judge them.

    Writes `replies.parquet` (readable by its owner only), `verdicts.parquet` and `provenance.json`. The comprehension
    check adds `repetitions.parquet` and `comprehension.parquet`.

    Args:
        manifest: Reference or path of the prompts.
        model: Reference of the model; a served or recorded model takes no adapter.
        out: Output folder; it is written completely or not at all.
        adapter: PEFT folder, or a decoder that `tune --method full` wrote.
        options: Prompt, judge and comprehension settings.
        loading: Device, number format and quantization of the model.

    Raises:
        UndersongError: A black-box model is given an adapter, or an item cannot be prompted or judged.
    """
    from undersong.corpora import corpus_hash
    from undersong.evaluation.judges.registry import judge_hash, make_judge
    from undersong.evaluation.judges.rule_based import FunctionJudge
    from undersong.evaluation.replies import write_replies
    from undersong.evaluation.verdicts import write_verdicts
    from undersong.store import hash_folder

    options = apply_protocol(options, model)
    max_new_tokens = options.max_new_tokens or default_max_new_tokens(model)
    refusals = refusal_texts(options.judge, options.refusal_texts, model)
    judge = make_judge(options.judge, refusals, loading.device, loading.dtype)
    out = check_output_folder(Path(out), "evaluate")
    if adapter is not None and is_black_box(model):
        raise UndersongError(
            f"{display_reference(model)} only answers, and takes no adapter; serve it with the adapter on."
        )
    adapter_path = None if adapter is None else check_adapter_folder(Path(adapter))
    samples = usable_samples(str(manifest), options.modality)
    prompts = _make_prompts(samples, options)
    if isinstance(judge, FunctionJudge):
        _check_answers_present(judge, prompts)
    repetition_prompts = comprehension_prompts(options, prompts, model)
    with _reply_generator(model, loading, samples, adapter_path) as (generator, model_facts):
        replies = generator.generate(prompts, max_new_tokens)
        repetitions = (
            generator.generate(repetition_prompts, options.comprehension.max_new_tokens)
            if options.comprehension and repetition_prompts
            else []
        )
    verdicts = judge.judge(prompts, replies)
    comprehension_rows = measure_comprehension(
        options.comprehension, prompts, replies, verdicts, list(zip(repetition_prompts, repetitions)), loading.device
    )
    with atomic_folder(out, "evaluate") as folder:
        write_replies(replies, folder / "replies.parquet")
        write_verdicts(verdicts, folder / "verdicts.parquet")
        write_comprehension_files(folder, comprehension_rows, repetitions)
        inputs = {"model": model_identity_hash(model), "manifest": corpus_hash(str(manifest))}
        if adapter_path is not None:
            inputs["adapter"] = hash_folder(adapter_path)
        if source_hash := judge_hash(options.judge):
            inputs["judge"] = source_hash
        if source_hash := comprehension_encoder_hash(options.comprehension):
            inputs["encoder"] = source_hash
        notes = {"model": display_reference(model), "device": loading.device, **model_facts}
        write_provenance(
            folder,
            "evaluate",
            evaluation_key_values(options, model) | {"loading": loading.cache_key},
            inputs,
            notes,
        )
    voices, finishes = {sample.id: sample.speaker for sample in samples}, [reply.finish for reply in replies]
    rates = set_rates(verdicts, voices, finishes, list(zip(prompts, replies)))
    (rate,) = add_comprehension(rates, comprehension_rows, verdicts, options.comprehension)
    return ModelEvaluation(rate, model_facts.get("adapted_outside") or {})


def evaluation_key_values(options: EvaluationOptions, model: str) -> dict[str, Any]:
    """Options that an evaluation depends on, by name, as its provenance has them."""
    comprehension = options.comprehension
    return ({} if comprehension is None else {"comprehension": comprehension.model_dump()}) | key_values(
        options,
        options.RESULT_NEUTRAL,
        options.COMPREHENSION,
        prompt_set=options.set_name,
        max_new_tokens=options.max_new_tokens or default_max_new_tokens(model),
    )


@contextmanager
def _reply_generator(
    ref: str, loading: LoadOptions, samples: Sequence[Sample], adapter_path: Path | None
) -> Iterator[tuple[BlackBoxModel, dict[str, Any]]]:
    """Yield the generator of replies and facts about it: a loaded model with encoded audio, or a black-box model."""
    if is_black_box(ref):
        yield load_black_box_model(ref), {}
        return
    from undersong.models.load import load_model
    from undersong.models.lora import modules_changed_outside_decoder, use_adapter

    with use_adapter(load_model(ref, loading), adapter_path, allow_outside_decoder=True) as audio_lm:
        cache_all_audio(audio_lm, samples)  # with the adapter on, because it may change the encoder
        yield audio_lm, audio_lm.facts | {"adapted_outside": modules_changed_outside_decoder(audio_lm)}


def _make_prompts(samples: Sequence[Sample], options: EvaluationOptions) -> list[Prompt]:
    from undersong.evaluation.prompts import make_prompts

    return make_prompts(
        samples,
        set_name=options.set_name,
        harmful=options.harmful,
        modality=options.modality,
        system=options.system_name,
        system_text=options.system_prompt,
        instruction=options.instruction,
        instruction_first=options.instruction_first,
    )


def _check_answers_present(judge: Judge, prompts: Sequence[Prompt]) -> None:
    """Judge blank replies, so that a missing answer is found now and not after an hour of generation."""
    from undersong.types import Reply

    judge.judge(prompts, [Reply(*prompt.key, "", 0, "stop") for prompt in prompts])


def comprehension_prompts(options: EvaluationOptions, prompts: Sequence[Prompt], model: str) -> list[Prompt]:
    """Return the prompts that ask the model to repeat a request; empty if comprehension is not checked.

    Raises:
        UndersongError: Comprehension cannot be measured on these prompts or with this model.
    """
    from undersong.evaluation.comprehension import check_comprehension, make_repetition_prompts

    comprehension = options.comprehension
    if comprehension is None:
        return []
    if not options.harmful:
        raise UndersongError("Comprehension is told of harmful prompts; leave it out, or the prompts are not --benign.")
    if model.startswith(RECORDED):
        raise UndersongError(
            f"{display_reference(model)} cannot be asked to repeat a clip; leave --comprehension-encoder out."
        )
    check_comprehension(prompts, comprehension)
    return make_repetition_prompts(prompts, comprehension)


def comprehension_encoder_hash(comprehension: ComprehensionSettings | None) -> str:
    """Return the hash of the comprehension encoder's weights; empty if there is no encoder or it has no weights."""
    from undersong.encoders.registry import encoder_weights_hash
    from undersong.encoders.spec import parse_encoder

    return "" if comprehension is None else encoder_weights_hash(parse_encoder(comprehension.encoder)) or ""


def measure_comprehension(
    comprehension: ComprehensionSettings | None,
    prompts: Sequence[Prompt],
    replies: Sequence[Reply],
    verdicts: Sequence[Verdict],
    repetitions: Sequence[tuple[Prompt, Reply]],
    device: str,
) -> list[PromptComprehension]:
    """Measure comprehension of each prompt; empty if comprehension is not checked.

    Args:
        comprehension: Settings of the check; None to skip it.
        prompts: Prompts of the evaluation.
        replies: Replies, one per prompt.
        verdicts: Verdicts, one per reply.
        repetitions: Prompts that ask to repeat a request, each with its reply.
        device: Torch device of the encoder.
    """
    if comprehension is None:
        return []
    from undersong.encoders import make_encoder
    from undersong.evaluation.comprehension import measure_prompt_comprehension

    def encoder() -> Encoder:
        return make_encoder(comprehension.encoder, fit=[prompt.sample for prompt in prompts], device=device)

    return measure_prompt_comprehension(
        list(zip(prompts, replies, verdicts, strict=True)), repetitions, comprehension, encoder
    )


def write_comprehension_files(folder: Path, rows: Sequence[PromptComprehension], repetitions: Sequence[Reply]) -> None:
    """Write `comprehension.parquet` and `repetitions.parquet` (readable by its owner only), if there are rows."""
    from undersong.evaluation.comprehension import write_comprehension
    from undersong.evaluation.replies import write_replies

    if rows:
        write_comprehension(rows, folder / "comprehension.parquet")
    if repetitions:
        write_replies(repetitions, folder / "repetitions.parquet")


def judge_file(file: str | Path, out: str | Path, options: JudgeOptions) -> list[VerdictRate]:
    """Judge the replies of a file that any program may have collected.

    Writes `verdicts.parquet` and `provenance.json`.

    Args:
        file: Replies, as `evaluation.replies.read_reply_table` reads them.
        out: Output folder.
        options: Judge, and defaults for what the rows do not say.

    Returns:
        One rate for each prompt set, modality and system prompt.
    """
    from undersong.corpora import corpus_hash, open_corpus
    from undersong.evaluation.judges.registry import judge_hash, make_judge
    from undersong.evaluation.replies import read_reply_table
    from undersong.evaluation.verdicts import write_verdicts
    from undersong.store import hash_file

    judge_instance = make_judge(options.judge, options.refusal_texts, options.loading.device, options.loading.dtype)
    manifest = options.manifest
    out = check_output_folder(Path(out), "judge")
    samples = None if manifest is None else {sample.id: sample for sample in open_corpus(manifest).samples}
    exchanges = read_reply_table(Path(file), samples, options.set_name, options.harmful)
    verdicts = judge_instance.judge([prompt for prompt, _ in exchanges], [reply for _, reply in exchanges])
    inputs = {"replies": hash_file(Path(file))}
    if manifest is not None:
        inputs["manifest"] = corpus_hash(manifest)
    if source := judge_hash(options.judge):
        inputs["judge"] = source
    config = judge_key_values(options)
    with atomic_folder(out, "judge") as folder:
        write_verdicts(verdicts, folder / "verdicts.parquet")
        write_provenance(
            folder,
            "judge",
            config,
            inputs,
            {"judge_criterion": judge_criterion(options.judge), "replies": len(exchanges)},
        )
    speakers = {prompt.sample.id: prompt.sample.speaker for prompt, _ in exchanges}
    return set_rates(verdicts, speakers, exchanges=exchanges)


def judge_key_values(options: JudgeOptions) -> dict[str, Any]:
    """Options that verdicts depend on, by name, as their provenance has them."""
    return key_values(options, options.RESULT_NEUTRAL, options.HASHED_INPUTS, prompt_set=options.set_name)
