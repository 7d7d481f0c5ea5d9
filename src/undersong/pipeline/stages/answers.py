"""What a model is asked and says, and what a judge calls it.  Knows replies and verdicts on disk; makes neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.pipeline.stages.arms import Arm
from undersong.pipeline.stages.heard import MODEL_PACKAGES
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact, Draft
from undersong.types import Prompt


@dataclass(frozen=True)
class Asked:
    """A set asked in one modality under one system text."""

    set: str
    corpus: Corpus
    harmful: bool
    modality: str
    system: str
    system_text: str | None


def replies(
    shop: Workshop,
    arm: Arm,
    adapter: Artefact | None,
    step: int,
    asked: Sequence[Asked],
    heard: Sequence[Artefact],
    limit: int,
    instruction: str | None,
) -> Artefact:
    """Greedy replies of a model (with the adapter of `step`) to everything asked; stays on the user's machine."""
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import write_replies
        from undersong.models.adapters import saved_adapter

        model = shop.model(arm.model, heard)
        with saved_adapter(model, adapter_folder(adapter, step)) as tuned:
            said = tuned.generate(prompts_of(asked, instruction), limit)
        with draft.file("replies.parquet", mode=0o600) as path:
            write_replies(said, path)
        draft.note(**model.facts)

    inputs: dict[str, Artefact | str] = {"model": model_hash(arm.model)}
    inputs |= {f"corpus:{one.set}": one.corpus.artefact for one in asked}
    if adapter is not None:
        inputs["adapter"] = adapter
    config = _reply_config(asked, step, limit, instruction, shop.loading.key)
    return shop.store.get_or_make("replies", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _reply_config(
    asked: Sequence[Asked], step: int, limit: int, instruction: str | None, loading: dict[str, Any]
) -> dict[str, Any]:
    sets = [[one.set, one.harmful, one.modality, one.system, one.system_text] for one in asked]
    return {"sets": sets, "step": step, "limit": limit, "instruction": instruction, "loading": loading}


def adapter_folder(adapter: Artefact | None, step: int) -> Path | None:
    """The PEFT folder kept at a step (`tuning.lora.step_folder`, without loading torch); None: the base."""
    return None if adapter is None else adapter.path / f"step-{step:06d}"


def prompts_of(asked: Sequence[Asked], instruction: str | None) -> list[Prompt]:
    """Every prompt of what is asked, in order."""
    from undersong.evaluation.prompts import make_prompts

    return [
        prompt
        for one in asked
        for prompt in make_prompts(
            one.corpus.samples,
            set_name=one.set,
            harmful=one.harmful,
            modality=one.modality,
            system=one.system,
            system_text=one.system_text,
            instruction=instruction,
        )
    ]


def verdicts(
    shop: Workshop,
    replies: Artefact,
    asked: Sequence[Asked],
    judge: str,
    refusals: Sequence[str],
    instruction: str | None,
) -> Artefact:
    """What the judge calls every reply."""
    from undersong.models.folders import model_hash
    from undersong.study.judges import judge_weights

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import read_replies
        from undersong.evaluation.verdicts import write_verdicts

        said = read_replies(replies.checked().path / "replies.parquet")
        judged = shop.judge(judge, refusals).judge(prompts_of(asked, instruction), said)
        with draft.file("verdicts.parquet") as path:
            write_verdicts(judged, path)

    config = {
        "judge": judge,
        "refusals": list(refusals),
        "instruction": instruction,
        "sets": [[a.set, a.modality, a.system] for a in asked],
    }
    inputs: dict[str, Artefact | str] = {"replies": replies}
    if weights := judge_weights(judge):
        inputs["weights"] = model_hash(weights)
    return shop.store.get_or_make("verdicts", 1, config, inputs, make)
