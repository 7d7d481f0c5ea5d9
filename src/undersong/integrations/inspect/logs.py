"""A study's verdicts as `.eval` logs, one an arm, run, step, set, modality and system text, for `inspect view`.

From results.json, `verdicts.parquet` beside it and, where it is still there, the store with the replies.  Those to
harmful prompts are left out unless they are asked for; a log with them is readable by its owner only.
"""

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
from undersong.evaluation.logged import REDACTED
from undersong.evaluation.rows import Row, read_rows
from undersong.evaluation.verdicts import verdict_of
from undersong.integrations.gate import read_results
from undersong.integrations.inspect.metrics import rates
from undersong.integrations.inspect.samples import facts
from undersong.integrations.inspect.scores import score_of
from undersong.integrations.sides import VERDICTS
from undersong.types import Prompt, Reply, Sample, UndersongError

__all__ = ["rates", "write_logs"]  # the first is registered by being imported

RUN = ("model", "arm", "seed", "draw", "step")
PLACE = re.compile(r"replies/[0-9a-f]+")
ASIDE = "[left out of this log]"


def write_logs(
    results: Path, out: Path, *, arm: str | None = None, store: Path | None = None, show_replies: bool = False
) -> list[Path]:
    """The logs of a study, or of one of its arms, in a new folder.

    `store`: where the study's replies are; default: as the results say, or `store` beside them.  Errors: no finished
    study, no such arm, runs that the verdicts lack, a folder that holds something.
    """
    study = _Study.of(results, store)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UndersongError(f"{out} is there and not empty; name a new folder with --out.")
    groups = study.groups(arm)
    out.mkdir(parents=True, exist_ok=True)
    return [_written(study, rows, out, show_replies) for rows in groups]


@dataclass(frozen=True)
class _Study:
    """What a results folder holds."""

    path: Path
    content: Any  # the checked results.json
    provenance: Mapping[str, Any]
    store: Path | None
    known: Mapping[tuple[str, str], Sample]  # (set, id) -> the prompt, where its corpus is here

    @classmethod
    def of(cls, path: Path, store: Path | None) -> _Study:
        import json

        content = read_results(path)
        provenance = json.loads(path.read_text(encoding="utf-8")).get("provenance", {})
        said = [Path(one) for one in (store, provenance.get("store"), path.with_name("store")) if one]
        there = next((one for one in said if (one / "replies").is_dir()), None)
        if store is not None and there != store:
            raise UndersongError(f"{store} holds no replies; give the store that the study was run with.")
        return cls(path, content, provenance, there, _known(content.study.config))

    def groups(self, arm: str | None) -> list[list[tuple[str, Row]]]:
        """The verdicts' rows with their places, log by log."""
        beside = self.path.with_name(VERDICTS)
        if not beside.is_file():
            raise UndersongError(f"{self.path} has no verdicts beside it ({beside}); put the study's {VERDICTS} there.")
        groups: dict[tuple[Any, ...], list[tuple[str, Row]]] = {}
        for where, row in read_rows(beside, "verdict"):
            run = tuple(row.get(f"run_{name}") for name in (*RUN, "defense", "again"))
            groups.setdefault((*run, row.get("set"), row.get("modality"), row.get("system")), []).append((where, row))
        runs = {key[: len(RUN)] for key in groups}
        for run in self.content.runs:
            if (run.model, run.arm, run.seed, run.draw, run.step) not in runs:
                raise UndersongError(
                    f"{beside} has no verdicts of {run.arm} step {run.step}, which {self.path.name} names; take both "
                    "files from one run of the study."
                )
        chosen = [rows for key, rows in groups.items() if arm is None or key[RUN.index("arm")] == arm]
        if not chosen:
            there = ", ".join(sorted({str(key[RUN.index("arm")]) for key in groups}))
            raise UndersongError(f"{self.path} has no arm {arm!r}; it has {there}.")
        return chosen

    def replies(self, row: Row) -> dict[tuple[str, str, str, str], Reply]:
        """Every reply of the run that a row is of, by (set, id, modality, system); empty where they are not here."""
        from undersong.evaluation.replies import read_replies

        place = str(row.get("run_replies"))
        if self.store is None or not PLACE.fullmatch(place):  # a table from elsewhere may name any path
            return {}
        file = self.store / place / "replies.parquet"
        if not file.is_file():
            return {}
        return {(one.set, one.prompt_id, one.modality, one.system): one for one in read_replies(file)}


def _known(config: Mapping[str, Any]) -> dict[tuple[str, str], Sample]:
    from undersong.corpora import is_here, open_corpus

    found: dict[tuple[str, str], Sample] = {}
    for name, one in config.get("sets", {}).items():
        if is_here(one["corpus"]):
            columns = config.get("columns", {}).get(one["corpus"])
            found |= {(name, sample.id): sample for sample in open_corpus(one["corpus"], columns).samples}
    return found


