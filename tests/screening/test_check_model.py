"""Checks with a model: its own axes, what must be given, and the rehearsal with its part in the verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undersong import extras
from undersong.corpora.manifest import write_manifest
from undersong.corpora.registry import open_corpus
from undersong.predictors import rehearsal
from undersong.predictors.rehearsal import Rehearsal
from undersong.screening.check.axis_choice import AUDIO, TEXT, chosen_axes
from undersong.screening.check.inputs import CheckInputs
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.recordings import RecordingCheck
from undersong.screening.check.rehearsal_plan import plan_check
from undersong.screening.check.request_sets import CheckSets
from undersong.screening.check.result import CheckResult
from undersong.screening.check.run import one_measurement, run_check
from undersong.screening.check.sample_axes import AxisVectors, SampleAxes
from undersong.screening.check.view import build_check_view
from undersong.settings.defaults import LEARNING_RATE
from undersong.stages.rehearsal import RehearsalStage
from undersong.statistics.bootstrap import Interval
from undersong.store.inventory import list_store
from undersong.types import Embeddings, UndersongError

MODEL = "organism:af3"
Check = Callable[..., CheckResult]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Written requests of the organisms: 40 data samples, 150 ordinary ones and the harm set."""
    folder = tmp_path_factory.mktemp("written")
    pool = [replace(sample, audio=None, group=sample.id) for sample in open_corpus("organism:pool").samples]
    harm = [replace(sample, audio=None) for sample in open_corpus("organism:reference").samples]
    sides = {"data": pool[::16], "ordinary": pool[1::4], "harm": harm[::2], "silent": pool[::16]}
    sides["silent"] = [replace(sample, answer=None) for sample in sides["silent"]]
    for name, samples in sides.items():
        write_manifest(samples, folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in sides}


@pytest.fixture
def check(written: dict[str, Path], tmp_path: Path) -> Check:
    """Checks written requests of the organisms by one of them."""

    def run(data: str = "data", **options: Any) -> CheckResult:
        return run_check(request(written, tmp_path, data, **options))

    return run


def request(written: dict[str, Path], folder: Path, data: str = "data", **options: Any) -> CheckRequest:
    references = {"harm": str(written["harm"]), "ordinary": str(written["ordinary"])}
    defaults = {**references, "model": MODEL, "store": folder / "store"}
    return CheckRequest(written[data], **{**defaults, **options})


def vectors(first: float, count: int, skip: int = 0) -> Embeddings:
    """Log-odds around a number, as the axis `refusal` has them."""
    rng = np.random.default_rng(round(100 + first))
    rows = np.stack([first + rng.standard_normal(count), np.ones(count)], axis=1).astype(np.float32)
    return Embeddings(tuple(map(str, range(skip, count))), rows[skip:], np.zeros(count - skip), ())


def axis_vectors(data: float, sets: CheckSets) -> AxisVectors:
    """Vectors of an axis that separates, on which the data lie at a number; the first sample has none."""
    harm, ordinary = len(sets.harm.samples), len(sets.ordinary.samples)
    anchors = replace(vectors(8.0, harm), vectors=np.tile(np.float32([1.0, 0.0]), (harm, 1)))
    return AxisVectors(vectors(data, len(sets.data.samples), 1), vectors(8.0, harm), vectors(0.0, ordinary), anchors)


@pytest.mark.parametrize(("level", "exit_code"), [(0.0, 3), (8.0, 1)])
def test_an_axis_of_the_model_counts_ranks_and_is_shown(
    check: Check, written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: float, exit_code: int
) -> None:
    monkeypatch.setattr(SampleAxes, "vectors", lambda self, _encoder: axis_vectors(level, self.sets))
    result = check(axes={"leaning": "refusal"})
    assert [(axis.name, axis.encoder) for axis in result.axes] == [("words", "tfidf"), ("leaning", "refusal")]
    axis = result.axes[1]
    assert axis.is_usable
    assert axis.nearer.n == 40  # of 41: one could not be measured
    assert result.exit_code == exit_code
    if exit_code == 1:
        assert f"{axis.nearer.successes} of 40 requests" in result.sentence
        assert result.ranked_by == "leaning"
        assert (result.ranked[0].nearest_id, result.ranked[0].nearest_text) == (None, None)  # of no single request
        distances = [sample.distance for sample in result.ranked]
        assert distances == sorted(distances)
        view = build_check_view(request(written, tmp_path, axes={"leaning": "refusal"}), result, 10)
        assert view.axis == ("leaning", "refusal")
        assert (view.nearest == -1).all()
        assert len(view.histogram["ordinary"]) == 108
        np.testing.assert_allclose(-view.vectors[:10, 0], view.distances, rtol=1e-5)


