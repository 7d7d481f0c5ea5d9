from .axis_agreement import (
    AxisAgreementMatrix as AxisAgreementMatrix,
)
from .axis_agreement import (
    AxisPairAgreement as AxisPairAgreement,
)
from .axis_agreement import (
    InternalAxisAgreement as InternalAxisAgreement,
)
from .axis_agreement import (
    axis_agreement_matrix as axis_agreement_matrix,
)
from .axis_agreement import (
    compare_internal_axis as compare_internal_axis,
)
from .axis_agreement import (
    pairwise_axis_agreement as pairwise_axis_agreement,
)
from .distances import (
    NearestDistances as NearestDistances,
)
from .distances import (
    nearest_distances as nearest_distances,
)
from .group_spread import (
    shuffle_ties as shuffle_ties,
)
from .group_spread import (
    spread_over_groups as spread_over_groups,
)
from .rules import (
    SelectionRule as SelectionRule,
)
from .rules import (
    parse_rule as parse_rule,
)
from .screening_score import (
    ScreeningScore as ScreeningScore,
)
from .screening_score import (
    compute_screening_score as compute_screening_score,
)
from .selection import (
    Selection as Selection,
)
from .selection import (
    check_rule_columns as check_rule_columns,
)
from .selection import (
    ids_hash as ids_hash,
)
from .selection import (
    select_by_kind as select_by_kind,
)
from .selection import (
    select_by_rule as select_by_rule,
)
from .selection import (
    selection_from_json as selection_from_json,
)
from .selection import (
    selection_residual as selection_residual,
)
from .selection import (
    selection_to_json as selection_to_json,
)
from .selection_report import (
    cut_tie as cut_tie,
)
from .selection_report import (
    describe_selection as describe_selection,
)
from .selection_report import (
    equal_selections as equal_selections,
)
from .selection_report import (
    selection_overlaps as selection_overlaps,
)
from .strata import (
    ResidualImbalance as ResidualImbalance,
)
from .strata import (
    sample_metadata_table as sample_metadata_table,
)
from .table import (
    check_quarantine as check_quarantine,
)
from .table import (
    filter_harm_set as filter_harm_set,
)
from .table import (
    nearest_margin as nearest_margin,
)
from .table import (
    proximity_table as proximity_table,
)
from .table import (
    proximity_tables as proximity_tables,
)
from .table import (
    ranking_metadata as ranking_metadata,
)
from .table import (
    ranking_scores as ranking_scores,
)
