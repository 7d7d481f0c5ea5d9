"""Inputs of the gate on rises: pairs of verdict tables, from two files or from a study's arms and their base model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.audits.gate.labels import GateLabels
from undersong.audits.gate.rises import VerdictPair
from undersong.evaluation.generation_settings import setting_notes, token_limit_note
from undersong.evaluation.labels import find_replies_hash, read_sample
from undersong.evaluation.same_content import same_content_note
from undersong.evaluation.table_rows import EvaluationRow, read_rows
from undersong.evaluation.verdicts import (
    VERDICT_FILE,
    HarmfulDefault,
    check_unique_keys,
    read_verdicts,
    verdict_file,
    verdict_of_row,
)
from undersong.types import UndersongError, Verdict

if TYPE_CHECKING:
    from undersong.results.schema import Results


def verdicts_from_files(
    before: Path,
    after: Path,
    all_harmful: bool = False,
    harmful_sets: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    limited: Collection[bool] = (True, False),
) -> dict[str, VerdictPair]:
    """Read the verdicts of two models and return them as one pair, under the name of the second file.

    If each file has one system prompt and they differ, the system prompt is part of the change.

    Args:
        before: Verdict file of the first model (.parquet or .jsonl).
        after: Verdict file of the second model, on the same prompts.
        all_harmful: True to treat prompts as harmful if their rows do not say whether they are.
        harmful_sets: Prompt sets to treat as harmful if their rows do not say so. Excludes `all_harmful`.
        say: Receives a note if the files differ in the token limit, the prompts or the decoding, or have the same
            content; None drops it.
        limited: Whose rates are limited: harmful prompts (True), benign ones (False). Replies to others may be cut at
            different limits of new tokens.

    Raises:
        UndersongError: Both options are given, both paths are one file, a prompt set occurs in neither file, or the
            replies were cut at different limits of new tokens.
    """
    if all_harmful and harmful_sets:
        raise UndersongError(
            "Either all prompts are harmful or those of some sets; give --assume-harmful or --harmful-prompt-set."
        )
    before, after = verdict_file(before), verdict_file(after)
    if before.exists() and after.exists() and before.samefile(after):
        raise UndersongError(
            f"{before} and {after} are one file, which cannot differ; give the verdicts of two models."
        )
    harmful_default = _make_harmful_default(all_harmful, harmful_sets)
    verdict_pair = read_verdicts(before, harmful_default), read_verdicts(after, harmful_default)
    sets = {verdict.set for verdicts in verdict_pair for verdict in verdicts}
    if unknown := sorted(set(harmful_sets) - sets):
        set_names = ", ".join(sorted(filter(None, sets))) or "none"
        raise UndersongError(
            f"{before} and {after} have no set {unknown[0]!r}; they have {set_names}: fix --harmful-prompt-set."
        )
    if say is not None and (note := same_content_note(before, after)) is not None:
        say(f"Note: {note}")
    rated = [[verdict for verdict in verdicts if verdict.harmful in limited] for verdicts in verdict_pair]
    limit_note = None
    if limited:
        limit_note = token_limit_note((before, after), (rated[0], rated[1]), "of the limited rates none")
    if say is not None:
        for note in (*([] if limit_note is None else [limit_note]), *setting_notes((before, after), verdict_pair)):
            say(f"Note: {note}")
    systems = [sorted({verdict.system for verdict in verdicts}) for verdicts in verdict_pair]
    if systems[0] != systems[1] and all(len(names) == 1 for names in systems):
        (first,), (second,) = systems
        if say is not None:
            say(
                f"Note: the system prompt is {first!r} before and {second!r} after, which counts as part of the change."
            )
        renamed = [replace(verdict, system=first) for verdict in verdict_pair[1]]
        return {str(after): (verdict_pair[0], renamed)}
    return {str(after): verdict_pair}


def _make_harmful_default(all_harmful: bool, harmful_sets: Sequence[str]) -> HarmfulDefault:
    def is_harmful(name: str, location: str) -> bool:
        if not all_harmful and not harmful_sets:
            raise UndersongError(
                f"{location} does not say whether its prompt is harmful; say it in a column harmful, or with "
                "--assume-harmful or --harmful-prompt-set NAME."
            )
        return all_harmful or name in harmful_sets

    return is_harmful


@dataclass(frozen=True)
class RunVerdicts:
    """Verdicts of one run at one step, under one system prompt; `condition` names its defense, if any."""

    model: str
    arm: str
    kind: str
    seed: object
    draw: object
    step: int
    condition: str
    replies: str = field(default="", compare=False)  # their artifact in the store
    verdicts: list[Verdict] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        """Name of the run's arm for --arm: ARM, or ARM + DEFENSE for a defended arm."""
        return f"{self.arm} + {self.condition}" if self.condition else self.arm

    @property
    def title(self) -> str:
        """Title that distinguishes the run from all others of the study, used as key and in messages."""
        return f"{self.model} {self.name} seed {self.seed} draw {self.draw} step {self.step}"


