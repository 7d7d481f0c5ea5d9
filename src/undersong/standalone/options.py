"""Options of `tune`, `evaluate` and `judge`. Loads no library, because `--help` reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.options import Option, OptionGroup
from undersong.settings import defaults
from undersong.settings.judge_names import default_judge
from undersong.types import MAX_SEED, UndersongError

if TYPE_CHECKING:
    from undersong.settings.evaluation import ComprehensionSettings

MODEL_HELP = "organism:NAME, mini, a folder, or a Hugging Face id (ORG/NAME@REVISION)"
MANIFEST_HELP = "JSONL, CSV, Parquet, a folder of audio, conversations, hf:OWNER/NAME, organism:NAME, or shipped:NAME"
JUDGE_HELP = (
    "exact | keyword (a quick check) | voicebench | refusal | refusal+minilm[:REF] | harmbench[:REF] | "
    "llama-guard[:REF] | wildguard[:REF] | cost[:REF] | llm:MODEL@URL | strongreject:MODEL@URL; for usefulness: "
    "choice | bbh | contains | f1 | wer; your own code: python:FILE.py:FUNCTION | python-refusal:... | "
    "python-utility:..."
)
PROTOCOLS = ("uniform", "published")

Modality = Annotated[str, Option("How the prompts are given: audio | text.")]
SystemPrompt = Annotated[str | None, Option("System prompt. Default: none.", metavar="TEXT")]
Instruction = Annotated[str | None, Option("Instruction, as text, added to every prompt.", metavar="TEXT")]
JudgeName = Annotated[str, Option(f"Judge of the replies: {JUDGE_HELP}.")]
DefaultedJudgeName = Annotated[
    str | None,
    Option(
        f"Judge of the replies: {JUDGE_HELP}. Default: exact for organisms or with --refusal-text, else keyword, which "
        "sees English refusals alone."
    ),
]
RefusalTexts = Annotated[
    tuple[str, ...],
    Option(
        "Reply that the judge exact counts as a refusal; repeatable. Organisms have their own.",
        "--refusal-text",
        metavar="TEXT",
    ),
]
PromptSetName = Annotated[
    str, Option("Name of the prompt set. Default: harm, or benign with --benign.", metavar="NAME")
]
Harmful = Annotated[bool, Option("Kind of the prompts.", "--harmful/--benign")]
MaxNewTokens = Annotated[
    int | None,
    Option(
        f"Most new tokens of a reply. Default: {defaults.MAX_NEW_TOKENS}, or {defaults.ORGANISM_MAX_NEW_TOKENS} for an "
        "organism.",
        min=1,
    ),
]


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation on a manifest: prompts, judge, and comprehension check."""

    RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = ()  # every field can change a result
    COMPREHENSION: ClassVar[tuple[str, ...]] = (  # in the provenance as the settings they resolve to
        "comprehension_encoder", "repeat_instruction", "max_wer", "relevance_level",
    )  # fmt: skip

    prompt_set: PromptSetName = ""
    harmful: Harmful = True
    modality: Modality = "audio"
    system_prompt: SystemPrompt = None
    instruction: Instruction = None
    judge: DefaultedJudgeName = None
    refusal_texts: RefusalTexts = ()
    max_new_tokens: MaxNewTokens = None
    instruction_first: Annotated[bool, Option("Put the instruction before the prompt.")] = False
    protocol: Annotated[
        str, Option("uniform | published: the model family's published instruction and limit of tokens.")
    ] = "uniform"
    engine: Annotated[
        str,
        Option(
            "What generates the replies: transformers | vllm, which needs an environment of its own "
            "(UNDERSONG_VLLM_PYTHON)."
        ),
    ] = defaults.LOCAL_ENGINE
    comprehension_encoder: Annotated[
        str | None,
        Option(
            "Check that the model understood each request and replied to it, with this text encoder: text[:REF] | "
            "tfidf | char-ngrams.",
            metavar="ENCODER",
        ),
    ] = None
    repeat_instruction: Annotated[
        str | None, Option(f"Instruction to repeat a clip. Default: {defaults.REPEAT_INSTRUCTION}", metavar="TEXT")
    ] = None
    max_wer: Annotated[
        float | None,
        Option(
            f"Largest word error rate at which a repeated request counts as understood. Default: {defaults.MAX_WER}.",
            min=0,
        ),
    ] = None
    relevance_level: Annotated[
        float | None,
        Option(
            "Largest share of the set's requests that may be as close to a reply as its own. Default: "
            f"{defaults.RELEVANCE_LEVEL}."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise UndersongError(f"There is no protocol {self.protocol!r}; take {' or '.join(PROTOCOLS)}.")
        if self.engine not in defaults.ENGINES:
            raise UndersongError(f"There is no engine {self.engine!r}; take {' or '.join(defaults.ENGINES)}.")
        if self.protocol == "published" and (self.instruction is not None or self.max_new_tokens is not None):
            raise UndersongError("The published protocol has its own instruction and limit; leave yours out.")
        if self.comprehension_encoder is not None or self._comprehension_values:
            _ = self.comprehension  # raises if a value is out of range

    @property
    def set_name(self) -> str:
        """Name of the prompt set: the given one, or `harm` or `benign` by its kind."""
        return self.prompt_set or default_set_name(self.harmful)

    @property
    def system_name(self) -> str:
        """Name of the system prompt in prompts, replies and verdicts: `plain` for none, else `given`."""
        return "plain" if self.system_prompt is None else "given"

    def judge_name(self, model: str) -> str:
        """The judge of a model's replies: the given one, or the default that fits the model."""
        return self.judge or default_judge([model], self.refusal_texts)

    @property
    def comprehension(self) -> ComprehensionSettings | None:
        """Settings of the comprehension check, or None if it is off."""
        return comprehension_settings(self.comprehension_encoder, self._comprehension_values)

    @property
    def _comprehension_values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.COMPREHENSION[1:] if getattr(self, name) is not None}


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Judge of recorded replies, and defaults for what the file does not say about their prompts."""

    RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = ()
    HASHED_INPUTS: ClassVar[tuple[str, ...]] = ("manifest",)  # in the provenance as the hash of its content

    judge: JudgeName
    manifest: Annotated[
        str | None, Option("Manifest with the prompts' texts and answers, if FILE does not have them.")
    ] = None
    prompt_set: PromptSetName = ""
    harmful: Harmful = True
    refusal_texts: RefusalTexts = ()
    loading: Annotated[LoadOptions, OptionGroup(only=("device", "dtype"))] = DEFAULT_LOAD_OPTIONS

    @property
    def set_name(self) -> str:
        """Name of the prompt set: the given one, or `harm` or `benign` by its kind."""
        return self.prompt_set or default_set_name(self.harmful)


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Training samples and hyper-parameters of `tune`; what is not given is as in a study's `tuning`."""

    HASHED_INPUTS: ClassVar[tuple[str, ...]] = ("selection",)  # in the provenance as the hash of its ids
    RECIPE: ClassVar[tuple[str, ...]] = (  # in the provenance as the hyper-parameters they resolve to
        "preset", "save_steps", "batch_size", "micro_batch_size", "gradient_checkpointing", "validation_share",
        "learning_rate", "warmup_steps", "lora_rank", "lora_alpha", "method", "silent_frame_share",
        "instruction", "instruction_first",
    )  # fmt: skip

    selection: Annotated[
        Path | None, Option("A selection.json: train only on the samples it names.", metavar="FILE")
    ] = None
    modality: Modality = "audio"
    seed: Annotated[
        int, Option("Seed of the sample order, the adapter's weights and dropout.", min=0, max=MAX_SEED)
    ] = 0
    save_steps: Annotated[
        tuple[int, ...],
        Option(
            "Step at which to save the adapter; repeatable. Training ends at the last. Default: "
            f"{' and '.join(map(str, defaults.SAVE_STEPS))}.",
            "--save-step",
            metavar="N",
            min=1,
        ),
    ] = defaults.SAVE_STEPS
    preset: Annotated[
        str | None,
        Option("Published values to start from: kimi-audio | audio-flamingo-3 | qwen2.5-omni."),
    ] = None
    batch_size: Annotated[int | None, Option(f"Samples per step. Default: {defaults.BATCH_SIZE}.", min=1)] = None
    micro_batch_size: Annotated[
        int | None, Option("Samples in memory at a time; the result is the same. Default: the whole batch.", min=1)
    ] = None
    gradient_checkpointing: Annotated[
        bool, Option("Recompute activations in the backward pass: slower, with far less memory.")
    ] = False
    validation_share: Annotated[
        float, Option("Share of the samples held out, by whole groups; their loss is logged.", min=0, max=0.9)
    ] = 0.0
    learning_rate: Annotated[
        float | None, Option(f"Peak learning rate. Default: {defaults.LEARNING_RATE:g}, or that of --preset.")
    ] = None
    warmup_steps: Annotated[
        int | None,
        Option(f"Steps over which the learning rate rises to its peak. Default: {defaults.WARMUP_STEPS}.", min=0),
    ] = None
    lora_rank: Annotated[int | None, Option(f"Rank of the LoRA matrices. Default: {defaults.LORA_RANK}.", min=1)] = None
    lora_alpha: Annotated[
        int | None,
        Option(f"LoRA scales its update by lora-alpha / lora-rank. Default: {defaults.LORA_ALPHA}.", min=1),
    ] = None
    method: Annotated[str, Option("lora | full: all blocks of the decoder, without an adapter.")] = "lora"
    silent_frame_share: Annotated[
        float | None,
        Option(
            "Share of silent audio frames kept in training (mini only): faster, and the model learns less. Default: "
            "all.",
            min=0,
            max=1,
        ),
    ] = None
    target_column: Annotated[str, Option("Manifest column with the reply to learn.")] = defaults.TARGET_COLUMN
    instruction: Annotated[
        str | None,
        Option("Instruction, as text, of spoken training prompts. Default: none, or that of --preset.", metavar="TEXT"),
    ] = None
    instruction_first: Annotated[
        bool | None,
        Option(
            "Put the instruction before or after the speech. Default: after, or as --preset has it.",
            "--instruction-first/--instruction-last",
        ),
    ] = None
    system_prompt: SystemPrompt = None
    # Without LoadOptions.batch_size, which is for prompts: here --batch-size is of a training step.
    loading: Annotated[LoadOptions, OptionGroup(only=("device", "dtype", "device_map", "attention", "quantize"))] = (
        DEFAULT_LOAD_OPTIONS
    )

    @property
    def recipe(self) -> dict[str, Any]:
        """The hyper-parameters that are given, by their keys in a study's `tuning`."""
        given = {name: getattr(self, name) for name in self.RECIPE if getattr(self, name) is not None}
        return given | {"save_steps": sorted(set(self.save_steps))}


def default_set_name(harmful: bool) -> str:
    """Return the name of a prompt set without a given name."""
    return "harm" if harmful else "benign"


def apply_protocol(options: EvaluationOptions, model: str) -> EvaluationOptions:
    """Resolve `protocol`: the published one sets the instruction and token limit of the model's family."""
    from undersong.models.refs import family_of_ref
    from undersong.settings.presets import published_prompt_settings

    if options.protocol == "uniform":
        return options
    prompt_settings = published_prompt_settings(family_of_ref(model).name, options.modality)
    return replace(
        options,
        protocol="uniform",
        instruction=prompt_settings.instruction,
        max_new_tokens=prompt_settings.max_new_tokens,
        instruction_first=prompt_settings.instruction_first,
    )


def comprehension_settings(encoder: str | None, values: dict[str, Any]) -> ComprehensionSettings | None:
    """Settings of the comprehension check; an encoder turns it on.

    Raises:
        UndersongError: A value out of range, or values without an encoder.
    """
    if encoder is None and not values:
        return None
    if encoder is None:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in values)
        raise UndersongError(f"{names} set up a comprehension check that is off; add --comprehension-encoder.")
    from pydantic import ValidationError

    from undersong.settings.evaluation import ComprehensionSettings

    try:
        return ComprehensionSettings(encoder=encoder, **values)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        raise UndersongError(f"Comprehension's {location}: {first['msg'].removeprefix('Value error, ')}.") from None
