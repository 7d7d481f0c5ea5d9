"""DefenseContext: what defenses of one base model share (prompts, contrast splits, loaded models), and the refusal
direction and replies of the base. Directions are fitted on one split; layers and strengths are chosen on the other,
and no result is reported on either.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from undersong import stages
from undersong.mechanism.contrast_sets import ContrastSets, ReplyEvaluator, choosing_behaviors
from undersong.results.records import AuditRecord, ModelRecord
from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import MODEL_PACKAGES
from undersong.stages.replies import PromptSetRequest, prompt_settings_for, request_prompts
from undersong.store import Artifact, Draft
from undersong.store.store import Inputs
from undersong.study import Study
from undersong.study.presets import PromptSettings, manner_key
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.mechanism import RefusalDirection
    from undersong.models.audio_lm import AudioModel

SPLIT_SEED = 0
LOSS_BATCH_SIZE = 32


@dataclass
class DefenseContext:
    """One base of a study."""

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
        """How it is asked."""
        return prompt_settings_for(self.study, self.model_record.ref, modality)

    def audio_features(self, corpus: Corpus) -> Artifact:
        """What the base hears of a corpus; the pool may have items that it cannot hear."""
        return stages.compute_features(self.run_context, self.model_record.ref, corpus)

    def prompts(self, corpus: Corpus, harmful: bool, modalities: Sequence[str]) -> list[Prompt]:
        """Every sample in each of these modalities, as the study asks, under its first system text."""
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
        """The study's judge, and its limit of a reply."""
        evaluation = self.study.evaluation
        return ReplyEvaluator(
            self.run_context.judge(evaluation.judge, evaluation.refusals), self.prompt_settings("audio").limit
        )

    def contrast_splits(self) -> dict[str, ContrastSets]:
        """`fit` and `choose`: the contrast sets by whole behaviors, in all modalities that are evaluated."""
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
        """What files an artifact that is chosen or fitted on the splits."""
        evaluation = self.study.evaluation
        return {
            "modalities": list(evaluation.modalities),
            "system": self.study.system_text(self.study.undefended_system),
            "manners": [manner_key(self.prompt_settings(modality)) for modality in evaluation.modalities],
            "judge": evaluation.judge,
            "refusals": list(evaluation.refusals),
            "loading": self.run_context.loading.cache_key,
        }

    @property
    def contrast_inputs(self) -> Inputs:
        """The base's weights and both contrast sets, which such an artifact is made from."""
        return {
            "model": self.weights_hash,
            **{name: corpus.artifact for name, corpus in self.record.contrast_corpora.items()},
        }

    def adapted_model(self, adapter: Artifact | None, step: int) -> AbstractContextManager[AudioModel]:
        """The base under an adapter, with the audio features of the contrast sets."""
        corpora = list(self.record.contrast_corpora.values())
        return self.run_context.model_with_audio(self.model_record.ref, corpora, adapter, step)


def fit_refusal_artifact(context: DefenseContext) -> Artifact:
    """The base's direction on `fit`, and its replies to `choose`: what defenses that go by the refusal are made of."""

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import write_replies
        from undersong.evaluation.verdicts import write_verdicts
        from undersong.mechanism import fit_direction, save_direction

        splits = context.contrast_splits()
        with context.adapted_model(None, 0) as model:
            direction = fit_direction(
                model.hidden_states(splits["fit"].harmful), model.hidden_states(splits["fit"].benign)
            )
            replies = context.reply_evaluator().evaluate(model, splits["choose"].all_prompts)
        if not any(replies.refused[: len(splits["choose"].harmful)]):
            raise UndersongError(
                f"{context.model_record.ref} refuses none of the {len(splits['choose'].harmful)} harmful prompts that "
                "defenses are chosen on, so there is no refusal to bring back; leave steering, removal and projection "
                "off the direction out."
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
    return context.run_context.store.get_or_make("refused", 1, config, inputs, make, packages=MODEL_PACKAGES)


def load_refusal_direction(artifact: Artifact) -> RefusalDirection:
    """Of what `refused` made."""
    from undersong.mechanism import load_direction

    return load_direction(artifact.verify().path / "direction.safetensors")


def base_replies(
    artifact: Artifact, prompts: ContrastSets
) -> tuple[list[tuple[Prompt, str]], list[tuple[Prompt, str]]]:
    """What the base says to the choosing split: harmful prompts that it refused, and harmless ones that it did not."""
    from undersong.evaluation.replies import read_replies
    from undersong.evaluation.verdicts import read_verdicts

    replies = read_replies(artifact.verify().path / "replies.parquet")
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
    """Mean cost of a token of these replies; 0 of none."""
    from undersong.tuning.validation import mean_loss

    return (
        mean_loss(
            model, [prompt for prompt, _ in prompt_replies], [reply for _, reply in prompt_replies], LOSS_BATCH_SIZE
        )
        if prompt_replies
        else 0.0
    )
