"""Is what the tuning was for still learned?  The cost of a token of benign replies that no arm was trained on.

A defense that takes the tuning off again has a JSR of 0 and is worth nothing; this tells it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from undersong.pipeline.defending.bench import Bench, likelihood_cost
from undersong.pipeline.stages import MODEL_PACKAGES, Arm, adapter_folder, hearable
from undersong.pipeline.stages.answers import steered
from undersong.pipeline.stages.training import targets_of
from undersong.store import Artefact, Draft
from undersong.types import Sample

MOST = 64  # samples


def apart(samples: Sequence[Sample], arms: Sequence[Arm]) -> list[Sample]:
    """Samples in whole groups that no selection of `arms` has one of; at most `MOST`, by a hash of their ids."""
    trained = {i for arm in arms if arm.selection is not None for i in arm.selection.ids}
    clusters = {sample.cluster for sample in samples if sample.id in trained}
    rest = [sample for sample in samples if sample.cluster not in clusters]
    return sorted(rest, key=lambda sample: hashlib.sha256(sample.id.encode()).hexdigest())[:MOST]


def learned(
    bench: Bench,
    arms: Sequence[Arm],
    adapter: Artefact | None,
    step: int,
    system: str,
    steering: Artefact | None,
) -> Artefact:
    """`learned.json`: mean loss a token of the target replies, null where no sample is left; asked in the modality that
    the first of `arms` trains in, on samples that none of them was trained on."""
    study, pool, arm = bench.study, bench.record.pool, arms[0]
    text, target = study.system_text(system), study.tuning.target
    heard = bench.hears(pool)

    def make(draft: Draft) -> None:
        from undersong.evaluation.prompts import make_prompts
        from undersong.models.adapters import saved_adapter

        assert arm.modality is not None
        asked, loss = apart(hearable(pool, heard)[0], arms), None
        if asked:
            prompts = make_prompts(
                asked, set_name="pool", harmful=False, modality=arm.modality, system=system, system_text=text
            )
            base = bench.shop.model(arm.model, [heard])
            with saved_adapter(base, adapter_folder(adapter, step)) as model, steered(model, steering):
                loss = likelihood_cost(model, list(zip(prompts, targets_of(asked, target))))
        with draft.file("learned.json") as path:
            path.write_text(json.dumps({"loss": loss, "n": len(asked)}) + "\n", encoding="utf-8")

    chosen = sorted({one.selection.ids_hash for one in arms if one.selection is not None})
    config = {
        "apart_from": chosen,
        "modality": arm.modality,
        "system": text,
        "target": target,
        "step": step,
        "loading": bench.shop.loading.key,
    }
    inputs: dict[str, Artefact | str] = {"model": bench.hash, "pool": pool.artefact, "heard": heard}
    if adapter is not None:
        inputs["adapter"] = adapter
    if steering is not None:
        inputs["steering"] = steering
    return bench.shop.store.get_or_make("learned", 1, config, inputs, make, packages=MODEL_PACKAGES)
