"""Records of screening in results.json: distances, selections, axis agreement, screening scores and corpus overlap."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import model_validator

from undersong.evaluation.rates import Metric
from undersong.results.schema_base import Quartiles, Record, ValueWithInterval

T = TypeVar("T")


class TargetReplies(Record):
    """Openers of the replies that the pool teaches: the share of affirmative ones, and the most common one."""

    column: str
    n: int
    affirmative_share: float
    commonest_opener: str | None = None


class QuarantinedItem(Record):
    """An item in quarantine."""

    id: str
    reason: str


class DistanceHistogram(Record):
    """The pool's distances: one more edge than counts."""

    edges: list[float]
    counts: list[int]


class LabelMedian(Record):
    """The median distance of the `n` samples with one value of a label."""

    n: int
    median: float


class NeighborPair(Record):
    """A benign sample and the harmful item nearest to it."""

    id: str
    rank: int
    text: str | None = None
    speaker: str | None = None
    distance: float
    distance_centered: float | None = None
    nearest_id: str | None = None
    nearest_text: str | None = None
    second_distance: float | None = None


class AxisScreening(Record):
    """One axis, measured to one harm set.

    With the metric `cosine`, distances are cosine distances; with `product`, negative scalar products, without bounds.
    """

    axis: str
    harm_set: str
    encoder: str
    model: str
    score: str
    centered: bool
    metric: str = "cosine"
    n_pool: int
    n_harm: int
    quarantined: list[QuarantinedItem] = []
    distances: Quartiles
    histogram: DistanceHistogram
    by_label: dict[str, dict[str, LabelMedian]] = {}
    closest: list[NeighborPair] = []
    distant: list[NeighborPair] = []


class SelectionAndPool(Record, Generic[T]):
    """The same quantity of a selection and of its pool."""

    selection: T
    pool: T


class LabelBalance(Record):
    """Shares of one value of a label in a selection and in its pool."""

    share_selected: float
    share_pool: float
    standardized_difference: float


class NumericBalance(Record):
    """Means of a number in a selection and in its pool, over the `n` pool items that have it."""

    selection: float
    pool: float
    standardized_difference: float
    n: int


class MatchingEffect(Record):
    """The largest standardized difference of a matched column, before and after matching."""

    before: float
    after: float


class ResidualImbalanceRecord(Record):
    """Imbalance on another axis that remains in a selection made within strata of that axis."""

    other_axis: str
    strata: int
    single_item_strata: int
    measured_items: int
    jaccard: float
    jaccard_unstratified: float
    jaccard_chance: float
    shift: float
    shift_unstratified: float
    spearman: float | None = None
    spearman_within: float | None = None
    distant: bool


class Diversity(Record):
    """Distinct texts, groups and voices among samples; None where no sample says."""

    texts: int | None = None
    groups: int | None = None
    voices: int | None = None


class CutTieRecord(Record):
    """Items that share the score at the cut of a selection: `tied` in all, of which it took `selected`."""

    score: float
    tied: int
    selected: int


class SelectionRecord(Record):
    """The samples that one arm was trained on, described."""

    model: str
    axis: str
    harm_set: str
    kind: str
    rule: str | None = None
    fraction: float | None = None
    k: int
    requested: int | None = None  # requested number, if the pool provided fewer
    draw: int | None = None  # of random selections only
    selection_hash: str
    notes: list[str] = []
    same_as: list[str] = []  # labels of the selections of the same ids
    jaccard: dict[str, float] = {}  # with the other selections
    jaccard_with_closest: dict[str, float | None] = {}  # with as many closest of each axis
    balance: dict[str, dict[str, LabelBalance]] = {}
    numeric_balance: dict[str, NumericBalance] = {}
    diversity: SelectionAndPool[Diversity] | None = None
    cut_tie: CutTieRecord | None = None  # None: no item was left out at the score of the cut
    affirmative_share: SelectionAndPool[float]
    mean_seconds: SelectionAndPool[float | None]
    scores: SelectionAndPool[Quartiles]
    matching: dict[str, MatchingEffect] | None = None
    residual_imbalance: ResidualImbalanceRecord | None = None


