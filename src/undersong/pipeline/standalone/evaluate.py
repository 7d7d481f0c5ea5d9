"""`evaluate`: a manifest's items asked and judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.evaluation.rates import set_rates
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, Loading
from undersong.pipeline.alone.comprehended import (
    comprehension_encoder_hash,
    comprehension_prompts,
    measure_comprehension,
    write_comprehension_files,
)
from undersong.pipeline.output_folder import atomic_folder, check_output_folder, write_provenance
from undersong.pipeline.standalone.inputs import cache_all_audio, check_adapter_folder, refusal_texts, usable_samples
from undersong.results.comprehension import add_comprehension
from undersong.stages.black_box_models import (
    BlackBoxModel,
    display_reference,
    is_black_box,
    load_black_box_model,
    model_identity_hash,
)
from undersong.study import Comprehension, default_max_new_tokens
from undersong.types import Prompt, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.types import Judge

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
    comprehension: Comprehension | None = None  # whether requests were heard and replies are to them, where asked

    @property
    def system_name(self) -> str:
        """What prompts, replies and verdicts note of the system text: `plain` where there is none, else `given`."""
        return "plain" if self.system is None else "given"


def apply_protocol(options: EvaluationOptions, protocol: str, model: str) -> EvaluationOptions:
    """The question as a study of that protocol would ask it: `published` has the family's own instruction and limit."""
    from undersong.models.identify import family_of_ref
    from undersong.study.protocols import published_prompt_settings

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
    loading: Loading = DEFAULT_LOAD_OPTIONS,
) -> dict[str, Any]:
    """Ask a model, under an adapter or not, every item of a manifest; its entry of `sets` in results.json, and what the
    adapter changes outside the language model under `adapted_outside`.

    Writes `replies.parquet` (readable by its owner only), `verdicts.parquet` and `provenance.json` to `out`; of
    comprehension also `repetitions.parquet` (as replies) and `comprehension.parquet`.  Errors, before a model is
    loaded: an item that cannot be asked (a rate is over all prompts) or not be judged.
    """
    from undersong.corpora import corpus_hash
    from undersong.evaluation.judges.registry import judge_hash, make_judge
    from undersong.evaluation.judges.rule_based import FunctionJudge
    from undersong.evaluation.replies import write_replies
    from undersong.evaluation.verdicts import write_verdicts
    from undersong.store import hash_folder

    max_new_tokens = options.limit or default_max_new_tokens(model)
    refusals = refusal_texts(options.judge, options.refusals, model)
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
            generator.generate(repetition_prompts, options.comprehension.limit)
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
            {**_provenance_config(options), "limit": max_new_tokens, "loading": loading.cache_key},
            inputs,
            notes,
        )
    voices, finishes = {sample.id: sample.speaker for sample in samples}, [reply.finish for reply in replies]
    (entry,) = set_rates(verdicts, voices, finishes, list(zip(prompts, replies)))
    if options.comprehension is not None:
        (entry,) = add_comprehension([entry], comprehension_rows, verdicts, options.comprehension)
    return entry | {key: model_facts[key] for key in ("adapted_outside",) if model_facts.get(key)}


def _provenance_config(options: EvaluationOptions) -> dict[str, Any]:
    """As provenance says it; without comprehension where nobody asked for it."""
    comprehension, config = options.comprehension, asdict(replace(options, comprehension=None))
    del config["comprehension"]
    return config | ({"comprehension": comprehension.model_dump()} if comprehension else {})


@contextmanager
def _reply_generator(
    ref: str, loading: Loading, samples: Sequence[Sample], adapter_path: Path | None
) -> Iterator[tuple[BlackBoxModel, dict[str, Any]]]:
    """Who answers, and its facts: a model here that has heard the samples, or one that only answers."""
    if is_black_box(ref):
        yield load_black_box_model(ref), {}
        return
    from undersong.models.load import load_model
    from undersong.models.lora import modules_changed_outside_decoder, use_adapter

    with use_adapter(load_model(ref, loading), adapter_path, allow_outside_decoder=True) as audio_lm:
        cache_all_audio(audio_lm, samples)  # under the adapter, which may change what is heard
        yield audio_lm, audio_lm.facts | {"adapted_outside": modules_changed_outside_decoder(audio_lm)}


def _make_prompts(samples: Sequence[Sample], options: EvaluationOptions) -> list[Prompt]:
    from undersong.evaluation.prompts import make_prompts

    return make_prompts(
        samples,
        set_name=options.set_name,
        harmful=options.harmful,
        modality=options.modality,
        system=options.system_name,
        system_text=options.system,
        instruction=options.instruction,
        instruction_first=options.first,
    )


def _check_answers_present(judge: Judge, prompts: Sequence[Prompt]) -> None:
    """Judge blank replies, so that a missing answer is found now and not after an hour of generation."""
    from undersong.types import Reply

    judge.judge(prompts, [Reply(p.sample.id, p.set, p.modality, p.system, "", 0, "stop") for p in prompts])
