"""Selection rules: kinds and modifiers, parsing and formatting, and how many items a rule selects."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

AMOUNT_KINDS = ("closest", "distant", "random")  # kinds with an amount; the others keep all items that fit
RULE_EXAMPLES = {
    "closest": "closest:0.25",
    "distant": "distant:200",
    "random": "random:0.25",
    "band": "band:0.25-0.5",
    "below": "below:0.3",
    "above": "above:0.7",
}
MODIFIER_EXAMPLES = {
    "group": "+group<=3",
    "matched": "+matched(speaker,seconds,answer)",
    "within": "+within(semantic:5)",
}
DEFAULT_STRATA = 5  # quantile strata of `within`, unless the rule gives their number
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"


@dataclass(frozen=True, slots=True)
class SelectionRule:
    """Parsed selection rule; `str()` gives its text."""

    kind: str  # a key of RULE_EXAMPLES
    amount: float | int  # a share or a count; for below and above a score; for a band its lower share
    upper: float | None = None  # upper share of a band
    caps: tuple[tuple[str, int], ...] = ()  # column, and the most items of one value
    matched: tuple[str, ...] = ()  # columns
    within: str | None = None  # an axis or a column
    strata: int = DEFAULT_STRATA  # number of strata of `within`, if it is an axis or a numeric column

    @property
    def is_simple(self) -> bool:
        """True if the rule is KIND:AMOUNT without modifiers, and the kind is closest, distant or random."""
        return self == SelectionRule(self.kind, self.amount) and self.kind in AMOUNT_KINDS

    @property
    def base_rule(self) -> SelectionRule:
        """The rule without its modifiers."""
        return SelectionRule(self.kind, self.amount, self.upper)

    def __str__(self) -> str:
        upper = "" if self.upper is None else f"-{_format_number(self.upper)}"
        text = f"{self.kind}:{_format_number(self.amount, self.kind in AMOUNT_KINDS)}{upper}"
        text += "".join(f"+{column}<={maximum}" for column, maximum in self.caps)
        text += f"+matched({','.join(self.matched)})" if self.matched else ""
        strata = "" if self.strata == DEFAULT_STRATA else f":{self.strata}"
        return text + (f"+within({self.within}{strata})" if self.within is not None else "")


def parse_rule(text: str) -> SelectionRule:
    """Parse a selection rule, such as `closest:0.25+matched(speaker)`.

    Raises:
        UndersongError: The text is not a rule; the message shows the closest valid form.
    """
    base_text, *modifiers = (part.strip() for part in text.split("+"))
    fields = _parse_base(text, base_text)
    for modifier in modifiers:
        _parse_modifier(text, modifier, fields)
    parsed_rule = SelectionRule(**fields)
    if parsed_rule.kind not in AMOUNT_KINDS and (parsed_rule.matched or parsed_rule.within is not None):
        raise UndersongError(
            f"Cannot keep {text!r}: matched and within need a rule with an amount, and {parsed_rule.kind} keeps every "
            f"item that fits; write {' | '.join(RULE_EXAMPLES[kind] for kind in AMOUNT_KINDS)} before them."
        )
    return parsed_rule


def _parse_base(text: str, base_text: str) -> dict:
    kind, _, amount = base_text.partition(":")
    if kind not in RULE_EXAMPLES:
        close_matches = difflib.get_close_matches(kind, RULE_EXAMPLES, n=1, cutoff=0.5)
        all_examples = " | ".join(RULE_EXAMPLES.values())
        examples = f"{RULE_EXAMPLES[close_matches[0]]}, or one of {all_examples}" if close_matches else all_examples
        raise UndersongError(f"Cannot keep {text!r}; write {examples}.")
    if kind == "band":
        match = re.fullmatch(f"({_NUMBER})-({_NUMBER})", amount)
        low, high = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
        if not 0 <= low < high <= 1:
            raise UndersongError(
                f"Cannot keep {text!r}; a band is two shares from 0 to 1, the lower first, "
                f"such as {RULE_EXAMPLES[kind]}."
            )
        return {"kind": kind, "amount": low, "upper": high}
    if kind in AMOUNT_KINDS and amount.isdecimal():
        return {"kind": kind, "amount": int(amount)}
    try:
        value = float(amount)
    except ValueError:
        requirement = (
            "the amount is a share such as 0.25 or a count such as 200" if kind in AMOUNT_KINDS else "it needs a score"
        )
        raise UndersongError(f"Cannot keep {text!r}: {requirement}; write {RULE_EXAMPLES[kind]}.") from None
    if kind not in AMOUNT_KINDS and not (math.isfinite(value) and 0 <= value <= 2):
        raise UndersongError(
            f"Cannot keep {text!r}: cosine distances lie from 0 to 2; write e.g. {RULE_EXAMPLES[kind]}."
        )
    return {"kind": kind, "amount": value}


def _parse_modifier(text: str, modifier: str, fields: dict) -> None:
    """Add one modifier to the rule's fields; each may be given once."""
    cap_match = re.fullmatch(r"([^<>=():,]+?)\s*<=\s*(\d+)", modifier)
    call_match = re.fullmatch(r"(matched|within)\(([^()]+)\)", modifier)
    is_repeated = False
    if cap_match and int(cap_match[2]) >= 1:
        caps = fields.setdefault("caps", ())
        is_repeated = cap_match[1] in dict(caps)
        fields["caps"] = (*caps, (cap_match[1], int(cap_match[2])))
    elif call_match and call_match[1] == "matched":
        columns = tuple(column.strip() for column in call_match[2].split(","))
        is_repeated = "matched" in fields or len(set(columns)) < len(columns) or not all(columns)
        fields["matched"] = columns
    elif call_match:
        column, _, strata = (part.strip() for part in call_match[2].partition(":"))
        if not column or "," in column or (":" in call_match[2] and not (strata.isdecimal() and int(strata) >= 2)):
            raise _unknown_modifier(text, modifier)
        is_repeated = "within" in fields
        fields |= {"within": column, "strata": int(strata)} if strata else {"within": column}
    else:
        raise _unknown_modifier(text, modifier)
    if is_repeated:
        raise UndersongError(f"Cannot keep {text!r}: +{modifier} repeats a modifier; write it once.")


