"""Export of a study's verdicts as inspect_ai `.eval` logs, one per arm, run, step, prompt set, modality and system
prompt. Replies to harmful prompts are omitted by default."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, EvalStats, recompute_metrics
from inspect_ai.log import write_eval_log as write
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput, StopReason

import undersong
from undersong.audits.gate.rates import read_results
from undersong.evaluation.table_rows import REDACTED_METADATA_KEY, EvaluationRow, read_rows
from undersong.evaluation.verdicts import VERDICT_FILE, verdict_of_row
from undersong.research.inspect.samples import sample_metadata
from undersong.research.inspect.scorers import rates, score_of
from undersong.results.files import check_table_beside
from undersong.results.schema import Results
from undersong.types import Prompt, Reply, Sample, UndersongError

__all__ = ["rates", "write_logs"]  # importing `rates` registers it

RUN_FIELDS = ("model", "arm", "seed", "draw", "step")
REPLIES_PATH = re.compile(r"replies/[0-9a-f]+")
REDACTED_TEXT = "[left out of this log]"


def write_logs(
    results: Path, out: Path, *, arm: str | None = None, store: Path | None = None, show_replies: bool = False
) -> list[Path]:
    """Write the logs of a study, or of one of its arms, to a new folder.

    Args:
        results: The study's results.json.
        out: The new folder.
        arm: Arm to export; None exports all.
        store: Store with the study's replies; default: the store that the results name, or `store` next to them.
        show_replies: Include replies to harmful prompts.

    Raises:
        UndersongError: The study is not finished, there is no such arm, verdicts of a run are missing, or the folder is
            not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UndersongError(f"{out} exists and is not empty; name a new folder with --out.")
    study = _StudyResults.load(results, store)
    groups = study.group_rows(arm)
    out.mkdir(parents=True, exist_ok=True)
    return [_write_log(study, rows, out, show_replies) for rows in groups]


@dataclass(frozen=True)
class _StudyResults:
    """Content of a results folder."""

    path: Path
    content: Results
    store: Path | None
    sample_by_key: Mapping[tuple[str, str], Sample]  # (set, id) -> the sample, if its corpus is on this machine

    @classmethod
    def load(cls, path: Path, store: Path | None) -> _StudyResults:
        content = read_results(path)
        recorded_store = content.provenance and content.provenance.store
        store_candidates = [
            Path(candidate) for candidate in (store, recorded_store, path.with_name("store")) if candidate
        ]
        replies_store = next((candidate for candidate in store_candidates if (candidate / "replies").is_dir()), None)
        if store is not None and replies_store != store:
            raise UndersongError(f"{store} holds no replies; give the store that the study was run with.")
        return cls(path, content, replies_store, _corpus_samples(content.study.config))

    def group_rows(self, arm: str | None) -> list[list[tuple[str, EvaluationRow]]]:
        """Rows of the verdict table with their locations, grouped by log."""
        verdict_file = self.path.with_name(VERDICT_FILE)
        if not verdict_file.is_file():
            raise UndersongError(
                f"{self.path} has no verdicts next to it ({verdict_file}); put the study's {VERDICT_FILE} there."
            )
        check_table_beside(self.path, self.content, verdict_file)
        groups: dict[tuple[Any, ...], list[tuple[str, EvaluationRow]]] = {}
        for location, row in read_rows(verdict_file, "verdict"):
            run = tuple(row.get(f"run_{name}") for name in (*RUN_FIELDS, "defense", "retuned"))
            groups.setdefault((*run, row.get("set"), row.get("modality"), row.get("system")), []).append(
                (location, row)
            )
        runs = {key[: len(RUN_FIELDS)] for key in groups}
        for result in self.content.runs:
            if (result.model, result.arm, result.seed, result.draw, result.step) not in runs:
                raise UndersongError(
                    f"{verdict_file} has no verdicts of {result.arm} step {result.step}, which {self.path.name} names; "
                    "take both files from one run of the study."
                )
        selected_rows = [rows for key, rows in groups.items() if arm is None or key[RUN_FIELDS.index("arm")] == arm]
        if not selected_rows:
            arm_names = ", ".join(sorted({str(key[RUN_FIELDS.index("arm")]) for key in groups}))
            raise UndersongError(f"{self.path} has no arm {arm!r}; choose one of {arm_names}.")
        return selected_rows

    def read_run_replies(self, row: EvaluationRow) -> dict[tuple[str, str, str, str], Reply]:
        """Replies of a row's run, by (set, id, modality, system); empty if they are not on this machine."""
        from undersong.evaluation.replies import read_replies

        replies_path = str(row.get("run_replies"))
        if self.store is None or not REPLIES_PATH.fullmatch(replies_path):  # a foreign table may name any path
            return {}
        file = self.store / replies_path / "replies.parquet"
        if not file.is_file():
            return {}
        return {(reply.set, reply.prompt_id, reply.modality, reply.system): reply for reply in read_replies(file)}


def _corpus_samples(config: Mapping[str, Any]) -> dict[tuple[str, str], Sample]:
    from undersong.corpora.registry import is_local_corpus, open_corpus

    sample_by_key: dict[tuple[str, str], Sample] = {}
    for name, set_config in config.get("prompt_sets", {}).items():
        if is_local_corpus(set_config["corpus"]):
            columns = config.get("columns", {}).get(set_config["corpus"])
            sample_by_key |= {
                (name, sample.id): sample for sample in open_corpus(set_config["corpus"], columns).samples
            }
    return sample_by_key


