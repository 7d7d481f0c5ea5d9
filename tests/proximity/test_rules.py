"""The rule as a string: what it means, that it is given back, and what an error names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.proximity.rules import MODIFIER_EXAMPLES, RULE_EXAMPLES, SelectionRule, parse_rule
from undersong.types import UndersongError

names = st.text("abcdefgh_", min_size=1, max_size=6)
shares = st.floats(0, 1, exclude_min=True)
amounts = st.one_of(
    st.builds(lambda kind, amount: (kind, amount, None), st.sampled_from(["closest", "distant", "random"]), shares),
    st.builds(lambda kind, k: (kind, k, None), st.sampled_from(["closest", "random"]), st.integers(1, 10**7)),
)
alone = st.one_of(
    amounts,
    st.builds(lambda kind, score: (kind, score, None), st.sampled_from(["below", "above"]), st.floats(0, 2)),
    st.tuples(shares, shares).filter(lambda ends: ends[0] < ends[1]).map(lambda ends: ("band", *ends)),
)
caps = st.lists(st.tuples(names, st.integers(1, 99)), max_size=2, unique_by=lambda cap: cap[0]).map(tuple)
matched = st.lists(names, max_size=3, unique=True).map(tuple)
rules = st.one_of(
    st.builds(lambda rule, caps: SelectionRule(*rule, caps), alone, caps),
    st.builds(
        lambda rule, caps, matched, within: SelectionRule(*rule, caps, matched, *within),
        amounts,
        caps,
        matched,
        st.one_of(st.just((None, 5)), st.tuples(names, st.integers(2, 20))),
    ),
)


@given(rules)
def test_a_rule_is_given_back(keep: SelectionRule) -> None:
    back = parse_rule(str(keep))
    assert back == keep
    assert type(back.amount) is type(keep.amount)
    assert keep.is_simple == (keep.kind in ("closest", "distant", "random") and keep == keep.base_rule)


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("closest:0.25", SelectionRule("closest", 0.25)),
        ("distant:200", SelectionRule("distant", 200)),
        ("band:0.25-0.5", SelectionRule("band", 0.25, 0.5)),
        ("band:0-1", SelectionRule("band", 0.0, 1.0)),
        ("below:0.3", SelectionRule("below", 0.3)),
        ("above:0", SelectionRule("above", 0.0)),
        (
            "closest:0.5 + matched( home town, seconds )",
            SelectionRule("closest", 0.5, matched=("home town", "seconds")),
        ),
        ("random:1.0 + group <= 3", SelectionRule("random", 1.0, caps=(("group", 3),))),
        ("closest:0.5+group<=3+speaker<=20", SelectionRule("closest", 0.5, caps=(("group", 3), ("speaker", 20)))),
        (
            "closest:0.25+matched(speaker,seconds,answer)",
            SelectionRule("closest", 0.25, matched=("speaker", "seconds", "answer")),
        ),
        ("closest:0.25+within(semantic)", SelectionRule("closest", 0.25, within="semantic")),
        ("closest:0.25+within(semantic:10)", SelectionRule("closest", 0.25, within="semantic", strata=10)),
    ],
)
def test_what_rules_mean(text: str, keep: SelectionRule) -> None:
    made = parse_rule(text)
    assert made == keep
    assert type(made.amount) is type(keep.amount)


@pytest.mark.parametrize(
    "form", [*RULE_EXAMPLES.values(), *(f"closest:0.25{form}" for form in MODIFIER_EXAMPLES.values())]
)
def test_forms_in_messages_are_right(form: str) -> None:
    assert str(parse_rule(form)) in (form, form.replace(":5", ""))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("closets:0.25", "write closest:0.25"),
        ("bands:0.1-0.2", "write band:0.25-0.5"),
        ("", "write closest:0.25 | distant:200"),
        ("closest", "closest:0.25"),
        ("closest:half", "share such as 0.25 or a count"),
        ("band:0.5", "two shares from 0 to 1"),
        ("band:0.5-0.25", "two shares from 0 to 1"),
        ("band:0.5-1.5", "two shares from 0 to 1"),
        ("below:3", "from 0 to 2"),
        ("below:nan", "from 0 to 2"),
        ("above:far", "needs a score; write above:0.7"),
        ("closest:0.25+group<3", r"write \+group<=3"),
        ("closest:0.25+group<=0", r"write \+group<=3"),
        ("closest:0.25+grop", r"write \+group<=3"),
        ("closest:0.25+match(speaker)", r"write \+matched\(speaker,seconds,answer\)"),
        ("closest:0.25+within()", r"write \+within\(semantic:5\)"),
        ("closest:0.25+within(semantic:1)", r"write \+within\(semantic:5\)"),
        ("closest:0.25+within(semantic:)", r"write \+within\(semantic:5\)"),
        ("closest:0.25+", "is not a modifier"),
        ("closest:0.25+group<=3+group<=4", "repeats a modifier"),
        ("closest:0.25+matched(a,a)", "repeats a modifier"),
        ("closest:0.25+within(a)+within(b)", "repeats a modifier"),
        ("band:0-0.5+matched(speaker)", "band keeps every item that fits"),
        ("below:0.5+within(semantic)", "below keeps every item that fits"),
    ],
)
def test_a_rule_that_means_nothing_names_the_right_form(text: str, named: str) -> None:
    with pytest.raises(UndersongError, match=named):
        parse_rule(text)
