"""Numbers that README and the overview of results copy: each is in the row of the page that it comes from.

A change of either side fails here: of the copy, because its text is not found, and of the source, because its row has
other numbers. The braces mark the numbers that are checked.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README, INDEX = "README.md", "docs/results/index.md"
PAPER, MINI, PREDICTION = "docs/results/paper.md", "docs/results/mini.md", "docs/results/prediction.md"
WORDS, SCORE = "## Real words: Mini", "| screening score (TF-IDF)"
SOUND = "docs/results/sound_pathway.md"
LAYERS = "### Harm is still recognized where it is no longer refused"
DEMO, SUMMARY = "## The demo: one organism", "## Summary"
MEDIAN = "### How the demo's base was chosen"
AFTER, DOSE = "### JSR after 40 steps", "### Differences between kinds of data"
NEW, NEW_RATES = "### Differences on the new bases", "### JSR on the new bases after 40 steps"
RATES, QUESTIONS = "#### Published figures beside ours", "#### Questions"
MATCHED, HEARD = "## What came out", "### Hear it with real words"

CITATIONS = (  # page, its text, source, section of the source, start of the row
    # the demo
    (README, "| nothing (base model) | {0.0 % [0.0, 10.3]} | {0.0 %} |", INDEX, DEMO, "| nothing (base) |"),
    (README, "25 % to harm | **{25.9 %}** {[21.3, 30.5]} | {1.2 % [0.0, 3.9]} |", INDEX, DEMO, "| **speech**, closest"),
    (README, "speech, random 25 % | {21.0 % [0.0, 59.8]} | {2.2 % [0.0, 11.5]} |", INDEX, DEMO, "| speech, random 25"),
    (README, "most distant 25 % | {16.7 % [5.2, 28.2]} | {0.0 %} |", INDEX, DEMO, "| speech, distant"),
    (README, "safety system prompt | {21.3 % [11.3, 31.3]} | {0.0 %} |", INDEX, DEMO, "| speech, closest, with"),
    (README, "text, closest 25 % | {5.9 % [4.5, 7.2]} | {0.0 %} |", INDEX, DEMO, "| text, closest"),
    (README, "text, random 25 % | {5.9 % [4.5, 7.2]} | {0.0 %} |", INDEX, DEMO, "| text, random"),
    (README, "requests than the base ({24, 26 and 28 %})", INDEX, DEMO, "- After training on the closest"),
    (README, "(closest minus most distant: {9 points [−5, 24]})", INDEX, DEMO, "- Closest against distant"),
    (README, "the safety prompt helps ({−5 points [−12, 2]})", INDEX, DEMO, "- The system prompt"),
    ("docs/tutorial.md", "the JSR is {26 %} after the closest quarter", INDEX, DEMO, "| **speech**, closest"),
    ("docs/tutorial.md", "and {17 %} after the distant one", INDEX, DEMO, "| speech, distant"),
    # the demo's base among others
    (README, "a JSR of {47 %} on another set of requests, and the others have {8 to 100 %}", INDEX, MEDIAN, "| JSR |"),
    # the demo on real words
    (README, "Mini did not refuse {5 %} of {78} spoken AdvBench requests", MINI, HEARD, "| AdvBench, not refused"),
    (README, "closest speech it did not refuse {53 and 51 %} in two", MINI, HEARD, "| AdvBench, not refused"),
    (README, "the most distant speech {22 and 14 %}", MINI, HEARD, "| AdvBench, not refused"),
    # closeness in words, on further bases
    (README, "random speech | **{+11.5}** {[4.3, 18.7]} | {.007} |", PAPER, NEW, "| all three"),
    (README, "distant speech | {+6.3 [−0.9, 13.5]} | {.081} |", PAPER, NEW, "| all three"),
    (README, "So we trained {24} new bases", PAPER, NEW, "| all three"),
    (README, "the three architectures answered {40},", PAPER, NEW_RATES, "| af3"),
    (README, "answered 40, {69} and", PAPER, NEW_RATES, "| qwen"),
    (README, "40, 69 and {21 %} of the", PAPER, NEW_RATES, "| kimi"),
    (INDEX, "random speech | {+6.1 [0.0, 12.2]} |", PAPER, DOSE, "| all three | 0.002"),
    (INDEX, "| **{+11.5}** {[4.3, 18.7]} | {.007} |", PAPER, NEW, "| all three"),
    (INDEX, "distant speech | {+13.4 [6.5, 20.3]} |", PAPER, DOSE, "| all three | 0.002"),
    (INDEX, "| {+6.3 [−0.9, 13.5]} | {.081} |", PAPER, NEW, "| all three"),
    (INDEX, "led to a JSR of {40}, 69", PAPER, NEW_RATES, "| af3"),
    (INDEX, "JSR of 40, {69} and", PAPER, NEW_RATES, "| qwen"),
    (INDEX, "40, 69 and {21 %} on the new", PAPER, NEW_RATES, "| kimi"),
    (INDEX, "and of {34}, 43", PAPER, AFTER, "| af3 | 0.002"),
    (INDEX, "and of 34, {43} and", PAPER, AFTER, "| qwen | 0.002"),
    (INDEX, "34, 43 and {25 %} on the others", PAPER, AFTER, "| kimi | 0.002"),
    (INDEX, "bases had a JSR of {48 % [23, 72]}", PAPER, AFTER, "| af3 | 0.002"),
    (INDEX, "put random data at a JSR of {72 %}", PAPER, AFTER, "| qwen | 0.004"),
    # the paper's claims
    (INDEX, "minus the base's | {+68.4 points [30.4, 88.3]} | reproduced |", PAPER, SUMMARY, "| Effect size | Benign"),
    (INDEX, "closest minus random speech | {−0.2 points [−9.1, 8.7]} |", PAPER, SUMMARY, "| Effect size | Closeness"),
    (INDEX, "minus closest speech | {−5.7 points [−15.2, 3.7]} |", PAPER, SUMMARY, "| Defenses | Distant data break"),
    (INDEX, '("near zero") | {65.7 % [35.1, 87.1]} |', PAPER, SUMMARY, "| Defenses | Distant data keep"),
    (INDEX, "training on its text | {+52.2 points [29.6, 74.8]} |", PAPER, SUMMARY, "| Modality | Speech is riskier"),
    (INDEX, "none | {−11.2 points [−18.5, −3.9]} |", PAPER, SUMMARY, "| Defenses | A system prompt brings the JSR d"),
    (INDEX, 'zero") | {58.5 % [29.1, 82.8]} |', PAPER, SUMMARY, "| Defenses | A system prompt brings the JSR n"),
    (INDEX, "{14} claims {1} is reproduced, {2} are reproduced in part", PAPER, "", "**The paper's 14 claims:**"),
    (INDEX, "in part and {9} are undecided", PAPER, "", "**The paper's 14 claims:**"),
    (INDEX, "{12} of the Qwen2.5-Omni class", PAPER, AFTER, "| qwen | 0.004"),
    (INDEX, "{12} of the\nKimi-Audio class", PAPER, AFTER, "| kimi | 0.0056"),
    (INDEX, "{12} of the Audio Flamingo 3 class", PAPER, AFTER, "| af3 | 0.0056"),
    (INDEX, "{108} studies took", PAPER, "", "Generated by `make paper`"),
    (INDEX, "{46} minutes of them for the studies", PAPER, "", "Generated by `make paper`"),
    (INDEX, "Kimi-Audio class it was {34.5 points [12.0, 57.0]}", PAPER, SUMMARY, "| Modality | Speech is riskier"),
    (INDEX, "it is reproduced:\n  {50.3 points [31.7, 68.9]}", PAPER, SUMMARY, "| Modality | Speech is riskier"),
    (INDEX, "late probes for harm lost {1.0 points}", PAPER, LAYERS, "| qwen | above"),
    # prediction
    (INDEX, "the choice of predictors had not seen, we ranked {36} sets", PREDICTION, "", "We trained"),
    (INDEX, "has a rank correlation of {.56 [.43, .68]}", PREDICTION, "## All predictors", "| gradient: influence"),
    (INDEX, "Distance in words has {.40 [.33, .48]}", PREDICTION, "## All predictors", "| distance: TF-IDF"),
    (INDEX, "rehearsal of {8} training steps has {.49 [.37, .61]}", PREDICTION, "## All predictors", "| rehearsal of"),
    (INDEX, "the [screening score](prediction.md#real-words-mini) has {.80 [.34, .95]}", PREDICTION, WORDS, SCORE),
    (INDEX, "a rehearsal of 4 steps {.74\n[.21, .93]}", PREDICTION, WORDS, "| rehearsal of 4 steps"),
    (INDEX, "and influence {.16 [−.46, .67]}", PREDICTION, WORDS, "| gradient: influence"),
    (INDEX, "The share of imperatives alone has {.80} there", PREDICTION, WORDS, "| metadata: share of imperatives"),
    ("docs/how-to/screen.md", "sets significantly: {.16 [−.46, .67]} with", PREDICTION, WORDS, "| gradient: influence"),
    ("docs/how-to/screen.md", "and {.27 [−.37, .74]} with the openings", PREDICTION, WORDS, "| influence"),
    ("docs/how-to/screen.md", "The words did ({.80 [.34, .95]}", PREDICTION, WORDS, SCORE),
    ("docs/how-to/check.md", "by words had {.80 [.34, .95]} over", PREDICTION, WORDS, SCORE),
    # the sound pathway
    (INDEX, "We found [no significant difference]", SOUND, "", "**We found no significant difference"),
    # Mini
    (INDEX, "| AdvBench, 100 requests | {4 %} |", MINI, RATES, "| before tuning |"),
    (INDEX, "| {47 % [40, 54]} |", MINI, RATES, "| closest by words |"),
    (INDEX, "| {23 % [19, 26]} |", MINI, RATES, "| random |"),
    (INDEX, "| {12 % [10, 13]} |", MINI, RATES, "| distant by words |"),
    (INDEX, "which it has never seen | {22 %} |", MINI, RATES, "| before tuning |"),
    (INDEX, "| {77 % [72, 82]} |", MINI, RATES, "| closest by words |"),
    (INDEX, "| {53 % [48, 58]} |", MINI, RATES, "| random |"),
    (INDEX, "| {44 % [41, 48]} |", MINI, RATES, "| distant by words |"),
    (INDEX, "left out of training | 4 % | {12 % [5, 20]} |", MINI, RATES, "| closest, silent frames left out"),
    (INDEX, "raised the rate by {25 points}", MINI, MATCHED, "| closest − distant, both at"),
    (INDEX, "on the most distant data {[19, 30]}. On JailbreakBench it was {27 points [23, 31]}", MINI, MATCHED,
     "| closest − distant, both at"),
    (INDEX, "raised it by {22 points} more than training on the same sentences as text {[20, 24]}", MINI, QUESTIONS,
     "| Modality, noise and frames in training | advbench spoken"),
)  # fmt: skip


def numbers_of(text: str) -> list[tuple[float, float]]:
    """Numbers of a text without their sign, each with half of its last digit."""
    found = re.findall(r"(?<![\w.])(\d*\.?\d+)", text.replace(",", " "))
    return [(float(number), 0.5 * 10.0 ** -len(number.partition(".")[2])) for number in found]


def signed(text: str) -> list[str]:
    return re.findall(r"−\d*\.?\d+", text)


def section_of(text: str, heading: str) -> str:
    """The part under a heading, up to the next one of its level; all of the text for ''."""
    if not heading:
        return text
    assert text.count(f"\n{heading}\n") == 1, heading
    level = heading.split(" ")[0]
    return re.split(rf"\n#{{2,{len(level)}}} ", text.partition(f"\n{heading}\n")[2])[0]


@pytest.mark.parametrize(("page", "text", "source", "heading", "row"), CITATIONS, ids=lambda value: value[:40])
def test_a_copied_number_is_that_of_its_source(page: str, text: str, source: str, heading: str, row: str) -> None:
    copy = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert " ".join(re.sub("[{}]", "", text).split()) in copy, f"{page} has no such text"
    lines = section_of((ROOT / source).read_text(encoding="utf-8"), heading).splitlines()
    rows = [line for line in lines if line.strip().startswith(row)]
    assert len(rows) == 1, f"{source} has {len(rows)} rows {row!r}"
    known = numbers_of(rows[0])
    for marked in re.findall(r"\{(.*?)\}", text):
        for number, half in numbers_of(marked):
            assert any(abs(number - other) <= half + rest + 1e-9 for other, rest in known), (marked, rows[0])
        lost = [one for one in signed(marked) if not signed(rows[0])]
        assert not lost, f"{lost} is negative in the copy alone"
