"""A plan and a run look at manifests and configs before any audio is decoded or any weight is read."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from undersong.models.refs import organism_folder
from undersong.settings.defaults import ORGANISM_REFUSALS
from undersong.stages.context import RunContext
from undersong.standalone.inputs import refusal_texts
from undersong.store.store import Store
from undersong.study.audit import load_corpora
from undersong.study.checks import StudySamples, check_models, check_overlap
from undersong.study.inputs import check_study_inputs
from undersong.study.load import parse_study
from undersong.study.planning.plan import plan_study
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError

PLAIN = {"id": "a", "text": "sing", "answer": "la"}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def study(pool: list[dict[str, str]], harm: list[dict[str, str]] | None = None, **changes: Any) -> Study:
    for name, rows in (("pool", pool), ("harm", harm or [{"id": "h", "text": "rob", "answer": "sure"}])):
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    keys: dict[str, Any] = {
        "study": "small", "models": ["organism:af3"], "pool": "pool.jsonl", "reference": "organism:reference",
        "prompt_sets": {"harm": {"corpus": "harm.jsonl", "harmful": True}}, "axes": {"semantic": "tfidf"},
        "tuning": {"modalities": ["text"]}, "evaluation": {"modalities": ["text"]},
    }  # fmt: skip
    return parse_study(keys | changes, "small")


@pytest.mark.parametrize(
    ("pool", "changes", "said"),
    [
        (
            [{"words": "sing", "speaker": "al"}],
            {},
            r"No item of pool\.jsonl has audio or text; it has the columns speaker, words; .* by `columns`",
        ),
        (
            [{"id": "a", "text": "sing", "reply": "la"}],
            {},
            r"1 of 1 items of the pool pool\.jsonl have no reply in the column 'answer' .* has the columns text, reply",
        ),
        ([PLAIN], {"tuning": {"modalities": ["audio"]}}, "have no audio to train on, the first: a"),
        (
            [PLAIN],
            {"evaluation": {"modalities": ["audio"]}},
            r"1 of 1 prompts of the set harm \(harm\.jsonl\) have no audio",
        ),
        (
            [PLAIN],
            {"reference": "harm.jsonl", "axes": {"semantic": "tfidf", "acoustic": "logmel"}},
            r"Axis acoustic: 1 of 1 items of the harm set harm\.jsonl have no audio",
        ),
    ],
    ids=["columns", "answers", "training audio", "prompt audio", "harm audio"],
)
def test_what_cannot_run_is_no_plan(pool: list[dict[str, str]], changes: dict[str, Any], said: str) -> None:
    """D5 of the trial: the plan was approved, and the run failed after all replies of the base."""
    asked = study(pool, **changes)
    with pytest.raises(UndersongError, match=said):
        plan_study(asked, "store")
    with pytest.raises(UndersongError, match=said):
        run_audit(asked, Path("out"))
    assert sorted(path.name for path in Path().iterdir()) == ["harm.jsonl", "pool.jsonl"]


def test_a_wrong_model_is_named_before_its_refusals_are_asked_for(tiny_folder: Path) -> None:
    for model, said in (("/no/such/model", "no model folder '/no/such/model'"), (str(tiny_folder), "must know how")):
        changes = {"models": [model], "evaluation": {"modalities": ["text"], "judge": "exact"}}
        asked = study([PLAIN], **changes)
        with pytest.raises(UndersongError, match=said):
            plan_study(asked, "store")
        with pytest.raises(UndersongError, match=said):
            run_audit(asked, Path("out"))


def test_a_further_organism_is_a_folder_whose_refusals_are_known() -> None:
    changes = {"models": [str(organism_folder("qwen-2"))], "evaluation": {"modalities": ["text"], "judge": "exact"}}
    check_models(study([PLAIN], **changes))
    assert refusal_texts("exact", (), str(organism_folder("qwen-2"))) == ORGANISM_REFUSALS


def test_a_judge_by_rules_must_find_answers() -> None:
    asked = study([PLAIN], harm=[{"id": "h", "text": "rob"}])
    with pytest.raises(UndersongError, match="The exact judge needs an answer for h"):
        check_study_inputs(asked)
    check_study_inputs(
        asked.model_copy(update={"evaluation": asked.evaluation.model_copy(update={"judge": "keyword"})})
    )


def test_a_few_items_may_be_lost_and_what_is_not_trained_needs_no_answer() -> None:
    pool = [{**PLAIN, "id": f"a{i}"} for i in range(100)] + [{"id": "b", "text": "hum"}]
    check_study_inputs(study(pool))
    check_study_inputs(study([{"id": "b", "text": "hum"}], selection={"kinds": []}))


def test_an_id_that_the_hub_does_not_have_is_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    def absent(*_: object, **__: object) -> None:
        response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))
        raise RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(HfApi, "model_info", absent)
    asked = study([PLAIN], models=["nobody/nothing"], evaluation={"modalities": ["text"], "judge": "keyword"})
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(UndersongError, match="The Hugging Face hub has no model 'nobody/nothing'"):
        plan_study(asked, "store")


def test_corpora_that_overlap_are_no_plan(tmp_path: Path) -> None:
    """The plan was approved, and the run stopped with an error after it had decoded every corpus."""
    spoken = study([PLAIN]).model_copy(
        update={"pool": "organism:unseen-benign", "benign_reference": "organism:unseen-benign"}
    )
    record = load_corpora(spoken, RunContext(Store(tmp_path / "decoded")))
    with pytest.raises(
        UndersongError, match=r"^The pool and the benign reference overlap in .* \(same audio\)"
    ) as late:
        check_overlap(spoken, StudySamples.of_record(record))
    for start in (partial(plan_study, spoken, "store"), partial(run_audit, spoken, Path("out"))):
        with pytest.raises(UndersongError) as early:
            start()
        assert str(early.value) == str(late.value)
    assert not Path("store").exists()
    written = study([PLAIN], harm=[{"id": "h", "text": "Sing!", "answer": "sure"}])
    with pytest.raises(UndersongError, match=r"The pool and the set harm overlap in 1 pairs .* \(same text\)"):
        plan_study(written, "store")


def test_a_clip_in_noise_is_no_copy_of_the_clean_one() -> None:
    """A run compares what it has decoded, with the noise that the study adds."""
    sung = [{"id": "a", "audio": "a.wav", "answer": "la"}]
    Path("a.wav").write_bytes(b"")
    base = {"tuning": {"modalities": ["audio"]}, "benign_reference": "pool.jsonl"}
    noisy = base | {"selection": {"noise": "pink:10"}}
    check_study_inputs(study(sung, **noisy))
    with pytest.raises(UndersongError, match="The pool and the benign reference overlap"):
        check_study_inputs(study(sung, **base))
