"""One arm's training on samples in memory: what `run` and `tune` share.  Knows no store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.study import Tuning
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.tuning.canary import CanaryCheck
    from undersong.tuning.safety_mixing import SafetyMixing
    from undersong.tuning.train import TuningResult


def select_by_id(samples: Sequence[Sample], quarantined: Sequence[Quarantined], ids: Sequence[str]) -> list[Sample]:
    """The samples with these ids, in the order of `ids`; UndersongError names one that cannot be trained on."""
    by_id = {sample.id: sample for sample in samples}
    if lost := [i for i in ids if i not in by_id]:
        why = next((item.reason for item in quarantined if item.id == lost[0]), "it is not in the corpus")
        raise UndersongError(
            f"Selected sample {lost[0]} cannot be used ({why}; {len(lost)} such in all); mend it, or select again."
        )
    return [by_id[i] for i in ids]


def training_targets(samples: Sequence[Sample], target: str) -> list[str]:
    """What each sample is trained to reply; UndersongError where one has nothing in the column `target`."""
    targets = [sample.column(target) or "" for sample in samples]
    if missing_ids := [sample.id for sample, reply in zip(samples, targets) if not reply]:
        raise UndersongError(
            f"Sample {missing_ids[0]} has nothing in the column {target!r} to learn ({len(missing_ids)} such); fill it, or "
            "name another column as target."
        )
    return targets


def training_recipe(tuning: Tuning) -> dict[str, Any]:
    """The hyper-parameters of a study's tuning, which all its arms share."""
    recipe = tuning.model_dump(exclude={"modalities", "seeds", "draws", "target", "preset"})
    return {name: value for name, value in recipe.items() if (name, value) != ("thin", None)}  # the same keys as ever


def train_on_samples(
    model: AudioModel,
    samples: Sequence[Sample],
    modality: str,
    system_text: str | None,
    target: str,
    recipe: dict[str, Any],
    seed: int,
    save: Callable[[str, Callable[[Path], None]], None],
    resume: Path | None = None,
    mixing: SafetyMixing | None = None,
    watch: CanaryCheck | None = None,
    start: Path | None = None,
) -> TuningResult:
    """LoRA on `samples` asked in a modality, to reply what stands in their column `target`; the rest as in `tune`."""
    from undersong.evaluation.prompts import make_prompts
    from undersong.tuning.config import LoraRecipe
    from undersong.tuning.train import finetune_decoder

    prompts = make_prompts(
        samples, set_name="train", harmful=False, modality=modality, system="train", system_text=system_text
    )
    return finetune_decoder(
        model,
        prompts,
        training_targets(samples, target),
        LoraRecipe(**recipe),
        seed,
        save,
        resume,
        mixing,
        watch,
        start,
    )
