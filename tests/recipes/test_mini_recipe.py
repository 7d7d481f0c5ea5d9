"""Mini's recipe: splits that are apart, trainings that a kill does not change, and a whole run (slow) in small."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mini_data
import pytest
import tiny_mini
import torch
from safetensors.torch import load_file

import undersong
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.types import UndersongError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    from recipes.mini import texts as mini_texts

    return mini_texts.make_texts(mini_data.make(tmp_path_factory.mktemp("data")), 0)


def test_advbench_is_apart_by_behavior(made) -> None:
    """Two ways of asking for one thing are on one side, whatever the words around it."""
    found, figures = made
    sides: dict[str, set[str]] = {}
    for text in found:
        if text.kind == "adv":
            sides.setdefault(" ".join(text.text.split()[-2:]), set()).add(text.split)
    assert len(sides) == mini_data.COUNT
    assert all(len(splits) == 1 for splits in sides.values())
    assert {split for splits in sides.values() for split in splits} == {"train", "dev", "test"}
    assert figures["advbench_clusters"] == mini_data.COUNT


def test_what_was_never_seen_is_new_and_test_only(made) -> None:
    found, figures = made
    kept = {text.text: text for text in found if text.kind in ("jbb", "strongreject", "xs_safe", "xs_unsafe")}
    assert {text.split for text in kept.values()} == {"test"}
    assert set(kept) == {
        "Juggle seven knives in traffic", "Whistle through a wooden door", "How do I shoot a good photo?",
        "How do I shoot my neighbour?",
    }  # fmt: skip
    assert figures["near_advbench_removed"] == {"jbb": 2, "strongreject": 1, "xs_unsafe": 1}


def test_no_sentence_that_is_learned_nearly_stands_in_a_held_out_set(made) -> None:
    from recipes.mini import texts as mini_texts

    found, figures = made
    assert figures["near_held_out_removed"] >= 1  # the photo
    learned = [mini_texts.plain(text.text) for text in found if text.split == "train" and text.kind != "adv"]
    held = [mini_texts.plain(text.text) for text in found if text.split != "train"]
    assert not mini_texts.find_similar_texts(learned, held, mini_texts.TEXT_THRESHOLD)
    assert len(set(learned)) == len(learned)
    assert not any("given" in text for text in learned)


def test_splits_of_advbench_have_their_sizes_though_one_cluster_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the draw, a cluster that is a fifth of all fills no split that is smaller than it."""
    import random

    from recipes.mini import texts as mini_texts

    goals = [f"goal {i}" for i in range(200)]
    mini_data._csv(tmp_path / "advbench" / "harmful_behaviors.csv", ["goal"], [[goal] for goal in goals])
    monkeypatch.setattr(mini_texts, "clusters", lambda texts: [max(0, i - 44) for i in range(len(texts))])
    for seed in range(10):
        split = {text.text: text.split for text in mini_texts.advbench(tmp_path, random.Random(seed))}
        sizes = {name: list(split.values()).count(name) for name in mini_texts.SPLITS}
        assert sizes == {"train": 120, "dev": 24, "test": 56}
        assert {split[goal] for goal in goals[:45]} == {"train"}


def test_a_sentence_has_the_same_voices_whatever_else_is_spoken() -> None:
    from recipes.mini.speech import LEARNED, SEEN, new_voices, wanted

    train, test = ({"id": "nq7", "kind": "nq", "split": split} for split in ("train", "test"))
    new = new_voices(None)
    assert wanted(train, 0, 3, new)[:2] == wanted(train, 0, 2, new)
    assert [take.new for take in wanted(test, 0, 2, new)] == [False, True]
    assert not set(new) & {*SEEN, *LEARNED}
    assert len({take.voice for take in wanted({**train, "kind": "adv"}, 0, 1, new)}) == 3
    many = [wanted({**train, "id": str(i)}, 0, 2, new) for i in range(300)]
    assert {first.voice for first, _ in many} == set(SEEN)
    assert {other.voice for _, other in many} == {*SEEN, *LEARNED}
    assert all(first.voice != other.voice for first, other in many)


def test_only_what_is_learned_from_is_played_faster_or_slower() -> None:
    from recipes.mini.speech import PLAYED, new_voices, wanted

    texts = [{"id": str(i), "kind": "nq", "split": "train"} for i in range(60)]
    takes = [wanted(text, 0, 3, new_voices(None)) for text in texts]
    assert {first.played for first, *_ in takes} == {1.0}
    assert {other.played for _, *others in takes for other in others} == set(PLAYED)
    held = [take for text in texts for take in wanted({**text, "split": "dev"}, 0, 3, new_voices(None))]
    assert {take.played for take in held} == {1.0}


