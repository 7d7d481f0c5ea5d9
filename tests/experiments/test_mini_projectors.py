"""The plain projector's experiment: what it regresses on, what its loss is, and that all ways share one budget."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_mini
import torch
from safetensors.torch import load_file, save_file

from undersong.models.families import MINI
from undersong.models.lora import new_lora
from undersong.models.mini import assemble
from undersong.models.mini.network import AF3, CTC

KINDS = ("nq", "alpaca")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A work folder whose front stage is done: noise for states, and a random front end that is sure of itself."""
    from recipes.mini import encoder_cache
    from recipes.mini.weights import Base, save_front
    from recipes.mini.work_files import write_lines

    work = tmp_path_factory.mktemp("plain")
    generator = torch.Generator().manual_seed(0)
    clips, states = [], []
    for i in range(64):
        text, split, kind = f"{'abcdefgh'[i % 8]} {'klmnopqr'[i // 8]}", "train" if i < 56 else "dev", KINDS[i % 2]
        names = {"id": f"{kind}{i}-v", "text_id": f"{kind}{i}", "group": f"{kind}{i}", "kind": kind, "audio": ""}
        clips.append({**names, "text": text, "split": split, "new_voice": False, "seconds": 1.0, "speaker": "v"})
        length = int(torch.randint(30, 60, (), generator=generator))
        states.append(torch.randn(length, tiny_mini.WIDTH, generator=generator).half())
    write_lines(work / "clips.jsonl", clips)
    write_lines(work / "texts.jsonl", [{"id": c["text_id"], "text": c["text"], "split": c["split"]} for c in clips])
    encoder_cache._write(encoder_cache.shard_file(work, 0), states)
    whisper, smollm = map(str, tiny_mini.save_bases(work / "base"))
    base, front = Base(whisper, smollm), work / "front-tiny" / assemble.FRONT_END_FILE
    torch.manual_seed(1)
    network = base.network(torch.arange(10, 60))
    projector = network.model.multi_modal_projector
    for part in projector.parameters():
        part.data.normal_(0, 0.3)
    projector.log_sharpness.data.fill_(1.0)
    save_front(network, front)
    ways = ["read", "distilled", "distilled-learned", "spelling-learned"]
    asked = SimpleNamespace(whisper=whisper, smollm=smollm, device="cpu", dtype="float32", ways=ways)
    return SimpleNamespace(
        work=work, base=base, front=front, asked=asked, states=encoder_cache.States(work, len(clips))
    )


def run(place: SimpleNamespace) -> dict[str, Any]:
    from experiments.mini.distillation import DistilRecipe
    from experiments.mini.joint_training import JointRecipe
    from experiments.mini.projectors import run as whole

    recipe = JointRecipe(steps=3, batch=4, warmup=1)
    return whole(place.work, place.base, place.front, place.asked, recipe, DistilRecipe(steps=6, batch=8), 3)


@pytest.fixture(scope="module")
def done(place: SimpleNamespace) -> dict[str, Any]:
    return run(place)


def test_the_regression_comes_nearer_to_what_is_read(place: SimpleNamespace, tmp_path: Path) -> None:
    """Its beginning is the best last layer, no other on the same features is nearer; training goes on from there."""
    from experiments.mini.distillation import DistilRecipe, distance, distil, heard_frames, plain_front
    from recipes.mini.weights import load_front

    rows = list(range(56))
    recipe = DistilRecipe(steps=40, batch=16, learning_rate=3e-3)
    found = distil(place.base, place.front, rows, rows, place.states, recipe, tmp_path / "plain.safetensors")
    far = [found[name]["relative"] for name in ("as it spells", "last layer fitted", "regressed")]
    assert far[0] > far[1] > far[2] + 0.02
    teacher, student = load_front(place.base, place.front), load_front(place.base, tmp_path / "plain.safetensors")
    assert distance(teacher, student, rows, place.states)["relative"] == pytest.approx(far[2], abs=0.01)
    own = distance(teacher, teacher, rows, place.states)
    assert (own["relative"], own["same_token"]) == (0.0, 1.0)
    assert own["frames"] > 100
    # The oracle: least squares on the same hidden states.
    wanted = torch.cat(heard_frames(teacher, rows, place.states)).detach()
    spelling = plain_front(place.base, place.front)
    spelling.model.multi_modal_projector.linear_2 = torch.nn.Identity()
    hidden = torch.cat(heard_frames(spelling, rows, place.states)).detach()
    hidden = torch.cat([hidden, torch.ones(len(hidden), 1)], 1)
    best = hidden @ torch.linalg.lstsq(hidden.double(), wanted.double()).solution.float()
    assert far[1] == pytest.approx(float((best - wanted).square().sum() / wanted.square().sum()), abs=0.01)


