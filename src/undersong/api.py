"""The Python API: `check`, `screen`, `audit` and `compare`, with the options of the commands of the same names and
results for notebooks.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.evaluation.comparison_report import comparison_sentence
from undersong.evaluation.multi_model_comparison import (
    BaselineComparison,
    compare_many,
    comparison_summary_lines,
    multi_model_json,
    with_file_notes,
)
from undersong.evaluation.verdicts import read_verdicts
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.options import takes_options
from undersong.report.sections import headline
from undersong.results.files import check_table_beside
from undersong.results.schema import Results, parse_results
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.result import CheckResult
from undersong.screening.check.run import run_check
from undersong.screening.pool.options import ScreeningRequest
from undersong.screening.pool.output import ScreeningResult, import_pandas, to_data_frame
from undersong.screening.pool.run import run_screening as screen_files
from undersong.store.parquet import read_parquet
from undersong.study.load import load_study, parse_study
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError, Verdict

Verdicts = str | Path | Sequence[Verdict]  # a verdict file, or its rows


@takes_options(CheckRequest)
def check(request: CheckRequest) -> CheckResult:
    """Check training data: how many samples lie nearer to harm than ordinary data do.

    The arguments are the fields of `CheckRequest`, which are the options of `undersong check`:
    `check("train.jsonl", fix="less.jsonl").exit_code`.

    Args:
        request: The data, references, outputs and options.

    Returns:
        The verdict with its sentence, what each axis says, and the ranked samples.

    Raises:
        UndersongError: An unknown option, or data that cannot be checked.
    """
    from undersong.screening.check.fix import check_fix, fix_data
    from undersong.screening.check.run import one_measurement

    if request.fix is not None:
        check_fix(request)
    with one_measurement(request) as measured:
        result = run_check(measured)
        if request.writes_views:
            from undersong.screening.check.view import write_check_views

            write_check_views(measured, result)
    if request.fix is not None:
        fix_data(request, result)
    return result


@takes_options(ScreeningRequest)
def screen(request: ScreeningRequest) -> ScreeningResult:
    """Measure how close a pool of benign samples lies to harmful ones, and keep the samples that a rule selects.

    The arguments are the fields of `ScreeningRequest`, which are the options of `undersong screen`:
    `screen("pool.jsonl", "harm.jsonl", axes={"semantic": "tfidf"}, keep="distant:0.25+group<=3")`.

    Args:
        request: Pool, harm sets, output folder (None: nothing stays on disk) and options.

    Returns:
        Distances, selections and findings.

    Raises:
        UndersongError: An unknown option, or corpora that cannot be screened.
    """
    if request.engine.shard is not None:
        raise UndersongError("One shard of a screening has no result; embed it with `undersong screen --shard`.")
    with tempfile.TemporaryDirectory() as temporary_folder:
        out = Path(temporary_folder) / "screening" if request.out is None else request.out
        screened = screen_files(request.pool, request.harm, out, request)
    assert screened is not None  # only a shard gives None
    return screened


@dataclass(frozen=True)
class AuditResult:
    """Results of an audit, parsed and checked, and the folder that holds them with the report and the verdicts."""

    folder: Path
    result_hash: str
    results: Results

    @property
    def summary(self) -> str:
        """First sentence of the report."""
        return "".join(text for text, _ in headline.build_headline(self.results).title)

    def to_pandas(self) -> Any:
        """Return `results.parquet` as a pandas.DataFrame.

        It has one row per run, step, prompt set, modality, system prompt and judge.
        """
        table = self.folder / "results.parquet"
        check_table_beside(self.folder / "results.json", self.results, table)
        return to_data_frame(read_parquet(table))


def audit(
    study: str | Path | Mapping[str, Any] | Study,
    out: str | Path | None = None,
    *,
    store: str | Path | None = None,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    show_replies: bool = False,
    log: Callable[[str], None] = lambda _line: None,
) -> AuditResult:
    """Run every part of a study that is not in the store yet.

    Args:
        study: Path of a YAML file, a mapping of its keys to values, or a Study.
        out: Folder for results and report. Default: out/STUDY, named after the study.
        store: Folder of the artifact store. Default: `store` in the output folder.
        loading: Device, number format and quantization with which models are loaded.
        show_replies: True to show replies to harmful prompts in the report.
        log: Function that is called with each line of progress.
    """
    if isinstance(study, Mapping):
        study = parse_study(dict(study), "the study")
    elif not isinstance(study, Study):
        study = load_study(study)
    folder = Path(out) if out is not None else Path("out") / study.study
    store_path = Path(store) if store is not None else None
    with warnings.catch_warnings():
        # peft asks transformers for names that it deprecates: nothing that a caller can fix
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\b")
        study_run = run_audit(study, folder, store_path, loading=loading, show_replies=show_replies, say=log)
    return AuditResult(study_run.folder, study_run.result_hash, parse_results(study_run.results))


@dataclass(frozen=True)
class ComparisonResult:
    """Models against a first one, prompt by prompt; `p_adjusted` of an arm is by Holm over all arms."""

    arms: tuple[BaselineComparison, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Findings as sentences, followed by the notes that a reader needs to interpret them."""
        if len(self.arms) > 1:
            return tuple(comparison_summary_lines(self.arms))
        comparison = self.arms[0].comparison
        return comparison_sentence(comparison), *comparison.notes

    def to_pandas(self) -> Any:
        """A pandas.DataFrame, a row an arm; columns as the keys of `undersong compare --json`, joined by points."""
        return import_pandas().json_normalize(multi_model_json(self.arms)["arms"])


def compare(
    before: Verdicts,
    after: Verdicts | Mapping[str, Verdicts],
    *,
    judge: str | None = None,
    prompt_set: str | None = None,
    modality: str | None = None,
    system: str | None = None,
    allow_unpaired: bool = False,
) -> ComparisonResult:
    """Compare verdict tables with a first one, prompt by prompt.

    Args:
        before: Verdicts of the first model.
        after: Verdicts of a second model on the same prompts, or of several by name.
        judge: Judge to compare by, if a table has several.
        prompt_set: Prompt set to compare on, if a table has several.
        modality: Modality of the prompts, if a table has several.
        system: Name of the system prompt, if a table has several.
        allow_unpaired: Leave out prompts that only one table has.

    Raises:
        UndersongError: Tables that cannot be paired, or whose replies were cut at different limits of new tokens.
    """
    after_by_name = after if isinstance(after, Mapping) else {_table_name(after, "AFTER"): after}
    baseline = _load_verdicts(before)
    tables = {name: _load_verdicts(verdicts) for name, verdicts in after_by_name.items()}
    selection = {"judge": judge, "set": prompt_set, "modality": modality, "system": system}
    arms = compare_many(
        baseline,
        tables,
        baseline_name=_table_name(before, "BEFORE"),
        allow_unpaired=allow_unpaired,
        **selection,
    )

    def with_notes(arm: BaselineComparison) -> BaselineComparison:
        source = after_by_name[arm.name]
        if not (isinstance(before, str | Path) and isinstance(source, str | Path)):
            return arm  # rows do not say how their replies were generated
        return with_file_notes(arm, (Path(before), Path(source)), (baseline, tables[arm.name]), **selection)

    return ComparisonResult(tuple(map(with_notes, arms)))


def _load_verdicts(verdicts: Verdicts) -> Sequence[Verdict]:
    return read_verdicts(Path(verdicts)) if isinstance(verdicts, str | Path) else verdicts


def _table_name(verdicts: Verdicts, default: str) -> str:
    return str(verdicts) if isinstance(verdicts, str | Path) else default
