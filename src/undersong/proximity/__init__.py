"""Exact distances to a reference harm set, ranks, selections and how far they agree.  Knows vectors and ids only."""

from undersong.proximity.agreeing.agreement import AxisAgreementMatrix, axis_agreement_matrix
from undersong.proximity.axis_agreement import (
    AxisPairAgreement,
    InternalAxisAgreement,
    compare_internal_axis,
    pairwise_axis_agreement,
)
from undersong.proximity.choosing.remaining import ResidualImbalance
from undersong.proximity.distances import NearestDistances, nearest_distances
from undersong.proximity.rules import SelectionRule, parse_rule, parse_simple_rule
from undersong.proximity.screening_score import ScreeningScore, screening_score
from undersong.proximity.selection import (
    Selection,
    check_rule_columns,
    draw_selections,
    ids_hash,
    select_by_kind,
    select_by_rule,
    selection_from_json,
    selection_residual,
    selection_to_json,
)
from undersong.proximity.selection_report import equal_selections, selection_overlaps, selection_report
from undersong.proximity.sets import filter_harm_set, nearest_margin, proximity_tables
from undersong.proximity.strata import sample_metadata_table
from undersong.proximity.table import check_quarantine, proximity_table, ranking_metadata, ranking_scores

__all__ = [
    "AxisAgreementMatrix",
    "InternalAxisAgreement",
    "SelectionRule",
    "NearestDistances",
    "AxisPairAgreement",
    "ResidualImbalance",
    "ScreeningScore",
    "Selection",
    "axis_agreement_matrix",
    "pairwise_axis_agreement",
    "check_quarantine",
    "check_rule_columns",
    "select_by_rule",
    "draw_selections",
    "sample_metadata_table",
    "compare_internal_axis",
    "selection_from_json",
    "ranking_metadata",
    "ids_hash",
    "selection_residual",
    "nearest_margin",
    "nearest_distances",
    "selection_overlaps",
    "parse_simple_rule",
    "proximity_table",
    "proximity_tables",
    "parse_rule",
    "equal_selections",
    "ranking_scores",
    "screening_score",
    "select_by_kind",
    "selection_report",
    "filter_harm_set",
    "selection_to_json",
]