def test_the_users_cache_keeps_the_result_and_no_vectors(
    check: Check, written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSONG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(SampleAxes, "vectors", lambda self, _encoder: axis_vectors(0.0, self.sets))
    result = check(axes={"leaning": "refusal"}, store=None)
    monkeypatch.setattr(SampleAxes, "vectors", None)
    assert check(axes={"leaning": "refusal"}, store=None) == result
    assert [folder.stage for folder in list_store(tmp_path / "cache")] == ["check"]
    asked = request(written, tmp_path, axes={"leaning": "refusal"}, store=None)
    for page, is_kept in ((None, False), (tmp_path / "page.html", True)):
        with one_measurement(replace(asked, page=page)) as measured:
            assert (measured.store is not None) is is_kept
    with one_measurement(replace(asked, page=tmp_path / "page.html", model=None, axes=None)) as measured:
        assert measured.store is None  # a page of words is looked up


def test_the_models_axes_are_those_of_the_model(check: Check, written, tmp_path: Path) -> None:
    from undersong.models.load import load_model
    from undersong.predictors.registry import PredictorSettings
    from undersong.predictors.sample_scores import sample_vectors

    lines: list[str] = []
    result = check(axes={"states": "decoder:2"}, progress=lines.append)
    assert lines[0] == f"states: 41 requests of {written['data']}, 24 harmful and 162 ordinary."
    assert result.axes[1].separates
    assert result.requests == 41
    assert "By states, your requests are compared with 24 harmful and 108 ordinary ones." in result.notes
    settings = PredictorSettings(modality="text")
    samples, harm = (list(open_corpus(str(written[name])).samples) for name in ("data", "harm"))
    states, anchors = (
        sample_vectors("decoder:2", load_model(MODEL), side, settings).vectors for side in (samples, harm)
    )
    mean = (anchors / np.linalg.norm(anchors, axis=1, keepdims=True)).mean(axis=0)
    cosines = states @ mean / np.linalg.norm(states, axis=1) / np.linalg.norm(mean)
    measured = check(axes={"states": "decoder:2"})
    assert measured == result  # looked up
    if result.ranked_by == "states":
        assert result.ranked[0].distance == pytest.approx(1 - cosines.max(), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "data", "names"),
    [
        ({}, (TEXT, True), ["decoder", "refusal", "influence"]),
        ({}, (TEXT, False), ["decoder", "refusal"]),
        ({}, (AUDIO, True), ["internal", "decoder", "refusal", "influence", "sound"]),
        ({"axes": {"own": "internal:tower"}}, (AUDIO, True), ["own", "sound"]),
        ({"axes": {"ears": "logmel"}, "model": None}, (AUDIO, True), ["ears"]),
        ({"rehearse": 8}, (TEXT, True), []),
    ],
)
def test_the_default_axes_are_those_that_the_data_can_be_measured_on(
    options: dict[str, Any], data: tuple[str, bool], names: list[str]
) -> None:
    assert list(chosen_axes(CheckRequest("data", **{"model": MODEL, **options}), *data)) == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rehearse": 8, "model": None}, "--rehearse needs a model; name it with --model."),
        ({"system_prompt": "be kind", "model": None}, "--system-prompt needs a model; name it with --model."),
        ({"rehearse_seeds": 2}, "--rehearse-seeds needs a rehearsal; add --rehearse STEPS"),
        ({"rehearse_learning_rate": 1e-3}, "--rehearse-learning-rate needs a rehearsal; add --rehearse STEPS"),
        ({"axes": {"sound": "logmel"}}, "Axis sound=logmel listens to clips, and .* has none; leave it out."),
        ({"axes": {"states": "decoder,modality=audio"}}, "listens to clips, and .* has none; leave it out."),
    ],
)
def test_what_cannot_be_measured_is_refused(check: Check, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UndersongError, match=message):
        check(**options)


