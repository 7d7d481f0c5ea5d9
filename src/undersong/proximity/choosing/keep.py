"""The rule that says which of a pool are kept, as one string and as a record.  Knows words and numbers; no tables.

    closest:0.25   the first quarter of the ranking; closest:200 the first 200
    distant:0.25   the last quarter
    random:0.25    a quarter drawn at random
    band:0.25-0.5  the second quarter of the ranking; bands that touch share no item and leave none out
    below:0.3      every item whose score (the column that is ranked by) is below 0.3; above:0.7 likewise

and after it, joined by +, whatever else must hold:

    +group<=3                          at most 3 items of one group; any column of the manifest will do
    +matched(speaker,seconds,answer)   the shares of speaker x length quarter x answer-length quarter that the pool has
    +within(semantic:5)                the same share of each of 5 quantile strata of axis semantic's score
    +within(group)                     the same share of each group, or value of another column
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

import numpy as np

from undersong.types import UndersongError

AMOUNTS = ("closest", "distant", "random")  # kinds that are told how many; the others keep all that fit
FORMS = {
    "closest": "closest:0.25",
    "distant": "distant:200",
    "random": "random:0.25",
    "band": "band:0.25-0.5",
    "below": "below:0.3",
    "above": "above:0.7",
}
MODIFIERS = {"group": "+group<=3", "matched": "+matched(speaker,seconds,answer)", "within": "+within(semantic:5)"}
STRATA = 5  # of an axis, where the rule does not say
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"


@dataclass(frozen=True, slots=True)
class Keep:
    """A parsed rule; `str()` gives its text back."""

    kind: str  # one of FORMS
    amount: float | int  # a share or a count; the score of below and above; the lower share of a band
    upper: float | None = None  # of a band
    caps: tuple[tuple[str, int], ...] = ()  # column, most items of one value
    matched: tuple[str, ...] = ()  # columns
    within: str | None = None  # an axis or a column
    strata: int = STRATA  # of `within`, where it is an axis or a number

    @property
    def plain(self) -> bool:
        """Whether the rule is KIND:AMOUNT and nothing more."""
        return self == Keep(self.kind, self.amount) and self.kind in AMOUNTS

    @property
    def bare(self) -> Keep:
        """The rule without its modifiers."""
        return Keep(self.kind, self.amount, self.upper)

    def __str__(self) -> str:
        upper = "" if self.upper is None else f"-{_digits(self.upper)}"
        text = f"{self.kind}:{_digits(self.amount, self.kind in AMOUNTS)}{upper}"
        text += "".join(f"+{column}<={most}" for column, most in self.caps)
        text += f"+matched({','.join(self.matched)})" if self.matched else ""
        strata = "" if self.strata == STRATA else f":{self.strata}"
        return text + (f"+within({self.within}{strata})" if self.within is not None else "")


def read_keep(text: str) -> Keep:
    """The rule that `text` writes (see the module).  Raises UndersongError that names the nearest right form."""
    rule, *modifiers = (part.strip() for part in text.split("+"))
    fields = _rule(text, rule)
    for modifier in modifiers:
        _modify(text, modifier, fields)
    keep = Keep(**fields)
    if keep.kind not in AMOUNTS and (keep.matched or keep.within is not None):
        raise UndersongError(
            f"Cannot keep {text!r}: matched and within choose among more than are kept, and {keep.kind} keeps all it "
            f"finds; write {' | '.join(FORMS[kind] for kind in AMOUNTS)} before them."
        )
    return keep


def parse_keep(text: str) -> tuple[str, float | int]:
    """`closest:0.25` -> ("closest", 0.25); `distant:200` -> ("distant", 200): with a point a share, without a count.

    For callers that know no further rules: anything beyond KIND:AMOUNT is an UndersongError.
    """
    keep = read_keep(text)
    if not keep.plain:
        raise UndersongError(f"Cannot keep {text!r} here; write KIND:AMOUNT with KIND one of {', '.join(AMOUNTS)}.")
    return keep.kind, keep.amount


def _rule(text: str, rule: str) -> dict:
    kind, _, amount = rule.partition(":")
    if kind not in FORMS:
        near = difflib.get_close_matches(kind, FORMS, n=1, cutoff=0.5)
        forms = FORMS[near[0]] if near else " | ".join(FORMS.values())
        raise UndersongError(f"Cannot keep {text!r}; write {forms}.")
    if kind == "band":
        found = re.fullmatch(f"({_NUMBER})-({_NUMBER})", amount)
        low, high = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
        if not 0 <= low < high <= 1:
            raise UndersongError(
                f"Cannot keep {text!r}; a band is two shares from 0 to 1, the lower first, such as {FORMS[kind]}."
            )
        return {"kind": kind, "amount": low, "upper": high}
    if kind in AMOUNTS and amount.isdecimal():
        return {"kind": kind, "amount": int(amount)}
    try:
        value = float(amount)
    except ValueError:
        what = "the amount is a share such as 0.25 or a count such as 200" if kind in AMOUNTS else "it needs a score"
        raise UndersongError(f"Cannot keep {text!r}: {what}; write {FORMS[kind]}.") from None
    if kind not in AMOUNTS and not (math.isfinite(value) and 0 <= value <= 2):
        raise UndersongError(f"Cannot keep {text!r}: cosine distances lie from 0 to 2; write e.g. {FORMS[kind]}.")
    return {"kind": kind, "amount": value}


def _modify(text: str, modifier: str, fields: dict) -> None:
    """Adds one modifier to the rule's fields; each may stand once."""
    cap = re.fullmatch(r"([^<>=():,]+?)\s*<=\s*(\d+)", modifier)
    named = re.fullmatch(r"(matched|within)\(([^()]+)\)", modifier)
    taken = False
    if cap and int(cap[2]) >= 1:
        caps = fields.setdefault("caps", ())
        taken = cap[1] in dict(caps)
        fields["caps"] = (*caps, (cap[1], int(cap[2])))
    elif named and named[1] == "matched":
        columns = tuple(column.strip() for column in named[2].split(","))
        taken = "matched" in fields or len(set(columns)) < len(columns) or not all(columns)
        fields["matched"] = columns
    elif named:
        name, _, strata = (part.strip() for part in named[2].partition(":"))
        if not name or "," in name or (":" in named[2] and not (strata.isdecimal() and int(strata) >= 2)):
            raise _no_modifier(text, modifier)
        taken = "within" in fields
        fields |= {"within": name, "strata": int(strata)} if strata else {"within": name}
    else:
        raise _no_modifier(text, modifier)
    if taken:
        raise UndersongError(f"Cannot keep {text!r}: +{modifier} says again what was said; write it once.")


def _no_modifier(text: str, modifier: str) -> UndersongError:
    near = difflib.get_close_matches(re.split(r"[^a-z]", modifier)[0], MODIFIERS, n=1, cutoff=0.5)
    forms = MODIFIERS[near[0]] if near else " | ".join(MODIFIERS.values())
    return UndersongError(f"Cannot keep {text!r}: +{modifier} is no modifier; write {forms}.")


def _digits(number: float | int, is_amount: bool = False) -> str:
    """Digits that are read back as the same number, and as the same kind of number: a share has a point."""
    if isinstance(number, int):
        return str(number)
    return np.format_float_positional(number, trim="0" if is_amount else "-")
