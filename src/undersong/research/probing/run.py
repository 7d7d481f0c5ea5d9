"""Runs a probe: measures the base and the tuned model, and writes `probe.json` and `probe.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from undersong.escaping import escaped_json
from undersong.evaluation.contrast_sets import ContrastSets, contrast_mismatches
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.options import key_values
from undersong.research.probing.options import ProbeOptions, load_contrast_splits
from undersong.settings.defaults import default_max_new_tokens
from undersong.stages.output_folder import atomic_folder, check_output_folder, locked_output_folder, write_provenance
from undersong.types import UndersongError

SCHEMA = "undersong-probe/2"
CORPUS_OPTIONS = ("contrast_harmful", "contrast_benign", "held_out_harmful", "held_out_benign")


def run_probe(options: ProbeOptions, out: str | Path, loading: LoadOptions = DEFAULT_LOAD_OPTIONS) -> dict[str, Any]:
    """Measure where a tuned model lost its refusal, and write the results to `out`, completely or not at all.

    Raises UndersongError before a model is loaded: if contrast and held-out sets share items or have too few behaviors,
    if the adapter folder holds no adapter, or if the model is a black box.
    """
    from undersong.stages.black_box_models import display_reference, is_black_box

    if is_black_box(options.model):
        raise UndersongError(
            f"{display_reference(options.model)} only answers, and cannot be looked into; give the model itself."
        )
    check_output_folder(Path(out), "probe")
    with locked_output_folder(Path(out)) as out:
        return _probe_into(check_output_folder(out, "probe"), options, loading)


def _probe_into(out: Path, options: ProbeOptions, loading: LoadOptions) -> dict[str, Any]:
    """Do what `run_probe` does, under the lock of the output folder."""
    from undersong.corpora.registry import corpus_hash
    from undersong.evaluation.contrast_sets import ReplyEvaluator
    from undersong.evaluation.judges.registry import judge_hash, make_judge
    from undersong.models.lora import use_adapter
    from undersong.models.refs import model_hash
    from undersong.models.weights import module_hashes
    from undersong.research.probing.base_model import measure_base_model
    from undersong.research.probing.report import probe_findings, probe_markdown
    from undersong.research.probing.tuned_model import measure_tuned_model
    from undersong.standalone.inputs import check_adapter, load_model_with_audio, refusal_texts
    from undersong.store.hashing import hash_folder

    adapter_path = check_adapter(options.adapter, options.model, allow_outside_decoder=False)
    judge = make_judge(
        options.judge_name,
        refusal_texts(options.judge_name, options.refusal_texts, options.model),
        loading.device,
        loading.dtype,
    )
    splits = load_contrast_splits(options)
    model = load_model_with_audio(
        options.model, loading, [p.sample for prompts in splits.values() for p in prompts.all_prompts]
    )
    evaluator = ReplyEvaluator(judge, options.max_new_tokens or default_max_new_tokens(options.model))
    base = measure_base_model(model, splits, evaluator, options)
    base_hashes = module_hashes(model.frozen_modules)
    with use_adapter(model, adapter_path) as tuned:
        tuned_hashes = module_hashes(tuned.frozen_modules)
        encoder = {kind: _hashes_equal(base_hashes, tuned_hashes, kind) for kind in ("parameters", "buffers")}
        tuned_results = measure_tuned_model(tuned, base, splits, evaluator, options)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "model": options.model,
        "modality": options.modality,
        "judge": judge.name,
        "options": {name: getattr(options, name) for name in (*CORPUS_OPTIONS, "system_prompt")}
        | {"adapter": adapter_path.name},
        "encoder": encoder,
        "layers": model.layers,
        "prompts": {name: _prompt_counts(prompts) for name, prompts in splits.items()},
        "base": base.results,
        "tuned": tuned_results,
        "notes": [*_mismatch_notes(splits), *base.notes],
    }
    results["findings"] = probe_findings(results)
    with atomic_folder(out, "probe") as folder:
        text = escaped_json(results, indent=1)
        (folder / "probe.json").write_text(text + "\n", encoding="utf-8")
        (folder / "probe.md").write_text(probe_markdown(results), encoding="utf-8")
        refs = {name: getattr(options, name) for name in CORPUS_OPTIONS}
        inputs = {name: corpus_hash(ref) for name, ref in refs.items()}
        inputs |= {"model": model_hash(options.model), "adapter": hash_folder(adapter_path)}
        if source_hash := judge_hash(options.judge_name):
            inputs["judge"] = source_hash
        config = probe_key_values(options) | {"loading": loading.cache_key}
        write_provenance(folder, "probe", config, inputs, {"device": loading.device, **model.facts})
    return results


def probe_key_values(options: ProbeOptions) -> dict[str, Any]:
    """Options that a probe depends on, by name, as its provenance has them."""
    return key_values(options, options.RESULT_NEUTRAL, adapter=options.adapter.name, judge=options.judge_name)


def _hashes_equal(before: dict[str, str], after: dict[str, str], kind: str) -> bool:
    """Whether all hashes of a kind of the encoder and projector are the same with the adapter on."""
    return all(after[name] == value for name, value in before.items() if name.endswith(f"/{kind}"))


def _mismatch_notes(splits: dict[str, ContrastSets]) -> list[str]:
    sample_sets = {"the contrast sets": [*splits["fit"].samples], "the held-out sets": [*splits["test"].samples]}
    return [
        note for name, (harmful, benign) in sample_sets.items() for note in contrast_mismatches(harmful, benign, name)
    ]


def _prompt_counts(prompts: ContrastSets) -> dict[str, int]:
    return {
        "harmful": len(prompts.harmful),
        "benign": len(prompts.benign),
        "harmful_clusters": len(set(prompts.clusters[0])),
        "benign_clusters": len(set(prompts.clusters[1])),
    }