@pytest.mark.parametrize("options", [{"model": MODEL}, {"model": None, "transcribe": "org/whisper"}])
def test_without_torch_a_model_needs_one_line_to_install(
    check: Check, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "torch")
    with pytest.raises(UndersongError, match=r"needs torch, which is not installed; run pip install .*\[models\]"):
        check(**options)


def test_a_model_that_refuses_nothing_has_no_axis_of_refusal(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: SampleAxes, encoder: str) -> AxisVectors:
        if encoder == "refusal":
            raise UndersongError("The base refused nothing of 9 prompts.")
        return axis_vectors(0.0, self.sets)

    monkeypatch.setattr(SampleAxes, "vectors", measure)
    result = check("silent")
    assert [axis.name for axis in result.axes] == ["words", "decoder"]
    assert "The axis refusal was not measured: The base refused nothing of 9 prompts." in result.notes
    with pytest.raises(UndersongError, match="refused nothing"):
        check("silent", axes={"refusal": "refusal"})


def test_clips_that_sound_different_are_not_compared_by_any_axis_of_clips() -> None:
    from undersong.screening.check.sample_axes import obstacle_of

    alike, apart = Interval(0.55, 0.5, 0.6), Interval(0.99, 0.98, 1.0)
    encoders = ("logmel", "internal", "decoder", "refusal", "influence")
    none, data, harm = (
        [obstacle_of(encoder, RecordingCheck(*sides)) is None for encoder in encoders]
        for sides in ((alike, alike), (apart, alike), (alike, apart))
    )
    assert (all(none), any(data)) == (True, False)
    assert harm == [False, False, False, True, True]  # measured on each clip by itself


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, ...]]]:
    """Rehearsals that take 2 nats by training on the data and 1 by ordinary samples -> ids of each training."""
    trained: dict[str, list[tuple[int, ...]]] = {}

    def rehearse(self: RehearsalStage, ids: Sequence[str], seed: int) -> Rehearsal:
        trained.setdefault(self.pool.ref, []).append((seed, *map(int, ids)))
        n = len(self.reference.samples)
        rng, loss = np.random.default_rng(seed), 2.0 if "data" in self.pool.ref else 1.0
        loss *= self.recipe.learning_rate / LEARNING_RATE
        before, names = rng.standard_normal(n), tuple(sample.cluster for sample in self.reference.samples)
        return Rehearsal(self.steps, tuple(before), tuple(before - loss - 0.1 * rng.standard_normal(n)), names)

    monkeypatch.setattr(RehearsalStage, "rehearse", rehearse)
    return trained


def test_a_rehearsal_that_takes_more_than_ordinary_data_is_more(check: Check, rehearsed, tmp_path: Path) -> None:
    lines: list[str] = []
    result = check(rehearse=2, out=tmp_path / "out", progress=lines.append)
    assert (
        f"Rehearsal: 6 trainings of 2 steps by {MODEL} on 16 samples each, and 24 harmful requests after each." in lines
    )
    found = result.rehearsal
    assert (found.seeds, found.samples, found.prompts, found.shows_more) == (3, 16, 24, True)
    assert found.loss_minus_ordinary.value == pytest.approx(1, abs=0.1)
    assert result.exit_code == 1
    assert (
        "from the refusal margin of harmful requests, more than as many ordinary samples, which take" in result.sentence
    )
    written = json.loads((tmp_path / "out" / "check.json").read_text())
    assert written["rehearsal"]["loss_minus_ordinary"]["value"] == found.loss_minus_ordinary.value
    assert written["rehearsal"]["shows_more"] is True
    assert [axis["name"] for axis in written["axes"]] == ["words"]  # no other axis was asked for
    draws = {ref: {ids[1:] for ids in runs} for ref, runs in rehearsed.items()}
    assert [len(sets) for sets in draws.values()] == [3, 3]  # another draw for each seed
    assert check(rehearse=2).rehearsal == found  # looked up
    faster = check(rehearse=2, rehearse_learning_rate=4e-3).rehearsal
    assert (faster.learning_rate, found.learning_rate) == (4e-3, 5e-4)
    assert faster.loss.value == pytest.approx(8 * found.loss.value, rel=0.1)


