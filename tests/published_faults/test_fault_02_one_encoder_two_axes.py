"""Fault 2: "semantic" and "acoustic" were one encoder, and the table read its run noise as two axes."""

from __future__ import annotations

from results_factory import make_rate, make_run

from undersong.encoders.registry import make_encoder
from undersong.proximity.selection import select_by_kind
from undersong.proximity.selection_report import equal_selections
from undersong.proximity.table import proximity_table
from undersong.research.results.variance import run_noise_records
from undersong.results.schema import RunResult
from undersong.stages.corpus import load_corpus
from undersong.stages.training import StudyArm, train_adapter
from undersong.store.store import Artifact


def test_two_names_for_one_selection_are_flagged(benign, harmful) -> None:
    encoder = make_encoder("logmel", fit=())
    pool, harm = encoder.encode(benign), encoder.encode(harmful)
    tables = {axis: proximity_table(axis, "h", pool, harm) for axis in ("semantic", "acoustic")}
    chosen = {axis: select_by_kind(table, "closest", 0.25) for axis, table in tables.items()}
    assert equal_selections(chosen) == {"semantic": ["acoustic"], "acoustic": ["semantic"]}


def test_two_names_for_one_selection_are_one_training(benign, harmful, shop) -> None:
    """The adapter is filed under the ids: the second arm is a look-up, not a second number."""
    keys, store = [], shop.store

    class Looker:
        def get_or_make(self, stage, version, config, inputs, make, **_more):
            keys.append(store.key(stage, version, config, inputs))
            return Artifact(stage, keys[-1], store.root)

    pool = load_corpus(shop, "organism:unseen-benign")
    encoder = make_encoder("logmel", fit=())
    tables = [proximity_table(axis, "h", encoder.encode(benign), encoder.encode(harmful)) for axis in ("a", "b")]
    shop.store = Looker()
    recipe = {"save_steps": (1,), "batch_size": 2}
    for table in tables:
        chosen = select_by_kind(table, "closest", 0.25)
        arm = StudyArm("organism:af3", 0, chosen.axis, "closest", 0.25, "audio", 0, 0, chosen)
        train_adapter(shop, arm, pool, pool.artifact, recipe, None, "answer")
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_run_noise_counts_them_once() -> None:
    def run(axis: str, seed: int, jsr: float) -> RunResult:
        rate = make_rate(jsr, prompt_set="harm", modality="audio", system="plain")
        keys = {"model": "m", "train_modality": "audio", "axis": axis, "kind": "closest", "step": 9, "seed": seed}
        return RunResult.model_validate(make_run(f"{axis}/{seed}", [rate], **keys, selection_hash="x"))

    runs = [run(axis, seed, jsr) for axis in ("semantic", "acoustic") for seed, jsr in ((0, 0.28), (1, 0.31))]
    (noise,) = run_noise_records(runs, "plain", 9)
    assert (noise.groups, noise.runs, noise.df) == (1, 2, 1)
