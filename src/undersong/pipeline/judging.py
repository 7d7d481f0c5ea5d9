"""Judging alone: a table of replies in, a folder with verdicts out.  Knows judges and tables; loads no audio model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from undersong.evaluation.rates import set_rates
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, Loading
from undersong.pipeline.output_folder import atomic_folder, check_output_folder, write_provenance
from undersong.study.judge_names import judge_criterion


def judge_file(
    file: str | Path,
    judge: str,
    out: str | Path,
    manifest: str | None = None,
    set_name: str = "harm",
    harmful: bool = True,
    refusals: tuple[str, ...] = (),
    loading: Loading = DEFAULT_LOAD_OPTIONS,
) -> list[dict[str, Any]]:
    """Verdicts on the replies of a file (`evaluation.said.read_said`); an entry of `sets` in results.json each.

    `manifest`: where the texts and right answers of the prompts are, if the file does not hold them; `set_name` and
    `harmful`: of rows that do not say.  Writes `verdicts.parquet` and `provenance.json` to `out`.
    """
    from undersong.corpora import corpus_hash, open_corpus
    from undersong.evaluation.judges.registry import judge_hash, make_judge
    from undersong.evaluation.said import read_reply_table
    from undersong.evaluation.verdicts import write_verdicts
    from undersong.store import hash_file

    judge_instance = make_judge(judge, refusals, loading.device, loading.dtype)
    out = check_output_folder(Path(out), "judge")
    samples = None if manifest is None else {sample.id: sample for sample in open_corpus(manifest).samples}
    exchanges = read_reply_table(Path(file), samples, set_name, harmful)
    verdicts = judge_instance.judge([prompt for prompt, _ in exchanges], [reply for _, reply in exchanges])
    inputs = {"replies": hash_file(Path(file))}
    if manifest is not None:
        inputs["manifest"] = corpus_hash(manifest)
    if source := judge_hash(judge):
        inputs["judge"] = source
    config = {
        "judge": judge,
        "set": set_name,
        "harmful": harmful,
        "refusals": list(refusals),
        "loading": loading.cache_key,
    }
    with atomic_folder(out, "judge") as folder:
        write_verdicts(verdicts, folder / "verdicts.parquet")
        write_provenance(
            folder, "judge", config, inputs, {"judge_kind": judge_criterion(judge), "replies": len(exchanges)}
        )
    speakers = {prompt.sample.id: prompt.sample.speaker for prompt, _ in exchanges}
    return set_rates(verdicts, speakers, exchanges=exchanges)