def verdicts_from_study(
    path: Path, arm: str | None = None, say: Callable[[str], None] | None = None
) -> dict[str, VerdictPair]:
    """Return the verdicts of the base and of each run at its last step, by title of the run and the study's own judge.

    `path` is a results.json; the verdicts are read from `verdicts.parquet` next to it. Without `arm` these are all
    undefended runs, under the study's first system prompt. With it these are the runs named ARM or ARM + DEFENSE, where
    a system prompt can be a defense too. Without `arm`, `say` receives a note that names the arms left out.
    """
    return {run.title: (base.verdicts, run.verdicts) for base, run in _select_study_runs(path, arm, say)}


def labels_of_study(path: Path, labels: Path, arm: str | None = None) -> GateLabels:
    """Read labels for the runs of a study that `verdicts_from_study` returns, as far as they and their base have some.

    Raises:
        UndersongError: The labels, or the study's store with the replies, cannot be found.
    """
    from undersong.audits.gate.rates import read_results
    from undersong.results.run_replies import find_study_store, replies_file
    from undersong.store.hashing import hash_file

    store = find_study_store(path, read_results(path))
    sample = read_sample(labels)
    drawn = {file.sha256 for file in sample.files}
    hashes = {}
    for base, run in _select_study_runs(path, arm, None):
        before, after = (hash_file(replies_file(store, one.replies, one.title)) for one in (base, run))
        if {before, after} <= drawn:
            hashes[run.title] = before, after
    return GateLabels(sample, hashes)


def labels_of_files(before: Path, after: Path, labels: Path) -> GateLabels:
    """Read labels for the two models that `verdicts_from_files` returns.

    Raises:
        UndersongError: The labels cannot be read, or nothing beside a verdict file says which replies it judges.
    """
    hashes = find_replies_hash(before), find_replies_hash(after)
    sample = read_sample(labels)
    systems = [{item.system for item, _ in sample.items_of(digest).values()} for digest in hashes]
    if systems[0] != systems[1] and all(len(names) == 1 for names in systems):  # as `verdicts_from_files` renames it
        changed = {index for index, file in enumerate(sample.files) if file.sha256 == hashes[1]}
        (name,) = systems[0]
        items = tuple(replace(item, system=name) if item.file in changed else item for item in sample.items)
        sample = replace(sample, items=items)
    return GateLabels(sample, {str(verdict_file(after)): hashes})