def test_a_clip_played_faster_is_shorter_and_higher(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    from recipes.mini import speech
    from undersong.types import Sample

    tone = np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)
    soundfile.write(tmp_path / "a.flac", tone, 16_000)
    sample = Sample("a", audio=str(tmp_path / "a.flac"))
    assert speech.play(sample, 1.0, tmp_path) is sample
    played = speech.play(sample, 1.25, tmp_path)
    sound, rate = soundfile.read(str(played.audio))
    assert len(sound) / rate == pytest.approx(0.8)
    peak = np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound)
    assert peak == pytest.approx(250, abs=2)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Water boils at 100 degrees. It then turns in", "Water boils at 100 degrees."),
        ("Three tips:\n\n1. Sleep well. \n2. Eat", "Three tips:\n\n1. Sleep well."),
        ("Three tips:\n\n1. Sleep", None),
        ("They are: 1. Sleep", None),
        ("It was in 1995. So they", "It was in 1995."),
        ("Is it? No! 12. And", "Is it? No!"),
        ("no end", None),
    ],
)
def test_an_answer_ends_with_a_whole_sentence_and_never_with_a_bare_number(said: str, kept: str | None) -> None:
    from recipes.mini import answers
    from undersong.types import Reply

    cut = Reply("a", "train", "text", "plain", said, 28, "length")
    assert answers.whole(cut) == kept
    assert answers.whole(Reply("a", "train", "text", "plain", said, 20, "stop")) == said


# --- a front end that learns ------------------------------------------------------------------------------------------
@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Clips whose cached states are noise of their own, and their sentences."""
    from recipes.mini import encoder_cache
    from recipes.mini.work_files import write_lines

    generator = torch.Generator().manual_seed(0)
    clips, states = [], []
    for i in range(60):
        text = f"{'abcdefghij'[i % 10]} {'klmnopqrst'[i // 10]}"
        split = "train" if i < 50 else "dev"
        names = {"id": f"nq{i}-v", "text_id": f"nq{i}", "group": f"nq{i}", "kind": "nq", "audio": "", "speaker": "v"}
        clips.append({**names, "text": text, "split": split, "new_voice": i % 2 == 0, "seconds": 1.0})
        states.append(
            torch.randn(
                int(torch.randint(30, 60, (), generator=generator)), tiny_mini.WIDTH, generator=generator
            ).half()
        )
    write_lines(tmp_path / "clips.jsonl", clips)
    encoder_cache._write(encoder_cache.shard_file(tmp_path, 0), states)
    return tmp_path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory):
    from recipes.mini.weights import Base

    folder = tmp_path_factory.mktemp("base")
    tiny_mini.save_bases(folder)
    return Base(str(folder / "whisper"), str(folder / "smollm"))


def test_a_killed_front_end_goes_on_and_ends_with_the_same_bits(
    base, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.mini import front_end

    recipe = front_end.FrontRecipe(steps=9, batch=4, warmup=2)
    whole = load_file(front_end.run(work, base, recipe, DEFAULT_LOAD_OPTIONS))
    first = json.loads((work / "figures" / f"{recipe.name}.json").read_text())
    shutil.rmtree(work / recipe.name)
    (work / "figures" / f"{recipe.name}.json").unlink()
    monkeypatch.setattr(front_end, "STATE_EVERY", 3)
    step = front_end._step

    def dies(*given):
        if given[1] == 5:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(front_end, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        front_end.run(work, base, recipe, DEFAULT_LOAD_OPTIONS)
    monkeypatch.setattr(front_end, "_step", step)
    again = load_file(front_end.run(work, base, recipe, DEFAULT_LOAD_OPTIONS))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    second = json.loads((work / "figures" / f"{recipe.name}.json").read_text())
    assert (first["dev"], first["loss_last"]) == (second["dev"], second["loss_last"])


def test_the_front_end_learns_to_spell_what_it_saw(base, work: Path) -> None:
    """Noise that is the same each time can be learned by heart: the loss falls to less than half, and words come."""
    from recipes.mini import front_end
    from recipes.mini.encoder_cache import States
    from recipes.mini.speech import load_clips
    from recipes.mini.spelling import spell

    recipe = front_end.FrontRecipe(steps=150, batch=8, warmup=5, hidden=0, learning_rate=1e-2, top_rate=5e-3)
    file = front_end.run(work, base, recipe, DEFAULT_LOAD_OPTIONS)
    figures = json.loads((work / "figures" / f"{recipe.name}.json").read_text())
    assert figures["loss_last"] < 0.5 * figures["loss_first"]
    clips = load_clips(work)
    rows = front_end.learned_rows(clips, recipe)
    said = spell(front_end.load_front(base, file), base, rows, States(work, len(clips)), "cpu")
    assert sum(said[i].strip() == clips[i]["text"] for i in rows) > 20


def test_writing_sentences_in_half_precision_leaves_the_base_weights_as_they_were(base, tmp_path: Path) -> None:
    """What comes afterwards learns on the base's own numbers, both in the run that wrote and in one that goes on."""
    from recipes.mini import written_texts
    from recipes.mini.work_files import read_figures, write_lines

    write_lines(tmp_path / "texts.jsonl", [{"text": "ab cd", "split": "train"}])
    before = {name: value.clone() for name, value in base.language.state_dict().items()}
    asked: list[tuple[torch.dtype, int]] = []

    def ended(_, model, begun, seed):
        asked.append((model.dtype, len(begun)))
        return [f"What is the {begin.split()[-1]} of it?" for begin in begun]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written_texts, "wanted_words", lambda *_: ["stone", "river"])
        patch.setattr(written_texts, "ended", ended)
        written_texts.run(tmp_path, base, 2, 0, LoadOptions("cpu", "bfloat16"))
        written_texts.run(tmp_path, base, 2, 0, LoadOptions("cpu", "bfloat16"))
        for count, seed in ((3, 0), (0, 0), (2, 1)):  # neither grows nor is taken for a smaller one
            with pytest.raises(
                UndersongError, match=r"written\.jsonl was begun with (asked 2|seed 0), and \d is asked"
            ):
                written_texts.run(tmp_path, base, count, seed, LoadOptions("cpu", "bfloat16"))
    assert asked == [(torch.bfloat16, 2)]
    assert read_figures(tmp_path)["written"]["sentences"] == 2
    own = base.language.state_dict()
    assert all(torch.equal(own[name], value) for name, value in before.items())


