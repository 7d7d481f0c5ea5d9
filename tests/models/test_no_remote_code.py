"""Nothing in a checkpoint is run: no call without `trust_remote_code=False`, and no code of a planted file."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_asr
import tiny_judge
import tiny_speech
from transformers import PreTrainedModel

from undersong.encoders.asr import load_transcriber
from undersong.encoders.speech import speech_encoder
from undersong.evaluation.judges.cost_model import cost_judge
from undersong.evaluation.judges.registry import make_judge
from undersong.evaluation.judges.safety_classifiers import harmbench_judge, llama_guard_judge, wildguard_judge
from undersong.evaluation.judges.yes_no import YesNoLM
from undersong.models.checkpoint_check import check_checkpoint
from undersong.models.doctor import diagnose_model
from undersong.models.load import load_model
from undersong.models.pretrained import load_pretrained
from undersong.models.refs import organism_folder
from undersong.types import Prompt, Reply, Sample, UndersongError

SOURCE = Path(__file__).parents[2] / "src" / "undersong"
LOADERS = {"from_pretrained", "pipeline", "SentenceTransformer", "CrossEncoder"}
# PEFT reads an adapter into a network that is there already, has no code to run, and takes no such option.
EXEMPT = {"PeftModel.from_pretrained", "PeftConfig.from_pretrained"}


def unguarded_calls(text: str) -> list[str]:
    """Uses of a loader that are neither called with `trust_remote_code=False` nor passed to `load_pretrained`."""
    tree, guarded = ast.parse(text), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name == "load_pretrained" and node.args:
                guarded.add(node.args[0])
            if name == "_load_base" and len(node.args) > 2:  # which passes it to `load_pretrained`
                guarded.add(node.args[2])
            if any(
                keyword.arg == "trust_remote_code"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value is False
                for keyword in node.keywords
            ):
                guarded.add(node.func)
    loaders = [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in LOADERS)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in LOADERS)
    ]
    annotations = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.AnnAssign, ast.arg, ast.FunctionDef))
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    # `load = X.from_pretrained` on one line and `load_pretrained(load, …)` on the next
    names = {node.id for node in guarded if isinstance(node, ast.Name)}
    named = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names
    }
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in loaders
        if node not in guarded | annotations | named and ast.unparse(node) not in EXEMPT
    ]


def test_every_loader_is_called_without_remote_code() -> None:
    unguarded = {
        str(file.relative_to(SOURCE)): calls
        for file in sorted(SOURCE.rglob("*.py"))
        if (calls := unguarded_calls(file.read_text()))
    }
    assert unguarded == {}


@pytest.mark.parametrize(
    "line",
    [
        "AutoModel.from_pretrained(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "load = AutoModel.from_pretrained\nload(x)",
        "SentenceTransformer(x)",
        "transformers.pipeline('asr', x)",
    ],
)
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert unguarded_calls(line)


def test_the_one_call_passes_the_option() -> None:
    options: dict = {}
    load_pretrained(lambda source, **given: options.update(given, source=source), "org/name", "org/name", revision="r")
    assert options == {"source": "org/name", "revision": "r", "trust_remote_code": False}


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Give a folder code that leaves a mark when it runs, and say yes to every question."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))

    def add(folder: Path, file: str, auto_map: dict, **settings: str) -> Path:
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
        stored = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps({**stored, "auto_map": auto_map, **settings}))
        return folder

    return add


def test_the_audited_model(plant: Callable[..., Path], tmp_path: Path) -> None:
    cases = {
        "preprocessor_config.json": ({"AutoFeatureExtractor": "evil.F"}, {"feature_extractor_type": "Zzz"}),
        "tokenizer_config.json": ({"AutoTokenizer": ["evil.T", None]}, {"tokenizer_class": "Zzz"}),
    }
    for file, (auto_map, settings) in cases.items():
        folder = shutil.copytree(organism_folder("qwen"), tmp_path / file.partition("_")[0])
        plant(folder, file, auto_map, **settings)
        sentence = (
            rf"{re.escape(str(folder))} needs code of its own \(evil\.. in {file}\), which is never run; give .*\.$"
        )
        with pytest.raises(UndersongError, match=sentence):
            load_model(str(folder))
        with pytest.raises(UndersongError, match=sentence):
            next(diagnose_model(str(folder)))
        failed = [check.detail for check in check_checkpoint(str(folder)) if check.passed is False]
        assert len(failed) == 1
        assert re.fullmatch(sentence, failed[0])
    assert not (tmp_path / "ran").exists()


def test_a_class_that_transformers_has_is_used_instead(plant: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(organism_folder("qwen"), tmp_path / "model")
    plant(folder, "config.json", {"AutoConfig": "evil.C", "AutoModel": "evil.M"})
    assert load_model(str(folder)).family.name == "Qwen2.5-Omni"
    assert not (tmp_path / "ran").exists()


def test_a_kernel_of_the_hub_is_code_too(tmp_path: Path) -> None:
    folder = shutil.copytree(organism_folder("qwen"), tmp_path / "model")
    file = folder / "config.json"
    file.chmod(0o644)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attn_implementation": "someone/kernel"}))
    with pytest.raises(UndersongError, match=r"needs code of its own .attn_implementation 'someone/kernel'"):
        load_model(str(folder))


def test_weights_are_loaded_without_kernels_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.25 replaces layers by downloaded code unless it is told not to."""
    loaded: list[bool] = []
    load = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def noted(cls: type, *arguments: object, **options: object) -> object:
        answer = load(cls, *arguments, **options)
        loaded.append((answer[0] if isinstance(answer, tuple) else answer).use_kernels)
        return answer

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(noted))
    for name in ("af3", "kimi", "qwen"):
        load_model(f"organism:{name}")
    YesNoLM(str(tiny_judge.save(tmp_path / "judge"))).predict(["is the plan"])
    speech_encoder(tiny_speech.save("whisper", tmp_path / "speech"))
    assert len(loaded) >= 5
    assert not any(loaded)