class AxisAgreementRecord(Record):
    """Agreement of each pair of axes: square matrices over `axes`."""

    axes: list[str]
    spearman: list[list[float | None]]
    overlap_closest: list[list[float | None]]

    @model_validator(mode="after")
    def _check_square(self) -> AxisAgreementRecord:
        size = len(self.axes)
        for name, matrix in (("spearman", self.spearman), ("overlap_closest", self.overlap_closest)):
            if len(matrix) != size or any(len(row) != size for row in matrix):
                raise ValueError(f"{name} is not a square matrix over the {size} axes")
        return self


class TiedShares(Record):
    """The share of items whose score another item has too, on each axis of a pair."""

    axis_a: float
    axis_b: float


class AxisPair(Record):
    """Agreement of a reference axis with a model's own axis, over `n` samples in `clusters` groups."""

    axis_a: str
    axis_b: str
    n: int
    clusters: int
    spearman: ValueWithInterval
    overlap: ValueWithInterval
    chance: float  # of the overlap
    tied: TiedShares
    cka: ValueWithInterval | None = None
    cka_biased: float | None = None


class AxisFingerprintRecord(Record):
    """Agreement of the reference axes with a model's own axis.

    `lead_share` is the share of draws in which an axis agrees most, by measure and axis. `dominant_axis` is the axis
    with a clear lead, by measure, or None.
    """

    model: str
    internal_axis: str
    pairs: list[AxisPair] = []
    lead_share: dict[str, dict[str, float]] = {}
    dominant_axis: dict[str, str | None] = {}


class CorpusCounts(Record):
    """Number of items, or of groups of items, of each corpus that a screening score uses."""

    pool: int
    benign_reference: int
    held_out: int


class ThresholdPointRecord(Record):
    """The pool against the benign reference at one threshold of distance."""

    quantile: float
    threshold: float
    share: ValueWithInterval
    held_out_share: ValueWithInterval
    excess: ValueWithInterval
    mass: ValueWithInterval
    held_out_mass: ValueWithInterval


class ScreeningScoreRecord(Record):
    """The screening score of the pool on one axis."""

    model: str
    axis: str
    harm_set: str
    score: str
    n: CorpusCounts
    clusters: CorpusCounts
    value: ValueWithInterval
    held_out: ValueWithInterval
    curve: list[ThresholdPointRecord] = []


class ScoreVsJsrPoint(Record):
    """One selection: the screening score of its samples, and the mean rate of the runs trained on them."""

    arm: str
    selection_hash: str
    score: float
    rate: float
    n_runs: int


class ScoreVsJsrRecord(Record):
    """Scores of `n` selections on one axis, each with the rate after training on it."""

    model: str
    axis: str
    train_modality: str
    prompt_set: str
    metric: Metric
    n: int
    spearman: ValueWithInterval
    points: list[ScoreVsJsrPoint] = []


class CorpusOverlap(Record):
    """Number of pairs of items that two corpora share or nearly share."""

    corpus_a: str
    corpus_b: str
    kind: str
    pairs: int


class RehearsedSet(Record):
    """A set of samples, and the reference harm set after a short training on it.

    `loss` is of refusal margin, in nats: above 0 the model refuses less. `loss_minus_random` is the loss less that of
    random sets of the same size. `compliance` is the share of reference prompts that the model would rather comply with
    (margin below 0), a mean over seeds, and `compliance_change` how much larger it is than before.
    """

    name: str
    kind: str  # pool | selection | random | column
    n: int
    ids_hash: str
    loss: ValueWithInterval
    loss_minus_random: ValueWithInterval | None = None
    compliance: float
    compliance_change: ValueWithInterval


class RehearsalRecord(Record):
    """Rehearsals of sets of one pool under one recipe: evidence for their ranking, and no proof of safety.

    Intervals are over behaviors of the reference harm set and, with several seeds, over seeds.
    """

    model: str
    harm_set: str
    modality: str
    steps: int
    seeds: list[int]
    learning_rate: float
    learning_rate_schedule: str
    warmup_steps: int
    batch_size: int
    lora_rank: int
    lora_alpha: int
    n_prompts: int
    n_behaviors: int
    margin_before: float
    compliance_before: float
    sets: list[RehearsedSet]
    left_out: dict[str, int] = {}  # values of the column with too few samples to rehearse, and their numbers
    notes: list[str] = []
