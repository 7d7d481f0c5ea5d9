"""The commands `report` (write the report of a results.json again, or of several studies) and `export-eval` (write a
study as inspect_ai logs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.terminal import echo
from undersong.extras import check_package, install_hint
from undersong.regular_files import is_regular_file
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.results.schema import Results

HTML_START, MARKDOWN_START = b"<!doctype html", b"# undersong: "  # how reports begin
MEDIA_TYPES = {
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".webm": "audio/webm",
}


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS", help="results.json, or the folder that `run` wrote; several are compared."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file. Default: report.html beside the results, or studies.html here for several."
        ),
    ] = None,
    show_replies: Annotated[
        bool, typer.Option("--show-replies", help="Show replies to harmful prompts, if the results hold them.")
    ] = False,
    audio: Annotated[
        Path | None,
        typer.Option("--audio", help="Folder of audio files named by sample id. Default: the study's store."),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Also write the report as Markdown, for a pull request."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Also draw figures for a paper, as PDF and PNG.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="Labels by `undersong label`, for a table of corrected rates."),
    ] = None,
) -> None:
    """Write a study's report again, or compare several studies.

    A report is one self-contained HTML file.
    """
    files = [file for path in results for file in result_files(path)]
    if len(files) > 1:
        single_study_options = {
            "--show-replies": show_replies,
            "--audio": audio,
            "--markdown": markdown,
            "--figures": figures,
            "--labels": labels,
        }
        if misplaced_option := next((name for name, value in single_study_options.items() if value), None):
            raise UndersongError(
                f"{misplaced_option} is for one study and {len(files)} are named; name one, or leave it out."
            )
        _report_studies(files, out)
    else:
        _report_study(files[0], out, show_replies, audio, markdown, figures, labels)


def _report_study(
    file: Path,
    out: Path | None,
    show_replies: bool,
    audio: Path | None,
    markdown: Path | None,
    figures: Path | None,
    labels: Path | None,
) -> None:
    from undersong.report.markdown import write_markdown
    from undersong.report.page import write_report
    from undersong.results.files import read_results_file
    from undersong.results.run_replies import correct_study_rates
    from undersong.results.schema import parse_results
    from undersong.study.report_audio import named_sample_ids, reload_report_audio
    from undersong.study.study_folder import unfinished_study

    if figures is not None:
        check_package("matplotlib", "Drawing figures")
    target = report_target(out if out is not None else file.with_name("report.html"))
    markdown_target = None if markdown is None else report_target(markdown, "report.md", MARKDOWN_START)
    content = read_results_file(file)
    results = parse_results(content)
    sample_ids = named_sample_ids(results)
    clips = _audio_clips(audio, sample_ids) if audio is not None else reload_report_audio(results, file.parent)
    corrected_rates = () if labels is None else correct_study_rates(file, labels)
    write_report(content, target, clips, show_replies, corrected_rates)
    echo(f"report {target.resolve()}")
    if markdown_target is not None:
        write_markdown(content, markdown_target)
        echo(f"report {markdown_target.resolve()}")
    if figures is not None:
        from undersong.research.report.paper_figures import write_figures

        for figure in write_figures(content, figures):
            echo(f"figure {figure.resolve()}")
    if unfinished_study(file.parent) is not None:
        echo(f"Note: a later run in {file.parent} is not finished; this is the report of the last one that is.")
    if sample_ids and not clips:
        echo(
            f"Note: the store of {file} is not there, so the report has no players; give --audio a folder of files "
            "named by sample id."
        )
    if show_replies and not _has_replies(results):
        echo(f"Note: {file} holds no replies to harmful prompts; they stay in the store, so they stay redacted.")


def _report_studies(files: Sequence[Path], out: Path | None) -> None:
    from undersong.research.report.multi_study import write_multi_study_report
    from undersong.results.files import read_results_file

    target = report_target(out if out is not None else Path("studies.html"), "studies.html")
    write_multi_study_report(
        [(str(file.parent if file.name == "results.json" else file), read_results_file(file)) for file in files], target
    )
    echo(f"report {target.resolve()}")


def result_files(path: Path) -> Iterator[Path]:
    """Yield the results that a path names: a file, a study's folder, or all studies of a matrix in their folder."""
    if not path.is_dir():
        yield path
        return
    study_folders = [folder for folder in (path, *sorted(path.iterdir())) if folder.is_dir() and _is_study(folder)]
    if not study_folders:
        store_note = "a store and " if (path / "store").is_dir() else ""
        raise UndersongError(
            f"{path} holds {store_note}no results.json; give one, or the folder of a study that `undersong run` "
            "finished."
        )
    for folder in study_folders[:1] if study_folders[0] == path else study_folders:
        if not (folder / "results.json").is_file():
            from undersong.study.study_folder import describe_unfinished

            raise UndersongError(
                describe_unfinished(folder) or f"{folder} holds no results.json; finish it with `undersong run`."
            )
        yield folder / "results.json"


def _is_study(folder: Path) -> bool:
    """Whether a study was run here, or begun."""
    return any((folder / name).is_file() for name in ("results.json", "unfinished.json"))


def report_target(out: Path, name: str = "report.html", expected_start: bytes = HTML_START) -> Path:
    """Return the path of a report: a folder gets the default name, and only an earlier report may be overwritten."""
    target = out / name if out.is_dir() else out
    is_report = is_regular_file(target) and _read_start(target).lstrip().lower().startswith(expected_start)
    if target.exists() and not is_report:
        option = "--out" if expected_start == HTML_START else "--markdown"
        raise UndersongError(f"{target} is there and is no report; give {option} another name.")
    return target


def _read_start(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(64)


def _audio_clips(folder: Path, sample_ids: set[str]) -> dict[str, tuple[bytes, str]]:
    """Return the files of the folder whose name without suffix is one of the sample ids."""
    if not folder.is_dir():
        raise UndersongError(f"{folder} is not a folder; give --audio a folder of audio files named by sample id.")
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in MEDIA_TYPES and file.stem in sample_ids and is_regular_file(file)
    ]
    if not files:
        raise UndersongError(
            f"{folder} holds none of the report's {len(sample_ids)} samples; name the files by sample id."
        )
    return {file.stem: (file.read_bytes(), MEDIA_TYPES[file.suffix.lower()]) for file in files}


def _has_replies(results: Results) -> bool:
    from undersong.results.schema import benign_prompt_sets

    benign = benign_prompt_sets(results)
    return any(item.reply is not None and item.prompt_set not in benign for item in results.examples)


def export_eval(
    results: Annotated[Path, typer.Argument(help="results.json that `undersong run` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder for the .eval logs.")],
    arm: Annotated[str | None, typer.Option("--arm", help="Write only this arm.")] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Store with the replies. Default: the study's own.")
    ] = None,
    show_replies: Annotated[
        bool, typer.Option("--show-replies", help="Also write replies to harmful prompts; do not share the logs.")
    ] = False,
) -> None:
    """Write a study as .eval logs for `inspect view`.

    One log for each arm, run, step and set; needs the extra `inspect`.
    """
    if find_spec("inspect_ai") is None:
        raise UndersongError(f"Writing .eval logs needs inspect-ai; {install_hint('inspect')}.")
    from undersong.research.inspect.logs import write_logs

    log_files = write_logs(results, out, arm=arm, store=store, show_replies=show_replies)
    echo(f"{len(log_files)} logs in {out.resolve()}; inspect view --log-dir {out}")
