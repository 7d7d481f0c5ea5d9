"""Replies and verdicts of a study's runs, from its verdict table and its store: to be labelled, and to be corrected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.types import Prompt, Reply, Sample, UndersongError, Verdict

if TYPE_CHECKING:
    from undersong.evaluation.corrected_rates import CorrectedSetRate
    from undersong.results.schema import Results

REPLIES_PATH = re.compile(r"replies/[0-9a-f]+")  # a foreign table may name any path
RunKey = tuple[str, str, int, int]  # model, arm, seed, draw


@dataclass(frozen=True)
class RunReplies:
    """One run at its last step: the file of its replies, and the verdicts of the study's judge on them."""

    title: str
    file: Path
    verdicts: tuple[Verdict, ...]

    def read_exchanges(self, samples: Mapping[tuple[str, str], Sample]) -> list[tuple[Prompt, Reply]]:
        """Read each verdict's prompt and reply; `samples` are those of (set, id).

        Raises:
            UndersongError: A prompt or its reply is missing.
        """
        from undersong.evaluation.replies import read_replies

        replies = {reply.key: reply for reply in read_replies(self.file)}
        exchanges = []
        for verdict in self.verdicts:
            sample, reply = samples.get((verdict.set, verdict.prompt_id)), replies.get(verdict.key)
            if sample is None or reply is None:
                raise UndersongError(
                    f"{self.title}: there is no {'text' if sample is None else 'reply'} of the prompt "
                    f"{verdict.prompt_id}; label the study where its corpora and its store are."
                )
            prompt = Prompt(sample, verdict.set, verdict.harmful, verdict.modality, verdict.system)
            exchanges.append((prompt, reply))
        return exchanges


def find_results_file(path: Path) -> Path | None:
    """Return the results.json that a path is or holds; None if it is no study."""
    if (path / "results.json").is_file():
        return path / "results.json"
    return path if path.suffix == ".json" else None


def read_study_replies(
    path: Path, *, store: Path | None = None, arm: str | None = None, prompt_set: str = ""
) -> list[RunReplies]:
    """Return the base and every undefended run at its last step, under the study's first system prompt.

    Args:
        path: The study's results.json, with its verdicts.parquet beside it.
        store: Store of the study; None: the one that the results name, or `store` beside them.
        arm: Only the base and this arm.
        prompt_set: Only this prompt set; all if empty.

    Raises:
        UndersongError: The verdicts, the store, the arm or the set is missing.
    """
    from undersong.evaluation.table_rows import read_rows
    from undersong.evaluation.verdicts import verdict_of_row
    from undersong.results.files import check_table_beside, read_results_file
    from undersong.results.schema import parse_results

    results, verdict_file = parse_results(read_results_file(path)), path.with_name("verdicts.parquet")
    folder = find_study_store(path, results, store)
    steps: dict[RunKey, dict[tuple[int, str], list[Verdict]]] = {}
    if verdict_file.is_file():
        check_table_beside(path, results, verdict_file)
    for location, row in read_rows(verdict_file, "verdict"):
        verdict = verdict_of_row(row, location)
        is_defended = (
            row.get("run_defense") or row.get("run_retuned") or verdict.system != results.study.undefended_system
        )
        if not is_defended and verdict.judge == results.study.judge:
            seed, draw, step = (int(str(row.get(f"run_{name}") or 0)) for name in ("seed", "draw", "step"))
            run = str(row.get("run_model")), str(row.get("run_arm")), seed, draw
            steps.setdefault(run, {}).setdefault((step, str(row.get("run_replies"))), []).append(verdict)
    arms = dict.fromkeys(run[1] for run in steps)
    if arm is not None and arm not in arms:
        raise UndersongError(f"{path} has no undefended arm {arm!r}; it has {', '.join(arms) or 'none'}.")
    found = [_last_step(run, steps[run], folder, prompt_set) for run in steps if arm is None or run[1] in ("base", arm)]
    if not any(run.verdicts for run in found):
        raise UndersongError(f"{path} has no verdicts to label of the set {prompt_set!r}; name another --prompt-set.")
    return [run for run in found if run.verdicts]


def correct_study_rates(path: Path, labels: Path, store: Path | None = None) -> list[tuple[str, CorrectedSetRate]]:
    """Correct the rates of the runs that were labelled; returns (run, rate) for each prompt set.

    Raises:
        UndersongError: None of the study's replies were labelled, or too few.
    """
    from undersong.evaluation.corrected_rates import correct_rates
    from undersong.evaluation.labels import read_sample
    from undersong.store.hashing import hash_file

    sample = read_sample(labels)
    rates: list[tuple[str, CorrectedSetRate]] = []
    for run in read_study_replies(path, store=store):
        replies_hash = hash_file(run.file)
        drawn = sample.items_of(replies_hash)
        if verdicts := [verdict for verdict in run.verdicts if verdict.key in drawn]:
            rates += [(run.title, rate) for rate in correct_rates(verdicts, sample, replies_hash)]
    if not rates:
        raise UndersongError(f"{labels} has no labels of the replies of {path}; make them with `undersong label`.")
    return rates


def read_study_prompts(path: Path) -> dict[tuple[str, str], Sample]:
    """Return the prompts of a study by (set, id), of the corpora that are on this machine."""
    from undersong.corpora.registry import is_local_corpus, open_corpus
    from undersong.results.files import read_results_file
    from undersong.results.schema import parse_results

    config = parse_results(read_results_file(path)).study.config
    samples: dict[tuple[str, str], Sample] = {}
    for name, settings in config.get("prompt_sets", {}).items():
        if is_local_corpus(settings["corpus"]):
            columns = config.get("columns", {}).get(settings["corpus"])
            samples |= {(name, sample.id): sample for sample in open_corpus(settings["corpus"], columns).samples}
    return samples


def _last_step(
    run: RunKey, by_step: Mapping[tuple[int, str], list[Verdict]], folder: Path, prompt_set: str
) -> RunReplies:
    model, arm, seed, draw = run
    (step, location), verdicts = max(by_step.items(), key=lambda item: item[0][0])
    title = f"{model} {arm}" if arm == "base" else f"{model} {arm} seed {seed} draw {draw} step {step}"
    file = replies_file(folder, location, title)
    return RunReplies(title, file, tuple(one for one in verdicts if prompt_set in ("", one.set)))


def replies_file(store: Path, location: str, title: str) -> Path:
    """Return the file of the replies that a verdict table names; `title` is that of the run, for the message.

    Raises:
        UndersongError: The store does not hold it.
    """
    file = store / location / "replies.parquet"
    if not REPLIES_PATH.fullmatch(location) or not file.is_file():
        raise UndersongError(f"{title}: its replies are not in the store {store}; name the study's store.")
    return file


def find_study_store(path: Path, results: Results, store: Path | None = None) -> Path:
    """Return the store with a study's replies: the given one, the one that the results name, or `store` beside them.

    Raises:
        UndersongError: None of them has replies.
    """
    recorded = None if results.provenance is None else results.provenance.store
    candidates = [Path(one) for one in (store, recorded, path.with_name("store")) if one]
    folder = next((one for one in candidates if (one / "replies").is_dir()), None)
    if folder is None or (store is not None and folder != store):
        raise UndersongError(f"{store or path} has no store with replies; name the store that the study was run with.")
    return folder
