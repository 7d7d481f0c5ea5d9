"""Exact distances to a reference harm set, ranks, selections and how far they agree.  Knows vectors and ids only."""

from undersong.proximity.agreement import Agreement, axes_agreement, overlaps, same_as
from undersong.proximity.distances import Nearest, nearest
from undersong.proximity.files import read_embeddings, read_table, write_embeddings, write_table
from undersong.proximity.selection import Selection, from_json, ids_hash, parse_keep, select, to_json
from undersong.proximity.table import how, proximity_table, scores

__all__ = [
    "Agreement",
    "Nearest",
    "Selection",
    "axes_agreement",
    "from_json",
    "how",
    "ids_hash",
    "nearest",
    "overlaps",
    "parse_keep",
    "proximity_table",
    "read_embeddings",
    "read_table",
    "same_as",
    "scores",
    "select",
    "to_json",
    "write_embeddings",
    "write_table",
]
