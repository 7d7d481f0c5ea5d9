"""Which clips a report plays: those of the samples and of the requests that it names, each under its own id."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import results_factory

from undersong.results.schema import parse_results
from undersong.study.report_audio import collect_report_audio
from undersong.study.results.records import AuditRecord
from undersong.types import Sample


def record(**corpora: list[Sample]) -> AuditRecord:
    made: dict[str, Any] = {name: SimpleNamespace(samples=tuple(samples)) for name, samples in corpora.items()}
    return cast(
        AuditRecord, SimpleNamespace(pool=made["pool"], harm={"harm": made["harm"]}, sets={"asked": made["asked"]})
    )


def test_requests_with_replies_are_played_and_no_clip_under_anothers_id() -> None:
    results = parse_results(results_factory.synthetic())
    asked = results.examples[0].prompt_id
    both = results.screening[0].closest[0].id
    pool, other = Sample(both, audio=b"OggS of the pool"), Sample(both, audio=b"RIFF of a request")
    request, unnamed = Sample(asked, audio=b"OggS of a request"), Sample("nobody names it", audio=b"OggS")
    played = collect_report_audio(record(pool=[pool], harm=[pool], asked=[request, unnamed]), results)
    assert played == {asked: (request.audio, "audio/ogg"), both: (pool.audio, "audio/ogg")}
    assert set(collect_report_audio(record(pool=[pool], harm=[], asked=[request, other]), results)) == {asked}
