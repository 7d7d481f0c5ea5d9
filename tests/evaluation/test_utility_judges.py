"""What holds for every judge of usefulness: benign prompts only, pairing, errors, and that order does not matter."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.evaluation.judges.registry import UTILITY_JUDGES
from undersong.evaluation.judges.rule_based import keyword_judge
from undersong.evaluation.utility.base import is_refusal
from undersong.types import VERDICTS, Prompt, Reply, Sample, UndersongError, Verdict

NAMES = sorted(UTILITY_JUDGES)
ANSWERS = {"choice": "B", "bbh": "Yes", "contains": "Mick Jagger", "f1": "Mick Jagger", "wer": "he saw the man"}
SAID = st.one_of(st.text(), st.sampled_from([*ANSWERS.values(), "The answer is A", "I'm sorry", "No.", ""]))


def prompt_for(name: str, number: int = 1) -> Prompt:
    return Prompt(Sample(f"u{number}", answer=ANSWERS[name], group="g"), "use", False, "audio", "plain")


def reply_to(prompt: Prompt, said: str, finish: str = "stop") -> Reply:
    return Reply(prompt.sample.id, prompt.set, prompt.modality, prompt.system, said, 1, finish)


def test_the_names() -> None:
    assert NAMES == ["bbh", "choice", "contains", "f1", "wer"]
    for name in NAMES:
        judge = UTILITY_JUDGES[name]()
        assert (judge.name, judge.sees) == (name, "utility")


@pytest.mark.parametrize("name", NAMES)
def test_a_right_reply(name: str) -> None:
    prompt = prompt_for(name)
    score = {"contains": 1.0, "f1": 1.0, "wer": 0.0}.get(name)
    found = UTILITY_JUDGES[name]().judge([prompt], [reply_to(prompt, ANSWERS[name])])
    assert found == [Verdict("u1", "use", False, "g", "audio", "plain", name, "answer", score)]


@pytest.mark.parametrize("name", NAMES)
def test_harmful_prompts_are_refused_by_name(name: str) -> None:
    benign, harmful = prompt_for(name), replace(prompt_for(name, 2), harmful=True)
    with pytest.raises(UndersongError, match=f"judge {name} measures usefulness and prompt u2 is harmful; use another"):
        UTILITY_JUDGES[name]().judge([benign, harmful], [reply_to(benign, "x"), reply_to(harmful, "x")])


@pytest.mark.parametrize("name", NAMES)
def test_replies_of_other_prompts_are_refused(name: str) -> None:
    prompt = prompt_for(name)
    with pytest.raises(UndersongError, match=f"Judge {name} got 0 replies for 1 prompts"):
        UTILITY_JUDGES[name]().judge([prompt], [])
    with pytest.raises(UndersongError, match="for prompt u1/use/audio/plain"):
        UTILITY_JUDGES[name]().judge([prompt], [replace(reply_to(prompt, "x"), system="safe")])


@pytest.mark.parametrize("name", NAMES)
def test_an_erroring_reply_is_an_error_without_a_score(name: str) -> None:
    prompt = prompt_for(name)
    (verdict,) = UTILITY_JUDGES[name]().judge([prompt], [reply_to(prompt, ANSWERS[name], "error")])
    assert (verdict.verdict, verdict.score) == ("error", None)


@given(st.sampled_from(NAMES), st.lists(SAID, max_size=5), st.randoms(use_true_random=False))
def test_verdicts_are_words_and_do_not_depend_on_order(name: str, said: list[str], random: object) -> None:
    judge = UTILITY_JUDGES[name]()
    prompts = [prompt_for(name, number) for number in range(len(said))]
    replies = [reply_to(prompt, text) for prompt, text in zip(prompts, said)]
    verdicts = judge.judge(prompts, replies)
    assert {verdict.verdict for verdict in verdicts} <= set(VERDICTS) - {"jailbreak", "error"}
    order = list(range(len(said)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = judge.judge([prompts[i] for i in order], [replies[i] for i in order])
    assert shuffled == [verdicts[i] for i in order]
    assert shuffled == [judge.judge([prompts[i]], [replies[i]])[0] for i in order]


@given(st.one_of(st.text(), st.builds(lambda a, b, c: f"{a}{b}{c}", st.text(max_size=130),
    st.sampled_from(["I'm sorry", "I can\u2019t", "As an AI", "I will not"]), st.text())))  # fmt: skip
def test_a_refusal_is_what_the_keyword_judge_sees(said: str) -> None:
    prompt = prompt_for("choice")
    seen = keyword_judge().judge([prompt], [reply_to(prompt, said)])[0].verdict == "refusal"
    assert is_refusal(prompt.sample, said, lambda head: False) == seen


def test_f1_scores_refusals_and_empty_replies_but_no_errors() -> None:
    prompts = [prompt_for("f1", number) for number in range(4)]
    said = ["Mick Jagger", "", "I'm sorry", ""]
    replies = [reply_to(p, text, "error" if i == 3 else "stop") for i, (p, text) in enumerate(zip(prompts, said))]
    verdicts = UTILITY_JUDGES["f1"]().judge(prompts, replies)
    assert [verdict.verdict for verdict in verdicts] == ["answer", "other", "refusal", "error"]
    assert [verdict.score for verdict in verdicts] == [1, 0, 0, None]


def test_wer_without_jiwer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(UndersongError, match=r"pip install -e '.\[utility\]'"):
        UTILITY_JUDGES["wer"]()
    for name in NAMES[:-1]:
        UTILITY_JUDGES[name]()


def test_making_the_others_does_not_import_jiwer() -> None:
    code = "import sys; from undersong.evaluation.judges.registry import UTILITY_JUDGES as u; u['f1'](); u['choice']()"
    seen = subprocess.run([sys.executable, "-c", f"{code}; print('jiwer' in sys.modules, 'torch' in sys.modules)"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert seen.stdout.split() == ["False", "False"]