def _written(study: _Study, rows: Sequence[tuple[str, Row]], out: Path, show_replies: bool) -> Path:
    first = rows[0][1]
    parts = [first["run_model"], *_run(first), *(first.get(name) for name in ("set", "modality", "system"))]
    name = "_".join(re.sub(r"[^\w.+-]+", "-", str(part)) for part in parts if part)
    if (out / f"{name}.eval").exists():  # the folder was empty: another run's name is the same in letters of a file
        name = f"{name}_{hashlib.sha256(str(parts).encode()).hexdigest()[:8]}"
    log = _log(study, rows, name, show_replies)
    recompute_metrics(log)
    file = out / f"{name}.eval"
    if show_replies:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    write(log, str(file), "eval")
    return file


def _run(row: Row) -> list[str]:
    """Which run a row is of, in words."""
    counted = [
        f"{name} {row[f'run_{name}']}" for name in ("seed", "draw", "step") if row.get(f"run_{name}") is not None
    ]
    done = [str(row["run_defense"])] if row.get("run_defense") else []
    return [str(row["run_arm"]), *counted, *done, *(["tuned again"] if row.get("run_again") else [])]


def _log(study: _Study, rows: Sequence[tuple[str, Row]], name: str, show_replies: bool) -> EvalLog:
    first = rows[0][1]
    samples = list(_samples(study, rows, show_replies))
    created = study.provenance.get("created", "1970-01-01T00:00:00Z")
    run = {name: first.get(f"run_{name}") for name in (*RUN, "axis", "kind", "fraction", "train_modality", "defense")}
    about = {"study": study.content.study.name, **run, "result_hash": study.provenance.get("result_hash")}
    # The same log every time, and a task of its own: the viewer takes logs with one task's id for tries of it.
    ids = [hashlib.sha256(f"{about} {name} {kind}".encode()).hexdigest()[:22] for kind in ("eval", "task")]
    asked = {"modality": first["modality"], "system": first["system"]}
    judges = dict.fromkeys(str(row["judge"]) for _, row in rows)
    # Types of these fields are not exported: pydantic makes them.
    scorers: Any = [{"name": judge, "options": {}, "metrics": [{"name": "undersong/rates"}]} for judge in judges]
    spec = EvalSpec(
        created=created,
        eval_id=ids[0],
        run_id=str(study.provenance.get("result_hash", ""))[:22],
        task_id=ids[1],
        task=str(first["set"]),
        task_args=asked,
        task_args_passed=asked,
        tags=_run(first),
        dataset=EvalDataset(name=str(first["set"]), samples=len(samples), sample_ids=[one.id for one in samples]),
        model=f"undersong/{first['run_model']}",
        config=EvalConfig(epochs=1),
        packages={"undersong": undersong.__version__},
        metadata={name: value for name, value in about.items() if value is not None},
        scorers=scorers,
    )
    stats = EvalStats(started_at=created, completed_at=created)
    return EvalLog(status="success", eval=spec, samples=samples, stats=stats)


def _samples(study: _Study, rows: Sequence[tuple[str, Row]], show_replies: bool) -> Iterator[EvalSample]:
    replies = study.replies(rows[0][1])
    for where, row in rows:
        verdict = verdict_of(row, where)
        sample = study.known.get((verdict.set, verdict.prompt_id), Sample(verdict.prompt_id, group=verdict.cluster))
        prompt = Prompt(sample, verdict.set, verdict.harmful, verdict.modality, verdict.system)
        reply = replies.get((verdict.set, verdict.prompt_id, verdict.modality, verdict.system))
        shown = reply if show_replies or not verdict.harmful else None
        asked = sample.text or f"[{verdict.prompt_id}: its text is not in the results]"
        output = _output(str(row["run_model"]), shown, row.get("finish") == "error")
        yield EvalSample(
            id=verdict.prompt_id,
            epoch=1,
            input=asked,
            target=list(sample.answers or ((sample.answer,) if sample.answer else ())) if shown else "",
            messages=[ChatMessageUser(content=asked), *(choice.message for choice in output.choices)],
            output=output,
            scores={verdict.judge: score_of(verdict, shown.reply if shown else None)},
            metadata=facts(prompt),
        )


def _output(model: str, reply: Reply | None, failed: bool) -> ModelOutput:
    if failed:
        return ModelOutput.from_content(model, "", stop_reason="unknown", error=(reply and reply.error) or "failed")
    stop: StopReason = "max_tokens" if reply is not None and reply.finish == "length" else "stop"
    output = ModelOutput.from_message(
        ChatMessageAssistant(content=ASIDE if reply is None else reply.reply, model=model, source="generate"),
        stop_reason=stop,
    )
    output.metadata = {REDACTED: True} if reply is None else None
    return output