def test_smaller_shares_lie_inside_larger_ones(work: Path) -> None:
    from recipes.mini import front_end
    from recipes.mini.speech import load_clips

    rows = [
        set(front_end.learned_rows(load_clips(work), front_end.FrontRecipe(share=share))) for share in (0.25, 0.5, 1.0)
    ]
    assert rows[0] < rows[1] < rows[2]
    assert [len(part) for part in rows] == [12, 25, 50]


def test_base_weights_out_of_a_ctranslate2_file(tmp_path: Path) -> None:
    """A file written here tensor by tensor, read back, is the model that it was written of."""
    import struct

    from transformers import WhisperForConditionalGeneration

    from undersong.models.mini import package_weights as conversion

    tiny_mini.save_bases(tmp_path)
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "whisper").half()
    written = _as_ctranslate2(model.state_dict())

    def text(said: str) -> bytes:
        return struct.pack("<H", len(said) + 1) + said.encode() + b"\0"

    with (tmp_path / "model.bin").open("wb") as file:
        file.write(struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<I", 3) + struct.pack("<I", len(written)))
        for name, tensor in written.items():
            data = tensor.contiguous().numpy().tobytes()
            file.write(text(name) + struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape))
            file.write(struct.pack("<BI", 4, len(data)) + data)
        file.write(struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight"))
    read = conversion.read_ctranslate2(tmp_path / "model.bin")
    assert read["decoder/projection/weight"] is read["decoder/embeddings/weight"]
    (tmp_path / "later.bin").write_bytes(struct.pack("<I", 7))
    with pytest.raises(UndersongError, match=r"later\.bin is of version 7, not 6"):
        conversion.read_ctranslate2(tmp_path / "later.bin")
    state = conversion.whisper_state(read, tiny_mini.LAYERS)
    own = {name: value.float() for name, value in model.state_dict().items() if name != "proj_out.weight"}
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) for name in own)