def test_cached_states_make_as_many_frames_as_the_family_counts(place: SimpleNamespace) -> None:
    """Positions of the cache are the convolution's; placeholders are counted from feature frames."""
    for frames in range(1, 700):
        assert ((frames - 1) // 2 + 1) // 2 == MINI.audio_tokens(frames)


def test_the_loss_is_the_models_own(place: SimpleNamespace, done: dict[str, Any]) -> None:
    from experiments.mini.joint_training import Bench, JointRecipe, reply_loss
    from recipes.mini.weights import load_front

    recipe = JointRecipe(steps=1, batch=4)
    bench = Bench(place.work, place.work / "loss", place.base, place.front, place.asked, recipe, 3)
    prompts, targets = [prompt for prompt, _ in bench.pairs], [target for _, target in bench.pairs]
    bench.hear(load_front(place.base, place.front), prompts)
    with new_lora(bench.model, 2, 4, 0.0, None) as learner:
        batch = bench.model.batch(prompts, targets)
        torch.testing.assert_close(reply_loss(bench.model, batch), learner(**batch).loss)


def test_all_ways_are_tried_once_and_only_those_that_learn_move_their_front(
    place: SimpleNamespace, done: dict[str, Any]
) -> None:
    from recipes.mini.weights import LAYERS

    folder = place.work / "plain-front-tiny-3-0"
    assert list(done["ways"]) == place.asked.ways
    assert done["sentences"] == 6
    assert done["ways"]["read"]["wer_more_than_read"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    for name, row in done["ways"].items():
        kept = json.loads((folder / f"{name}.json").read_text())
        assert row["repeat_wer"]["value"] == pytest.approx(sum(kept["errors"]) / sum(kept["words"]), abs=1e-4)
        assert len(kept["losses"]) == 3
        assert all(0 <= right <= words for right, words in zip(kept["right"], kept["words"]))
    learned = set(range(tiny_mini.LAYERS)[-LAYERS:])
    fronts = {name: load_file(folder / name / assemble.FRONT_END_FILE) for name in place.asked.ways}
    distilled, read = load_file(folder / "distilled.safetensors"), load_file(place.front)
    for kept, begun in ((fronts["distilled"], distilled), (fronts["read"], read)):
        assert kept.keys() == begun.keys()
        assert all(torch.equal(kept[name], begun[name]) for name in kept)
    for name, begun in (("distilled-learned", distilled), ("spelling-learned", read)):
        moved = {key for key, value in fronts[name].items() if not torch.equal(value, begun[key])}
        assert any("multi_modal_projector.linear_1" in key for key in moved)
        assert {layer for layer in (0, 1) if any(f"audio_tower.layers.{layer}." in key for key in moved)} == learned
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    assert run(place)["ways"] == done["ways"]
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()} == times


def test_parts_with_the_plain_projector_make_a_model_that_hears_the_same(
    place: SimpleNamespace, done: dict[str, Any], tmp_path: Path
) -> None:
    from experiments.mini.distillation import heard_frames
    from recipes.mini.parts import write_parts
    from recipes.mini.weights import load_front
    from undersong.models.load import load_model

    way = place.work / "plain-front-tiny-3-0" / "distilled-learned"
    fronts = {AF3: way / assemble.FRONT_END_FILE, CTC: place.front}
    for projector, front in fronts.items():
        parts = write_parts(
            tmp_path / f"parts-{projector}", place.base, front, {"listening": way / "listening"}, ["mini:unaligned"]
        )
        assert assemble.read_parts_file(parts).projector == projector
    parts = tmp_path / f"parts-{AF3}"
    assemble.assemble_mini("mini:unaligned", place.asked.whisper, place.asked.smollm, parts, tmp_path / "model")
    model = load_model(str(tmp_path / "model"))
    assert type(model.base.model.multi_modal_projector).__name__ == "AudioFlamingo3MultiModalProjector"
    with torch.inference_mode():
        theirs = heard_frames(load_front(place.base, fronts[AF3]), [0, 1], place.states)
        own = heard_frames(model.base, [0, 1], place.states)
    assert all(torch.equal(a, b) for a, b in zip(own, theirs))


def test_a_model_is_put_together_anew_when_a_part_is_and_leaves_the_seeds_card_alone(
    place: SimpleNamespace, tmp_path: Path
) -> None:
    """`parts-SEED` is what was measured; a model of some of its parts, made meanwhile, is no reason to lose that."""
    from recipes.mini.parts import RAW, put_together
    from undersong.models.load_options import DEFAULT_LOAD_OPTIONS as LOADING

    card = tmp_path / "parts-0" / "card.json"
    card.parent.mkdir()
    card.write_text("{}")
    front = tmp_path / "front-tiny" / assemble.FRONT_END_FILE
    front.parent.mkdir()
    front.write_bytes(place.front.read_bytes())

    def made() -> int:
        put_together(tmp_path, RAW, place.base, front, {}, LOADING, 0)
        (folder,) = (path for path in (tmp_path / "models").iterdir() if path.is_dir())
        return (folder / "model.safetensors").stat().st_mtime_ns

    first = made()
    assert made() == first
    changed = load_file(front)
    save_file({name: -value if value.is_floating_point() else value for name, value in changed.items()}, front)
    assert made() != first
    assert card.read_text() == "{}"
