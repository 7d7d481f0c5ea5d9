"""`undersong verify`: the doctor, the published way of asking, and the published figure; on tiny instances."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import instances
import pytest
from results_factory import make_rate

from undersong.cli import main
from undersong.corpora.registry import open_corpus
from undersong.evaluation.rates import VerdictRate
from undersong.evaluation.replies import read_replies
from undersong.research import verify
from undersong.research.verify import pretrained_rates
from undersong.types import UndersongError


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    """Three spoken requests."""
    from undersong.corpora.manifest import write_manifest

    write_manifest(open_corpus("organism:unseen-harm").samples[:3], tmp_path / "spoken.parquet")
    return str(tmp_path / "spoken.parquet")


@pytest.mark.parametrize(
    ("kind", "family", "limit"),
    [
        ("audioflamingo3", "Audio Flamingo 3", 512),
        ("qwen2_5_omni", "Qwen2.5-Omni", 256),
        (instances.KIMI, "Kimi-Audio", 512),
    ],
)
def test_a_tiny_instance_stands_beside_the_published_figure(
    kind, family, limit, prompts, tmp_path, monkeypatch, capsys
) -> None:
    folder = instances.save(kind, tmp_path / "weights")
    out = tmp_path / "out"
    arguments = ["verify", str(folder), "--prompt-set", f"AdvBench={prompts}", "--judge", "keyword", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["undersong", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().out
    assert not stopped.value.code
    assert said.startswith("yes loads: ")
    line = next(line for line in said.splitlines() if line.startswith("AdvBench: "))
    assert f"of 3 prompts (judge keyword), printed {pretrained_rates(family)['AdvBench'].percent:.2f} %" in line
    assert "not to be compared: the judge there was cais/HarmBench" in line
    assert "there were 520 prompts there" in line
    asked = json.loads((out / "AdvBench" / "provenance.json").read_text())["config"]
    assert asked["max_new_tokens"] == limit
    assert asked["instruction_first"] == (family == "Kimi-Audio")
    assert asked["system_prompt"] is None
    assert asked["instruction"]
    assert max(reply.tokens for reply in read_replies(out / "AdvBench" / "replies.parquet")) <= limit


def test_the_full_set_and_the_published_judge_are_compared() -> None:
    printed = pretrained_rates("Kimi-Audio")["AdvBench"]
    entry = VerdictRate.model_validate(make_rate(25 / 520, n=520, low=0.032, high=0.07))
    assert verify.compare_with_published(entry, printed, "harmbench").endswith(
        "printed 4.62 %; it lies inside our interval."
    )
    assert "outside" in verify.compare_with_published(entry.model_copy(update={"low": 0.047}), printed, "harmbench")


@pytest.mark.parametrize(
    ("model", "sets", "said"),
    [
        ("mistralai/Voxtral-Mini-3B-2507", {}, "has no Voxtral"),
        ("Qwen/Qwen2.5-Omni-7B", {"HarmBench": "x"}, "name AdvBench or SafetyBench"),
    ],
)
def test_what_was_never_published_is_refused_before_weights_are_read(model, sets, said) -> None:
    with pytest.raises(UndersongError, match=said):
        verify.check_published(model, sets)