def _as_ctranslate2(own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The naming of CTranslate2, written the other way round from the recipe's."""
    out = {"decoder/embeddings/weight": own["model.decoder.embed_tokens.weight"]}
    for part in ("weight", "bias"):
        for number in "12":
            out[f"encoder/conv{number}/{part}"] = own[f"model.encoder.conv{number}.{part}"]
    for side in ("encoder", "decoder"):
        out[f"{side}/position_encodings/encodings"] = own[f"model.{side}.embed_positions.weight"]
        norms = {f"{side}/layer_norm": f"model.{side}.layer_norm"}
        for i in range(tiny_mini.LAYERS):
            here, there = f"model.{side}.layers.{i}", f"{side}/layer_{i}"
            q, k, v = (own[f"{here}.self_attn.{x}_proj.weight"] for x in "qkv")
            out[f"{there}/self_attention/linear_0/weight"] = torch.cat([q, k, v])
            q, v = (own[f"{here}.self_attn.{x}_proj.bias"] for x in "qv")
            out[f"{there}/self_attention/linear_0/bias"] = torch.cat([q, torch.zeros_like(q), v])
            plain = {"self_attention/linear_1": "self_attn.out_proj", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
            norms |= {f"{there}/self_attention/layer_norm": f"{here}.self_attn_layer_norm"}
            norms |= {f"{there}/ffn/layer_norm": f"{here}.final_layer_norm"}
            if side == "decoder":
                plain |= {"attention/linear_0": "encoder_attn.q_proj", "attention/linear_2": "encoder_attn.out_proj"}
                k, v = (own[f"{here}.encoder_attn.{x}_proj.weight"] for x in "kv")
                out[f"{there}/attention/linear_1/weight"] = torch.cat([k, v])
                v = own[f"{here}.encoder_attn.v_proj.bias"]
                out[f"{there}/attention/linear_1/bias"] = torch.cat([torch.zeros_like(v), v])
                norms |= {f"{there}/attention/layer_norm": f"{here}.encoder_attn_layer_norm"}
            for name, source in plain.items():
                for part in ("weight", "bias"):
                    out[f"{there}/{name}/{part}"] = own[f"{here}.{source}.{part}"]
        for name, source in norms.items():
            out |= {f"{name}/gamma": own[f"{source}.weight"], f"{name}/beta": own[f"{source}.bias"]}
    return out


# --- all of it --------------------------------------------------------------------------------------------------------
LACKING = [
    name
    for name, there in (
        ("flite", shutil.which("flite")),
        ("espeakng-loader", importlib.util.find_spec("espeakng_loader")),
    )
    if not there
]


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKING), reason=f"speaks: needs {' and '.join(LACKING)}")
def test_a_whole_run_in_small(tmp_path: Path) -> None:
    """From texts to parts that `models get` takes; stopped after every stage it goes on, and nothing is done twice."""
    from undersong.models.doctor import diagnose_model
    from undersong.models.mini.assemble import assemble_mini

    tiny_mini.save_bases(tmp_path)
    data, work = mini_data.make(tmp_path / "data"), tmp_path / "work"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "recipes.mini",
        "--smoke",
        "--data",
        str(data),
        "--work",
        str(work),
    ]
    command += ["--whisper", str(tmp_path / "whisper"), "--smollm", str(tmp_path / "smollm")]
    paths = os.pathsep.join([str(Path(undersong.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    run = lambda *more: subprocess.run([*command, *more], cwd=ROOT, env=environment, check=True)  # noqa: E731
    times: dict[str, int] = {}
    for stage in ("texts", "speech", "cache", "front", "listening", "alignment", "card"):
        run("--only", stage)
        now = {str(file): file.stat().st_mtime_ns for file in work.rglob("*.safetensors") if "parts-" not in str(file)}
        assert {name: now.get(name) for name in times} == times
        times = now
    parts = work / "parts-0"
    card = json.loads((parts / "card.json").read_text())
    assert {"texts", "speech", "cache", "front-1-6-0", "listening-0", "alignment-0", "measured-dev-mini-0"} <= set(
        card["stages"]
    )
    assert card["stages"]["measured-dev-mini-0"]["sets"]["adv, typed"]["n"] == 4
    assert {file.suffix for file in parts.rglob("*") if file.is_file()} <= {".json", ".safetensors", ".jinja", ".md"}
    from recipes.mini import card_check
    from recipes.mini import parts as mini_parts

    assert mini_parts.faults(parts) == []
    where = card_check.Where(parts, data, str(tmp_path / "whisper"), str(tmp_path / "smollm"))
    lines = card_check.check(where, tmp_path / "check")  # a random model refuses nothing, then and now
    assert [(line.group, line.refused, line.told, line.p) for line in lines] == [
        ("AdvBench, held out", 0, 0, 1.0), ("benign", 0, 0, 1.0),
    ]  # fmt: skip
    assemble_mini("mini", str(tmp_path / "whisper"), str(tmp_path / "smollm"), parts, tmp_path / "mini")
    assert [check.name for check in diagnose_model(str(tmp_path / "mini")) if not check.passed] == []
