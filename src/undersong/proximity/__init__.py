"""Exact distances to a reference harm set, ranks, selections and how far they agree.  Knows vectors and ids only."""

from undersong.proximity.agreement import Agreement, axes_agreement, overlaps, same_as
from undersong.proximity.distances import Nearest, nearest
from undersong.proximity.selection import Selection, from_json, ids_hash, parse_keep, select, to_json
from undersong.proximity.table import check_quarantine, how, proximity_table, scores

__all__ = [
    "Agreement",
    "Nearest",
    "Selection",
    "axes_agreement",
    "check_quarantine",
    "from_json",
    "how",
    "ids_hash",
    "nearest",
    "overlaps",
    "parse_keep",
    "proximity_table",
    "same_as",
    "scores",
    "select",
    "to_json",
]