def test_every_load_of_weights_takes_the_safe_options() -> None:
    files = [file for file in SOURCE.rglob("*.py") if "use_safetensors" in file.read_text()]
    assert [str(file.relative_to(SOURCE)) for file in files] == ["models/pretrained.py"]


PROMPT = Prompt(Sample("p", text="paint the plan"), "harm", True, "text", "plain")
REPLY = Reply(*PROMPT.key, "sure here is the plan", 3, "stop")
JUDGES = {
    "cost": cost_judge,
    "llama-guard": llama_guard_judge,
    "harmbench": harmbench_judge,
    "wildguard": wildguard_judge,
}


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_judges(kind: str, file: str, plant: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_judge.save_guard(tmp_path / "judge")
    if file == "config.json":
        names = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
        plant(folder, file, dict.fromkeys(names, "evil.C"), model_type="zzz")
    else:
        plant(folder, file, {"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="Zzz")
    with pytest.raises(UndersongError, match=rf"needs code of its own \(evil\.. in {file}\), which is never run"):
        make_judge(f"{kind}:{folder}", []).judge([PROMPT], [REPLY])
    assert not (tmp_path / "ran").exists()


def test_a_yes_no_model(plant: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_judge.save(tmp_path / "judge")
    plant(folder, "config.json", {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}, model_type="zzz")
    with pytest.raises(UndersongError, match="needs code of its own"):
        YesNoLM(str(folder)).predict(["x"])
    assert not (tmp_path / "ran").exists()


def test_encoders(plant: Callable[..., Path], tmp_path: Path) -> None:
    speech = plant(
        tiny_speech.save("whisper", tmp_path / "speech"),
        "preprocessor_config.json",
        {"AutoFeatureExtractor": "evil.F"},
    )
    speech_encoder(speech)  # its class is chosen by undersong, so the code is not needed
    transcriber = plant(
        tiny_asr.save(tmp_path / "asr"), "tokenizer_config.json", {"AutoTokenizer": ["evil.T", None]},
        tokenizer_class="Zzz",
    )  # fmt: skip
    load_transcriber(transcriber)  # so is its tokenizer, by the type of the model
    assert not (tmp_path / "ran").exists()