def _write_log(study: _StudyResults, rows: Sequence[tuple[str, EvaluationRow]], out: Path, show_replies: bool) -> Path:
    first_row = rows[0][1]
    parts = [
        first_row["run_model"],
        *_run_tags(first_row),
        *(first_row.get(name) for name in ("set", "modality", "system")),
    ]
    name = "_".join(re.sub(r"[^\w.+-]+", "-", str(part)) for part in parts if part)
    if (out / f"{name}.eval").exists():  # the folder was empty, so another run has the same file name
        name = f"{name}_{hashlib.sha256(str(parts).encode()).hexdigest()[:8]}"
    log = _make_log(study, rows, name, show_replies)
    recompute_metrics(log)
    file = out / f"{name}.eval"
    if show_replies:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    write(log, str(file), "eval")
    return file


def _run_tags(row: EvaluationRow) -> list[str]:
    """Tags that identify the run of a row."""
    numbers = [
        f"{name} {row[f'run_{name}']}" for name in ("seed", "draw", "step") if row.get(f"run_{name}") is not None
    ]
    defense_tags = [str(row["run_defense"])] if row.get("run_defense") else []
    return [str(row["run_arm"]), *numbers, *defense_tags, *(["tuned again"] if row.get("run_retuned") else [])]


def _make_log(
    study: _StudyResults, rows: Sequence[tuple[str, EvaluationRow]], name: str, show_replies: bool
) -> EvalLog:
    first_row = rows[0][1]
    samples = list(_eval_samples(study, rows, show_replies))
    provenance = study.content.provenance
    created = provenance.created if provenance is not None else "1970-01-01T00:00:00Z"
    digest = provenance.result_hash if provenance is not None else None
    run = {
        name: first_row.get(f"run_{name}")
        for name in (*RUN_FIELDS, "axis", "kind", "fraction", "train_modality", "defense")
    }
    metadata = {"study": study.content.study.name, **run, "result_hash": digest}
    # The same log every time, and a task of its own: the viewer takes logs with one task's id for tries of it.
    log_ids = [hashlib.sha256(f"{metadata} {name} {kind}".encode()).hexdigest()[:22] for kind in ("eval", "task")]
    task_args = {"modality": first_row["modality"], "system": first_row["system"]}
    judges = dict.fromkeys(str(row["judge"]) for _, row in rows)
    # The types of these fields are not exported; pydantic converts them.
    scorers: Any = [{"name": judge, "options": {}, "metrics": [{"name": "undersong/rates"}]} for judge in judges]
    spec = EvalSpec(
        created=created,
        eval_id=log_ids[0],
        run_id=(digest or "")[:22],
        task_id=log_ids[1],
        task=str(first_row["set"]),
        task_args=task_args,
        task_args_passed=task_args,
        tags=_run_tags(first_row),
        dataset=EvalDataset(
            name=str(first_row["set"]), samples=len(samples), sample_ids=[sample.id for sample in samples]
        ),
        model=f"undersong/{first_row['run_model']}",
        config=EvalConfig(epochs=1),
        packages={"undersong": undersong.__version__},
        metadata={name: value for name, value in metadata.items() if value is not None},
        scorers=scorers,
    )
    stats = EvalStats(started_at=created, completed_at=created)
    return EvalLog(status="success", eval=spec, samples=samples, stats=stats)


def _eval_samples(
    study: _StudyResults, rows: Sequence[tuple[str, EvaluationRow]], show_replies: bool
) -> Iterator[EvalSample]:
    replies = study.read_run_replies(rows[0][1])
    for location, row in rows:
        verdict = verdict_of_row(row, location)
        sample = study.sample_by_key.get(
            (verdict.set, verdict.prompt_id), Sample(verdict.prompt_id, group=verdict.cluster)
        )
        prompt = Prompt(sample, verdict.set, verdict.harmful, verdict.modality, verdict.system)
        reply = replies.get((verdict.set, verdict.prompt_id, verdict.modality, verdict.system))
        shown_reply = reply if show_replies or not verdict.harmful else None
        input_text = sample.text or f"[{verdict.prompt_id}: its text is not in the results]"
        output = _model_output(str(row["run_model"]), shown_reply, row.get("finish") == "error")
        yield EvalSample(
            id=verdict.prompt_id,
            epoch=1,
            input=input_text,
            target=list(sample.accepted_answers) if shown_reply else "",
            messages=[ChatMessageUser(content=input_text), *(choice.message for choice in output.choices)],
            output=output,
            scores={verdict.judge: score_of(verdict, shown_reply.reply if shown_reply else None)},
            metadata=sample_metadata(prompt),
        )


def _model_output(model: str, reply: Reply | None, is_error: bool) -> ModelOutput:
    if is_error:
        return ModelOutput.from_content(model, "", stop_reason="unknown", error=(reply and reply.error) or "failed")
    stop: StopReason = "max_tokens" if reply is not None and reply.finish == "length" else "stop"
    output = ModelOutput.from_message(
        ChatMessageAssistant(content=REDACTED_TEXT if reply is None else reply.reply, model=model, source="generate"),
        stop_reason=stop,
    )
    output.metadata = {REDACTED_METADATA_KEY: True} if reply is None else None
    return output