def test_a_plan_prices_the_rehearsal_of_a_check(check: Check, written, tmp_path: Path, monkeypatch) -> None:
    def rehearse(*arguments: Any) -> Rehearsal:
        names = tuple(sample.cluster for sample in arguments[2])
        return Rehearsal(2, (1.0,) * 24, (0.5,) * 24, names, rehearsal.RehearsalSeconds(training=4.0, measuring=2.4))

    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    monkeypatch.setattr(rehearsal, "reference_margins", lambda *_: [1.0] * 24)
    options = {"rehearse": 2, "rehearse_seeds": 1}
    before = plan_check(request(written, tmp_path, **options))
    assert (before.trainings, before.missing, before.seconds) == (2, 2, None)
    lines: list[str] = []
    check(**options, cache=False, progress=lines.append)
    assert "Rehearsed ordinary, seed 0: 2 of 2." in lines
    assert plan_check(request(written, tmp_path, **options)).missing == 0
    after = plan_check(request(written, tmp_path, **{**options, "rehearse_seeds": 3}))
    assert (after.trainings, after.missing) == (6, 4)
    assert after.seconds == pytest.approx(4 * (4.0 + 2.4))
    assert after.lines[2].startswith("Cost: about 26 s on cpu, as 2 rehearsals in the store took.")
    with pytest.raises(UndersongError, match="--plan says what a rehearsal costs; add --rehearse STEPS"):
        plan_check(request(written, tmp_path))


@pytest.mark.parametrize("model", ["nobody/nothing", "/no/such/model"])
def test_a_plan_refuses_a_wrong_model_as_the_check_does(check: Check, written, tmp_path: Path, model: str) -> None:
    with pytest.raises(UndersongError) as refused:
        check(rehearse=2, model=model)
    with pytest.raises(UndersongError) as planned:
        plan_check(request(written, tmp_path, rehearse=2, model=model))
    assert str(planned.value) == str(refused.value)


def test_steps_within_the_warm_up_are_said(check: Check, rehearsed) -> None:
    note = "Warm-up lasts 5 steps, so 5 steps hardly teach anything; rehearse more."
    assert note in check(rehearse=5).notes
    assert not any("Warm-up" in line for line in check(rehearse=6).notes)


def test_harmful_requests_without_answers_are_said_before_anything_is_measured(
    check: Check, written, tmp_path: Path
) -> None:
    samples = open_corpus(str(written["harm"])).samples
    harm = tmp_path / "harm.parquet"
    write_manifest([replace(samples[0], answer=None, answers=()), *samples[1:]], harm)
    with pytest.raises(
        UndersongError, match=r"1 of 24 harmful requests of .* has no compliant answer, the first: .*; a rehearsal"
    ):
        check(rehearse=8, harm=str(harm))
    with pytest.raises(UndersongError, match=r"64 of 64 harmful requests of shipped:harm have no compliant answer"):
        check(rehearse=8, harm="shipped:harm")
    assert not (tmp_path / "store").exists()


def test_a_harmful_request_may_have_a_list_of_answers_alone(check: Check, written, rehearsed, tmp_path: Path) -> None:
    samples = open_corpus(str(written["harm"])).samples
    harm = tmp_path / "harm.parquet"
    write_manifest([replace(sample, answer=None, answers=(sample.answer or "", "or so")) for sample in samples], harm)
    assert check(rehearse=8, harm=str(harm)).rehearsal is not None
    harmful = CheckInputs(request(written, tmp_path, harm=str(harm))).references[0]
    assert {sample.accepted_answers[1] for sample in harmful.samples} == {"or so"}


def test_one_seed_shows_nothing_and_ordinary_data_without_replies_are_said(
    check: Check, written, rehearsed, tmp_path: Path
) -> None:
    one = check(rehearse=2, rehearse_seeds=1)
    assert (one.rehearsal.shows_more, one.exit_code) == (False, 3)
    assert "not shown to be more than as many ordinary samples" in one.sentence
    silent = tmp_path / "ordinary.parquet"
    samples = open_corpus(str(written["ordinary"])).samples
    write_manifest([replace(sample, answer=None) for sample in samples], silent)
    alone = check(rehearse=2, ordinary=str(silent))
    assert (alone.rehearsal.ordinary_loss, alone.rehearsal.shows_more, alone.exit_code) == (None, False, 3)
    assert (
        "The ordinary requests have no replies to train on, so nothing says what ordinary data take." in alone.sentence
    )
    with pytest.raises(UndersongError, match="has 0 samples with a reply that the model can be trained on"):
        check("silent", rehearse=2)
