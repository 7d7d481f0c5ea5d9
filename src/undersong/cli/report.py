"""`undersong report RESULTS…`: the reports again, from a results.json, or several studies side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from undersong.types import UndersongError

HTML, MARKDOWN = b"<!doctype html", b"# undersong: "  # how reports begin
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
Json = dict[str, Any]


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS", help="A results.json, or the folder `run` wrote; several: side by side."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file; default: report.html beside the results; of several, studies.html here."
        ),
    ] = None,
    show_replies: Annotated[
        bool, typer.Option("--show-replies", help="Show replies to harmful prompts, as far as the results hold them.")
    ] = False,
    audio: Annotated[
        Path | None,
        typer.Option("--audio", help="Folder of audio files named by sample id; default: the study's store."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write it for a pull request, too: report.md.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Draw them for a paper, too, as PDF and PNG.")
    ] = None,
) -> None:
    """Write a study's report again as one HTML file that loads nothing, or several studies side by side."""
    files = [file for path in results for file in _found(path)]
    if len(files) > 1:
        named = {"--show-replies": show_replies, "--audio": audio, "--markdown": markdown, "--figures": figures}
        if alone := next((name for name, given in named.items() if given), None):
            raise UndersongError(f"{alone} is for one study and {len(files)} are named; name one, or leave it out.")
        _side_by_side(files, out)
    else:
        _one(files[0], out, show_replies, audio, markdown, figures)


def _one(
    file: Path, out: Path | None, show_replies: bool, audio: Path | None, markdown: Path | None, figures: Path | None
) -> None:
    from undersong.pipeline.heard import audio_again, named
    from undersong.pipeline.unfinished import noted
    from undersong.report import write_markdown, write_report

    content = _read(file)
    target = _target(out if out is not None else file.with_name("report.html"))
    short = None if markdown is None else _target(markdown, "report.md", MARKDOWN)
    wanted = named(content)
    clips = _clips(audio, wanted) if audio is not None else audio_again(content, file.parent)
    write_report(content, target, clips, show_replies)
    typer.echo(f"report {target.resolve()}")
    if short is not None:
        write_markdown(content, short)
        typer.echo(f"report {short.resolve()}")
    if figures is not None:
        from undersong.report.figures import write_figures

        for drawn in write_figures(content, figures):
            typer.echo(f"figure {drawn.resolve()}")
    if noted(file.parent) is not None:
        typer.echo(f"Note: a later run in {file.parent} is not finished; this is the report of the last one that is.")
    if wanted and not clips:
        typer.echo(
            f"Note: the store of {file} is not there, so the report has no players; give --audio a folder of files "
            "named by sample id."
        )
    if show_replies and not _holds_replies(content):
        typer.echo(f"Note: {file} holds no replies to harmful prompts; they stay in the store, so they stay redacted.")


def _side_by_side(files: Sequence[Path], out: Path | None) -> None:
    from undersong.report import write_beside

    target = _target(out if out is not None else Path("studies.html"), "studies.html")
    write_beside([(str(file.parent if file.name == "results.json" else file), _read(file)) for file in files], target)
    typer.echo(f"report {target.resolve()}")


def _found(path: Path) -> Iterator[Path]:
    """The results that a path names: a file, a study's folder, or all studies of a matrix in their folder."""
    if not path.is_dir():
        yield path
        return
    own = [folder for folder in (path, *sorted(path.iterdir())) if folder.is_dir() and _is_study(folder)]
    if not own:
        begun = "a store and " if (path / "store").is_dir() else ""
        raise UndersongError(
            f"{path} holds {begun}no results.json: give one, or the folder of a study that `undersong run` finished."
        )
    for folder in own[:1] if own[0] == path else own:
        if not (folder / "results.json").is_file():
            from undersong.pipeline.unfinished import missing

            raise UndersongError(missing(folder) or f"{folder} holds no results.json; finish it with `undersong run`.")
        yield folder / "results.json"


def _is_study(folder: Path) -> bool:
    """Whether a study was run here, or begun."""
    return any((folder / name).is_file() for name in ("results.json", "unfinished.json"))


def _target(out: Path, name: str = "report.html", start: bytes = HTML) -> Path:
    """Where a report goes: into a folder under its name; over an earlier report, and over nothing else."""
    target = out / name if out.is_dir() else out
    if target.exists() and not target.read_bytes()[:64].lstrip().lower().startswith(start):
        option = "--out" if start == HTML else "--markdown"
        raise UndersongError(f"{target} is there and is no report; give {option} another name.")
    return target


def _read(path: Path) -> Json:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UndersongError(f"There is no file {path}: give the results.json that `undersong run` wrote.") from None
    except OSError as error:
        raise UndersongError(f"{path} cannot be read ({error.strerror}): give the results.json itself.") from error
    except (ValueError, RecursionError) as error:
        raise UndersongError(
            f"{path} is not JSON ({error}): give the results.json that `undersong run` wrote."
        ) from error
    if not isinstance(content, dict):
        raise UndersongError(f"{path} holds no JSON object: give the results.json that `undersong run` wrote.")
    return content


def _clips(folder: Path, wanted: set[str]) -> dict[str, tuple[bytes, str]]:
    """The folder's files whose name without its ending is a wanted id."""
    if not folder.is_dir():
        raise UndersongError(f"{folder} is not a folder: give --audio a folder of audio files named by sample id.")
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in MEDIA_TYPES and file.stem in wanted]
    if not files:
        raise UndersongError(f"{folder} holds none of the report's {len(wanted)} samples: name the files by sample id.")
    return {file.stem: (file.read_bytes(), MEDIA_TYPES[file.suffix.lower()]) for file in files}


def _holds_replies(content: Json) -> bool:
    rows = [row for run in _dicts(content.get("runs")) for row in _dicts(run.get("sets"))]
    benign = {row.get("set") for row in rows if not row.get("harmful")}
    return any(
        item.get("reply") is not None and item.get("set") not in benign for item in _dicts(content.get("examples"))
    )


def _dicts(value: Any) -> Iterable[Json]:
    """The objects in a JSON list; `write_report` judges the rest."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
