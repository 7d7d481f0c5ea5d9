"""One probe from end to end: a base, its tuned model, `probe.json` and `probe.md`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from undersong.mechanism.matched import mismatches
from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.folders import whole, writable, write_provenance
from undersong.pipeline.probing.asked import Probing, Sides, asked
from undersong.study import reply_limit
from undersong.types import UndersongError

SCHEMA = "undersong-probe/1"
SETS = ("harmful", "harmless", "test_harmful", "test_harmless")


def probe(what: Probing, out: str | Path, loading: Loading = PLAIN) -> dict[str, Any]:
    """Everything the mechanism room can tell of one tuned model; written to `out`, which appears whole or not at all.

    Errors, before a model is loaded: contrast and held-out sets that share items or have too few behaviours, an adapter
    folder that is none, a model that only answers.
    """
    from undersong.corpora import corpus_hash
    from undersong.evaluation.judging.named import judge_hash, make_judge
    from undersong.models.adapters import saved_adapter
    from undersong.models.folders import model_hash
    from undersong.models.frozen import fingerprint
    from undersong.pipeline.alone.evaluated import adapter_folder, refusals_of
    from undersong.pipeline.alone.readied import ready_model
    from undersong.pipeline.probing.base import examine_base
    from undersong.pipeline.probing.page import markdown
    from undersong.pipeline.probing.replied import Asking
    from undersong.pipeline.probing.tuned import examine_tuned
    from undersong.pipeline.probing.written import findings
    from undersong.pipeline.speakers import answers_only, shown
    from undersong.store import hash_folder

    if answers_only(what.model):
        raise UndersongError(f"{shown(what.model)} only answers, and cannot be looked into; give the model itself.")
    out, worn = writable(Path(out), "probe"), adapter_folder(what.adapter)
    judge = make_judge(what.judge, refusals_of(what.judge, what.refusals, what.model), loading.device, loading.dtype)
    sides = asked(what)
    model = ready_model(what.model, loading, [p.sample for side in sides.values() for p in side.both])
    asking = Asking(judge, what.limit or reply_limit(what.model))
    base = examine_base(model, sides, asking, what)
    frozen = fingerprint(model.frozen)
    with saved_adapter(model, worn) as tuned:
        after = fingerprint(tuned.frozen)
        encoder = {kind: _equal(frozen, after, kind) for kind in ("parameters", "buffers")}
        found = examine_tuned(tuned, base, sides, asking, what)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "model": what.model,
        "modality": what.modality,
        "judge": judge.name,
        "asked": {name: getattr(what, name) for name in (*SETS, "system")} | {"adapter": worn.name},
        "encoder": encoder,
        "layers": model.layers,
        "prompts": {name: _counts(side) for name, side in sides.items()},
        "base": base.found,
        "tuned": found,
        "notes": [*_mismatches(sides), *base.notes],
    }
    results["findings"] = findings(results)
    with whole(out, "probe") as folder:
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "probe.json").write_text(text + "\n", encoding="utf-8")
        (folder / "probe.md").write_text(markdown(results), encoding="utf-8")
        refs = {name: getattr(what, name) for name in SETS}
        inputs = {name: corpus_hash(ref) for name, ref in refs.items()}
        inputs |= {"model": model_hash(what.model), "adapter": hash_folder(worn)}
        if source := judge_hash(what.judge):
            inputs["judge"] = source
        config = {**asdict(what), "adapter": worn.name, "loading": loading.key}
        write_provenance(folder, "probe", config, inputs, {"device": loading.device, **model.facts})
    return results


def _equal(before: dict[str, str], after: dict[str, str], kind: str) -> bool:
    """Whether all hashes of a kind of the encoder and projector are the same with the adapter on."""
    return all(after[name] == value for name, value in before.items() if name.endswith(f"/{kind}"))


def _mismatches(sides: dict[str, Sides]) -> list[str]:
    named = {"the contrast sets": [*sides["fit"].samples], "the held-out sets": [*sides["test"].samples]}
    return [said for name, (harmful, harmless) in named.items() for said in mismatches(harmful, harmless, name)]


def _counts(side: Sides) -> dict[str, int]:
    return {
        "harmful": len(side.harmful),
        "harmless": len(side.harmless),
        "harmful_clusters": len(set(side.clusters[0])),
        "harmless_clusters": len(set(side.clusters[1])),
    }