def _select_study_runs(
    path: Path, arm: str | None, say: Callable[[str], None] | None
) -> list[tuple[RunVerdicts, RunVerdicts]]:
    """Return (base, run) of each run to test."""
    from undersong.audits.gate.rates import read_results
    from undersong.results.files import check_table_beside

    results = read_results(path)
    verdict_file = path.with_name(VERDICT_FILE)
    if not verdict_file.is_file():
        raise UndersongError(
            f"{path} has no verdicts, and there is no {verdict_file}; put the study's {VERDICT_FILE} beside it."
        )
    check_table_beside(path, results, verdict_file)
    runs = list(_read_runs(verdict_file, results.study.undefended_system, results.study.judge))
    _check_runs_complete(results, runs, path, verdict_file)
    bases = {run.model: run for run in runs if run.kind == "base" and not run.condition}
    tuned_runs = _last_steps(run for run in runs if run.kind != "base")
    selected_runs = [run for run in tuned_runs if run.name == arm or (arm is None and not _is_defense(run, results))]
    if not selected_runs:
        arm_names = ", ".join(sorted({run.name for run in tuned_runs})) or "none but the base"
        raise UndersongError(
            f"{path} has no arm {arm or 'that is not a defense'}; it has {arm_names}: name one with --arm."
        )
    if run_without_base := next((run for run in selected_runs if run.model not in bases), None):
        raise UndersongError(
            f"{verdict_file} has no verdicts of the base of {run_without_base.title}; run the study again."
        )
    unchecked = dict.fromkeys(run.name for run in tuned_runs if run not in selected_runs)
    if arm is None and unchecked and say is not None:
        say(f"Note: not checked, because they count as defenses: {', '.join(unchecked)}; check one with --arm.")
    return [(bases[run.model], run) for run in selected_runs]


def _is_defense(run: RunVerdicts, results: Results) -> bool:
    """Made by a defense, or of the data that the study's own table counts as one."""
    kinds = {row.kind for row in results.defense_tradeoffs if row.defense != "none"}
    kinds -= {row.kind for row in results.defense_tradeoffs if row.defense == "none"}
    return bool(run.condition) or run.kind in kinds


def _read_runs(path: Path, undefended_system: str, judge: object) -> Iterator[RunVerdicts]:
    runs: dict[RunVerdicts, RunVerdicts] = {}
    for location, row in read_rows(path, "verdict"):
        if row.get("run_arm") is None:
            raise UndersongError(f"{location} names no run; give the {VERDICT_FILE} that the study's run wrote.")
        verdict = verdict_of_row(row, location)
        if judge is None or verdict.judge == judge:
            key = _run_of_row(row, verdict.system, undefended_system)
            # the system text of a defense is part of the model that is judged, and no prompt of another kind
            runs.setdefault(key, key).verdicts.append(replace(verdict, system=undefended_system))
    for run in runs.values():
        check_unique_keys(run.verdicts, f"{path}, {run.title},")
        yield run


def _run_of_row(row: EvaluationRow, system: str, undefended_system: str) -> RunVerdicts:
    retuned = "tuned again" if row.get("run_retuned") else ""
    defense = row.get("run_defense") or ("" if system == undefended_system else system)
    return RunVerdicts(
        model=str(row.get("run_model")),
        arm=str(row["run_arm"]),
        kind=str(row.get("run_kind")),
        seed=row.get("run_seed"),
        draw=row.get("run_draw"),
        step=int(str(row.get("run_step") or 0)),
        condition=", ".join(part for part in (str(defense), retuned) if part),
        replies=str(row.get("run_replies") or ""),
    )


def _check_runs_complete(results: Results, runs: Sequence[RunVerdicts], path: Path, verdict_file: Path) -> None:
    """Check that every run of the results has verdicts; otherwise the gate would pass on the remaining arms."""
    run_keys = {
        (run_verdicts.model, run_verdicts.arm, run_verdicts.seed, run_verdicts.draw, run_verdicts.step)
        for run_verdicts in runs
    }
    for run in results.runs:
        if (run.model, run.arm, run.seed, run.draw, run.step) not in run_keys:
            seed = "" if run.seed is None else f" seed {run.seed}"
            raise UndersongError(
                f"{verdict_file} has no verdicts of {run.arm}{seed} step {run.step}, which {path.name} names; take "
                "both "
                "files from one run of the study."
            )


def _last_steps(runs: Iterable[RunVerdicts]) -> list[RunVerdicts]:
    last_by_run: dict[RunVerdicts, RunVerdicts] = {}
    for run in sorted(runs, key=lambda run: run.step):
        last_by_run[replace(run, step=0)] = run
    return list(last_by_run.values())
