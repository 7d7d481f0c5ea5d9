"""Whose verdicts a rise is judged on: two verdict files, or the arms of a study against their base.  Judges nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.evaluation.rows import Row, read_rows
from undersong.evaluation.verdicts import Unsaid, check_keys, read_verdicts, verdict_of
from undersong.integrations.rises import Sides
from undersong.types import UndersongError, Verdict

if TYPE_CHECKING:
    from undersong.report.schema import Results

VERDICTS = "verdicts.parquet"


def file_sides(
    before: Path, after: Path, all_harmful: bool = False, harmful_sets: Sequence[str] = ()
) -> dict[str, Sides]:
    """AFTER's name -> both files' verdicts.  `all_harmful`, `harmful_sets`: of rows that do not say it themselves."""
    if all_harmful and harmful_sets:
        raise UndersongError(
            "Either all prompts are harmful or those of some sets; give --all-harmful or --harmful-set."
        )
    if before.exists() and after.exists() and before.samefile(after):
        raise UndersongError(
            f"{before} and {after} are one file, which cannot differ; give the verdicts of two models."
        )
    unsaid = _unsaid(all_harmful, harmful_sets)
    sides = read_verdicts(before, unsaid), read_verdicts(after, unsaid)
    sets = {verdict.set for side in sides for verdict in side}
    if unknown := sorted(set(harmful_sets) - sets):
        there = ", ".join(sorted(filter(None, sets))) or "none"
        raise UndersongError(f"{before} and {after} have no set {unknown[0]!r}; they have {there}: mend --harmful-set.")
    return {str(after): sides}


def _unsaid(all_harmful: bool, harmful_sets: Sequence[str]) -> Unsaid:
    def harmful(name: str, where: str) -> bool:
        if not all_harmful and not harmful_sets:
            raise UndersongError(
                f"{where} does not say whether its prompt is harmful; say it in a column harmful, or with "
                "--all-harmful or --harmful-set NAME."
            )
        return all_harmful or name in harmful_sets

    return harmful


@dataclass(frozen=True)
class Measured:
    """One run at one step, under one system text; `condition`: the defense it is under, if any."""

    model: str
    arm: str
    kind: str
    seed: object
    draw: object
    step: int
    condition: str
    verdicts: list[Verdict] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        """What --arm calls it."""
        return f"{self.arm} + {self.condition}" if self.condition else self.arm

    @property
    def title(self) -> str:
        """Tells it from every other run of the study: a key of `study_sides`, and what errors say."""
        return f"{self.model} {self.name} seed {self.seed} draw {self.draw} step {self.step}"


def study_sides(path: Path, arm: str | None = None) -> dict[str, Sides]:
    """Title -> verdicts of the base and of a run at its last step, by the study's own judge.

    `path`: a results.json, which has no verdicts: they are read from `verdicts.parquet` beside it.  Without `arm` all
    runs that are no defense, under the study's first system text; with it the runs that have this name, ARM or
    ARM + DEFENSE, where a system text is a defense too.
    """
    from undersong.integrations.gate import read_results

    results = read_results(path)
    beside = path.with_name(VERDICTS)
    if not beside.is_file():
        raise UndersongError(f"{path} has no verdicts, and there is no {beside}; put the study's {VERDICTS} beside it.")
    measured = list(_measured(beside, _plain(results), results.study.judge))
    _refuse_missing(results, measured, path, beside)
    bases = {one.model: one for one in measured if one.kind == "base" and not one.condition}
    tuned = _last(one for one in measured if one.kind != "base")
    chosen = [one for one in tuned if one.name == arm or (arm is None and not _defends(one, results))]
    if not chosen:
        there = ", ".join(sorted({one.name for one in tuned})) or "none but the base"
        raise UndersongError(
            f"{path} has no arm {arm or 'that is not a defense'}; it has {there}: name one with --arm."
        )
    if unbased := next((one for one in chosen if one.model not in bases), None):
        raise UndersongError(f"{beside} has no verdicts of the base of {unbased.title}; run the study again.")
    return {one.title: (bases[one.model].verdicts, one.verdicts) for one in chosen}


def _plain(results: Results) -> str:
    """The undefended system text: the study's first."""
    systems = results.study.config.get("evaluation", {}).get("systems", {})
    return next(iter(systems), "plain")


def _defends(one: Measured, results: Results) -> bool:
    """Made by a defense, or of the data that the study's own table counts as one."""
    kinds = {row.kind for row in results.defenses if row.defense != "none"}
    kinds -= {row.kind for row in results.defenses if row.defense == "none"}
    return bool(one.condition) or one.kind in kinds


def _measured(path: Path, plain: str, judge: object) -> Iterator[Measured]:
    found: dict[Measured, Measured] = {}
    for where, row in read_rows(path, "verdict"):
        if row.get("run_arm") is None:
            raise UndersongError(f"{where} names no run; give the {VERDICTS} that the study's run wrote.")
        verdict = verdict_of(row, where)
        if judge is None or verdict.judge == judge:
            key = _key(row, verdict.system, plain)
            # the system text of a defense is part of the model that is judged, and no prompt of another kind
            found.setdefault(key, key).verdicts.append(replace(verdict, system=plain))
    for one in found.values():
        check_keys(one.verdicts, f"{path}, {one.title},")
        yield one


def _key(row: Row, system: str, plain: str) -> Measured:
    again = "tuned again" if row.get("run_again") else ""
    defense = row.get("run_defense") or ("" if system == plain else system)
    return Measured(
        model=str(row.get("run_model")),
        arm=str(row["run_arm"]),
        kind=str(row.get("run_kind")),
        seed=row.get("run_seed"),
        draw=row.get("run_draw"),
        step=int(str(row.get("run_step") or 0)),
        condition=", ".join(part for part in (str(defense), again) if part),
    )


def _refuse_missing(results: Results, measured: Sequence[Measured], path: Path, beside: Path) -> None:
    """Every run of the results must be there, or a gate would open on the arms that are left."""
    there = {(one.model, one.arm, one.seed, one.draw, one.step) for one in measured}
    for run in results.runs:
        if (str(run.model), run.arm, run.seed, run.draw, run.step) not in there:
            seed = "" if run.seed is None else f" seed {run.seed}"
            raise UndersongError(
                f"{beside} has no verdicts of {run.arm}{seed} step {run.step}, which {path.name} names; take both "
                "files from one run of the study."
            )


def _last(measured: Iterable[Measured]) -> list[Measured]:
    last: dict[Measured, Measured] = {}
    for one in sorted(measured, key=lambda one: one.step):
        last[replace(one, step=0)] = one
    return list(last.values())
