"""Exact distances to a reference harm set, ranks, selections and how far they agree.  Knows vectors and ids only."""

from undersong.proximity.agreeing.agreement import Agreement, axes_agreement, overlaps, same_as
from undersong.proximity.agreeing.fingerprint import Fingerprint, Pair, axis_pairs, fingerprint
from undersong.proximity.agreeing.risk import ScreeningScore, screening_score
from undersong.proximity.choosing.keep import Keep, parse_keep, read_keep
from undersong.proximity.choosing.remaining import Remaining
from undersong.proximity.choosing.selected import selection_report
from undersong.proximity.choosing.selection import (
    Selection,
    check_rule,
    choose,
    draw,
    from_json,
    ids_hash,
    left_over,
    select,
    to_json,
)
from undersong.proximity.choosing.strata import facts_of
from undersong.proximity.distances import Nearest, nearest
from undersong.proximity.sets import margin, proximity_tables, to_harm_set
from undersong.proximity.table import check_quarantine, how, proximity_table, scores

__all__ = [
    "Agreement",
    "Fingerprint",
    "Keep",
    "Nearest",
    "Pair",
    "Remaining",
    "ScreeningScore",
    "Selection",
    "axes_agreement",
    "axis_pairs",
    "check_quarantine",
    "check_rule",
    "choose",
    "draw",
    "facts_of",
    "fingerprint",
    "from_json",
    "how",
    "ids_hash",
    "left_over",
    "margin",
    "nearest",
    "overlaps",
    "parse_keep",
    "proximity_table",
    "proximity_tables",
    "read_keep",
    "same_as",
    "scores",
    "screening_score",
    "select",
    "selection_report",
    "to_harm_set",
    "to_json",
]