def _unknown_modifier(text: str, modifier: str) -> UndersongError:
    close_matches = difflib.get_close_matches(re.split(r"[^a-z]", modifier)[0], MODIFIER_EXAMPLES, n=1, cutoff=0.5)
    examples = MODIFIER_EXAMPLES[close_matches[0]] if close_matches else " | ".join(MODIFIER_EXAMPLES.values())
    return UndersongError(f"Cannot keep {text!r}: +{modifier} is not a modifier; write {examples}.")


def _format_number(number: float | int, is_amount: bool = False) -> str:
    """Digits that parse to the same number and the same type: a share has a decimal point."""
    if isinstance(number, int):
        return str(number)
    return np.format_float_positional(number, trim="0" if is_amount else "-")


def resolve_amount(amount: float | int, n: int) -> tuple[int, float]:
    """Count and share that an amount means in a pool of `n` items.

    0.29 of 100 is 29, although the product of the floats is below 29.

    Raises:
        UndersongError: The pool is empty, or the amount is out of range.
    """
    if n == 0:
        raise UndersongError("The pool is empty, so there is nothing to select; check the manifest or its filters.")
    if isinstance(amount, int):
        if not 1 <= amount <= n:
            raise UndersongError(f"Cannot keep {amount} of a pool of {n}; give a count from 1 to {n}.")
        return amount, amount / n
    if not (math.isfinite(amount) and 0 < amount <= 1):
        raise UndersongError(
            f"Cannot keep a share of {amount:g}; give a number above 0 and at most 1, or a whole count."
        )
    return max(1, floor_count(amount, n)), float(amount)


def floor_count(share: float, n: int) -> int:
    """Number of items in a share of `n`, rounded down; floating-point noise does not lose an item."""
    return math.floor(round(share * n, 9))
