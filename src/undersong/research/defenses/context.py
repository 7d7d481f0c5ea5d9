"""What defenses of one base share: prompts, contrast splits, loaded models, and the base's refusal direction and
replies. Directions are fitted on one split; layers and strengths are chosen on the other, and no result is reported
on either."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from undersong.evaluation.contrast_sets import ContrastSets, ReplyEvaluator, choosing_behaviors
from undersong.settings.presets import PromptSettings, manner_key
from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import MODEL_PACKAGES, compute_features
from undersong.stages.prompt_sets import PromptSetRequest, request_prompts
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs
from undersong.study.prompt_requests import prompt_settings_for
from undersong.study.results.records import AuditRecord, ModelRecord
from undersong.study.schema import Study
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.research.mechanism.directions import RefusalDirection

SPLIT_SEED = 0
LOSS_BATCH_SIZE = 32


@dataclass
class DefenseContext:
    """Context that the defenses of one base share."""

    run_context: RunContext
    record: AuditRecord
    model_record: ModelRecord

    @property
    def study(self) -> Study:
        """The study that is audited."""
        return self.record.study

    @property
    def weights_hash(self) -> str:
        """Hash of the base's weights."""
        from undersong.models.refs import model_hash

        return model_hash(self.model_record.ref)

    def prompt_settings(self, modality: str) -> PromptSettings:
        """Prompt settings of the base."""
        return prompt_settings_for(self.study, self.model_record.ref, modality)

    def audio_features(self, corpus: Corpus) -> Artifact:
        """Audio features of a corpus by the base; clips of the pool that it cannot encode are left out."""
        return compute_features(self.run_context, self.model_record.ref, corpus)

    def prompts(self, corpus: Corpus, harmful: bool, modalities: Sequence[str]) -> list[Prompt]:
        """Prompts of every sample in each modality, with the study's settings and its first system prompt."""
        system_text, system = self.study.system_text(self.study.undefended_system), self.study.undefended_system
        return request_prompts(
            [
                PromptSetRequest(
                    "choosing", corpus, harmful, modality, system, system_text, self.prompt_settings(modality)
                )
                for modality in modalities
            ]
        )

    def reply_evaluator(self) -> ReplyEvaluator:
        """The study's judge and token limit."""
        evaluation = self.study.evaluation
        return ReplyEvaluator(
            self.run_context.judge(evaluation.judge, self.study.refusal_texts),
            self.prompt_settings("audio").max_new_tokens,
        )

    def contrast_splits(self) -> dict[str, ContrastSets]:
        """Contrast sets split by whole behaviors into `fit` and `choose`, in all modalities that are evaluated."""
        prompts_by_split: dict[str, list[list[Prompt]]] = {"fit": [], "choose": []}
        for kind, corpus in self.record.contrast_corpora.items():
            choosing = choosing_behaviors(kind, corpus.samples, SPLIT_SEED)
            all_prompts = self.prompts(corpus, kind == "harmful", self.study.evaluation.modalities)
            for name, is_chosen in (("fit", False), ("choose", True)):
                prompts_by_split[name].append(
                    [prompt for prompt in all_prompts if (prompt.sample.cluster in choosing) == is_chosen]
                )
        return {name: ContrastSets(*prompts_by_kind) for name, prompts_by_kind in prompts_by_split.items()}

    @property
    def contrast_config(self) -> dict[str, Any]:
        """Cache-key config of an artifact that is fitted or chosen on the splits."""
        evaluation = self.study.evaluation
        return {
            "modalities": list(evaluation.modalities),
            "system": self.study.system_text(self.study.undefended_system),
            "manners": [manner_key(self.prompt_settings(modality)) for modality in evaluation.modalities],
            "judge": evaluation.judge,
            "refusals": list(self.study.refusal_texts),
            "loading": self.run_context.loading.cache_key,
        }

    @property
    def contrast_inputs(self) -> Inputs:
        """Cache-key inputs of such an artifact: the base's weights and both contrast sets."""
        return {
            "model": self.weights_hash,
            **{name: corpus.artifact for name, corpus in self.record.contrast_corpora.items()},
        }

    def adapted_model(self, adapter: Artifact | None, step: int) -> AbstractContextManager[AudioModel]:
        """The base with an adapter, with the audio features of the contrast sets."""
        corpora = list(self.record.contrast_corpora.values())
        return self.run_context.model_with_audio(self.model_record.ref, corpora, adapter, step)


def fit_refusal_artifact(context: DefenseContext) -> Artifact:
    """Artifact with the base's direction on `fit` and its replies to `choose`, for defenses that use the refusal
    direction.

    Raises:
        UndersongError: The base refuses no harmful prompt.
    """

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import write_replies
        from undersong.evaluation.verdicts import write_verdicts
        from undersong.research.mechanism.directions import fit_direction, save_direction

        splits = context.contrast_splits()
        with context.adapted_model(None, 0) as model:
            direction = fit_direction(
                model.hidden_states(splits["fit"].harmful), model.hidden_states(splits["fit"].benign)
            )
            replies = context.reply_evaluator().evaluate(model, splits["choose"].all_prompts)
        if not any(replies.refused[: len(splits["choose"].harmful)]):
            raise UndersongError(
                f"{context.model_record.ref} refuses none of the {len(splits['choose'].harmful)} harmful prompts that "
                "defenses are chosen on, so there is no refusal to restore; leave out steering, removal and projection "
                "off the direction."
            )
        with draft.file("direction.safetensors") as path:
            save_direction(direction, path)
        with draft.file("replies.parquet", mode=0o600) as path:
            write_replies(replies.replies, path)
        with draft.file("verdicts.parquet") as path:
            write_verdicts(replies.verdicts, path)

    config, inputs = context.contrast_config, context.contrast_inputs
    for corpus in context.record.contrast_corpora.values():
        context.audio_features(corpus)
    return context.run_context.store.get_or_make("refused_replies", 1, config, inputs, make, packages=MODEL_PACKAGES)


def load_refusal_direction(artifact: Artifact) -> RefusalDirection:
    """Read the direction of an artifact that `fit_refusal_artifact` made."""
    from undersong.research.mechanism.directions import load_direction

    return load_direction(artifact.path / "direction.safetensors")


def base_replies(
    artifact: Artifact, prompts: ContrastSets
) -> tuple[list[tuple[Prompt, str]], list[tuple[Prompt, str]]]:
    """The base's replies to the choosing split: to harmful prompts that it refused, and to benign ones that it
    answered."""
    from undersong.evaluation.replies import read_replies
    from undersong.evaluation.verdicts import read_verdicts

    replies = read_replies(artifact.path / "replies.parquet")
    verdicts = read_verdicts(artifact.path / "verdicts.parquet")
    judged_replies = [
        (prompt, reply.reply, verdict.verdict == "refusal")
        for prompt, reply, verdict in zip(prompts.all_prompts, replies, verdicts, strict=True)
        if reply.reply
    ]
    refusals = [(prompt, reply) for prompt, reply, is_refusal in judged_replies if prompt.harmful and is_refusal]
    answers = [(prompt, reply) for prompt, reply, is_refusal in judged_replies if not prompt.harmful and not is_refusal]
    return refusals, answers


def mean_reply_loss(model: AudioModel, prompt_replies: Sequence[tuple[Prompt, str]]) -> float:
    """Mean loss per token of these replies; 0 if there are none."""
    from undersong.tuning.validation import mean_loss

    return (
        mean_loss(
            model, [prompt for prompt, _ in prompt_replies], [reply for _, reply in prompt_replies], LOSS_BATCH_SIZE
        )
        if prompt_replies
        else 0.0
    )
