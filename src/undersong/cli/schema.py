"""`schema`: what editors check a study file by."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON schema of study files, by which editors complete keys and mark slips."""
    from undersong.study import study_json_schema

    typer.echo(json.dumps(study_json_schema(), indent=1, ensure_ascii=False))
