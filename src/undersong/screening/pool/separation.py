"""Does each axis of a screening tell harm from ordinary data? AUC by held-out halves of each harm set, for the report,
the terminal and the page."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from undersong.screening.pool.inputs import CorpusInput, ScreeningCorpora
from undersong.screening.pool.options import PRECOMPUTED, SHIPPED_HARM, SHIPPED_ORDINARY, ScreeningOptions
from undersong.statistics.bootstrap import Interval
from undersong.types import Embeddings, Sample, UndersongError

FITTED_ENCODERS = ("tfidf", "char-ngrams")  # of words; refitted on harm and shipped requests within a second
MAX_ITEMS = 3000  # of each side that are measured, drawn at random
BENIGN_REFERENCE = "the benign reference"
SEED = 0  # of draws and halves; fixed, because the cached findings do not depend on the seed of selections


def measure_separation(
    corpora: ScreeningCorpora,
    axes: Mapping[str, str],
    embeddings: Mapping[str, Sequence[Embeddings]],
    harm_samples: Mapping[str, Mapping[str, Embeddings]],
    options: ScreeningOptions,
) -> list[dict[str, Any]]:
    """Measure how well each axis tells each harm set from ordinary data, or say why it was not measured.

    Ordinary data are the benign reference. Without one, axes that are fitted on words are measured with the requests
    that ship, by an encoder that is fitted on both sides alone; the ranking stays as it is.

    Args:
        corpora: The corpora.
        axes: Encoder of each axis.
        embeddings: Embeddings of each corpus, by axis.
        harm_samples: Vectors of each harm set as samples, by axis, of axes that run the model.
        options: Options of the screening.

    Returns:
        An entry for each axis and harm set: `axis`, `harm_set`, `ordinary` (what they were told from), `n` (items of
        both sides), `auc`, `separates`, and `reason`, which is None unless nothing was measured.
    """
    from undersong.proximity.separation import axis_level, separates

    sides: dict[tuple[str, str], _Sides | str] = {}
    for axis, encoder in axes.items():
        for number, (name, harm) in enumerate(corpora.harm.items(), 1):
            harm_side = embeddings[axis][number]
            if corpora.benign is not None:
                samples = harm_samples[axis][name] if axis in harm_samples else harm_side
                sides[axis, name] = (
                    "this axis has no distance to single harmful items"
                    if is_gradient_matching(encoder)
                    else _reference_sides(samples, harm_side, embeddings[axis][-1], harm, corpora.benign)
                )
            else:
                sides[axis, name] = _shipped_sides(encoder, harm, options)
    level = axis_level(sum(isinstance(found, _Sides) for found in sides.values()) or 1)
    entries = []
    for (axis, name), found in sides.items():
        auc = reason = None
        if isinstance(found, _Sides):
            auc = found.auc(_measure(axes[axis], options), level)
        else:
            reason = found
        entries.append(
            {
                "axis": axis,
                "harm_set": name,
                "ordinary": found.ordinary_name if isinstance(found, _Sides) else None,
                "n": found.sizes if isinstance(found, _Sides) else None,
                "auc": None if auc is None else asdict(auc),
                "separates": None if auc is None else separates(auc),
                "reason": reason,
            }
        )
    return entries


@dataclass(frozen=True)
class _Sides:
    """Vectors of harm and ordinary items, and the cluster of each.

    Attributes:
        harm: The harmful items as samples.
        anchors: The same as a target; another side if the axis runs the model.
        ordinary: The ordinary items.
        harm_clusters, ordinary_clusters: Cluster of each item.
        ordinary_name: What the ordinary items are called.
    """

    harm: Embeddings
    anchors: Embeddings
    ordinary: Embeddings
    harm_clusters: Sequence[Hashable]
    ordinary_clusters: Sequence[Hashable]
    ordinary_name: str

    @property
    def sizes(self) -> list[int]:
        """Number of measured items of harm and of ordinary data."""
        return [min(MAX_ITEMS, len(side.ids)) for side in (self.harm, self.ordinary)]

    def auc(self, measure: Mapping[str, Any], level: float) -> Interval:
        """AUC by the ranking's own distance."""
        from undersong.proximity.separation import separation_auc
        from undersong.proximity.table import COSINE, DISTANCE_FUNCTIONS, parse_score

        harm_rows, ordinary_rows = (_drawn_rows(len(side.ids)) for side in (self.harm, self.ordinary))
        harm, ordinary = self.harm.vectors[harm_rows], self.ordinary.vectors[ordinary_rows]
        ids, anchor_rows = self.harm.ids, {id: row for row, id in enumerate(self.anchors.ids)}
        distances = DISTANCE_FUNCTIONS[measure.get("metric", COSINE)]

        def to_half(target: np.ndarray, heldout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = [anchor_rows[ids[row]] for row in harm_rows[target] if ids[row] in anchor_rows]
            anchors = self.anchors.vectors[rows]
            kind, k = parse_score(measure["score"], len(rows))
            column = {"nearest": "distance", "knn": "knn_distance", "centroid": "centroid_distance"}[kind]
            harmful, benign = (
                getattr(distances(side, anchors, k=min(k, len(rows))), column) for side in (harm[heldout], ordinary)
            )
            return harmful, benign

        return separation_auc(
            to_half,
            [self.harm_clusters[row] for row in harm_rows],
            [self.ordinary_clusters[row] for row in ordinary_rows],
            seed=SEED,
            level=level,
        )


def _reference_sides(
    harm: Embeddings, anchors: Embeddings, benign: Embeddings, harm_input: CorpusInput, benign_input: CorpusInput
) -> _Sides | str:
    return _checked_sides(
        _Sides(
            harm,
            anchors,
            benign,
            _cluster_names(harm, harm_input.samples),
            _cluster_names(benign, benign_input.samples),
            BENIGN_REFERENCE,
        )
    )


def _shipped_sides(encoder: str, harm: CorpusInput, options: ScreeningOptions) -> _Sides | str:
    """Harm and the requests that ship, by an encoder of words that is fitted on both."""
    from undersong.corpora.registry import open_corpus
    from undersong.encoders.registry import make_encoder
    from undersong.encoders.spec import parse_encoder

    if encoder == PRECOMPUTED or parse_encoder(encoder).kind not in FITTED_ENCODERS:
        return "name ordinary data with --benign-reference"
    if options.center:
        return "distances are centered on the pool; leave --center out"
    samples = _drawn(harm.samples)
    if reason := _too_few([sample.cluster for sample in samples]):
        return reason
    ordinary = _drawn(open_corpus(SHIPPED_ORDINARY).samples)
    fitted = make_encoder(encoder, fit=[*samples, *ordinary])
    harm_side, ordinary_side = fitted.encode(samples), fitted.encode(ordinary)
    clusters = _cluster_names(harm_side, samples), _cluster_names(ordinary_side, ordinary)
    return _checked_sides(_Sides(harm_side, harm_side, ordinary_side, *clusters, SHIPPED_ORDINARY))


def _checked_sides(sides: _Sides) -> _Sides | str:
    """The sides, or why they cannot be measured."""
    if len(set(sides.ordinary_clusters)) < 2:
        return f"{sides.ordinary_name} has too few items"
    return _too_few(sides.harm_clusters) or sides


def _too_few(harm_clusters: Sequence[Hashable]) -> str | None:
    """Why a harm set cannot be split into halves; None if it can."""
    from undersong.proximity.separation import MIN_HARM_CLUSTERS

    number = len(set(harm_clusters))
    return None if number >= MIN_HARM_CLUSTERS else f"a harm set needs {MIN_HARM_CLUSTERS} different requests or more"


def _measure(encoder: str, options: ScreeningOptions) -> Mapping[str, Any]:
    """Score and metric that an axis ranks by."""
    from undersong.predictors.registry import axis_measure

    return {"score": options.score, **({} if encoder == PRECOMPUTED else axis_measure(encoder))}


def _cluster_names(embeddings: Embeddings, samples: Sequence[Sample]) -> list[Hashable]:
    clusters = {sample.id: sample.cluster for sample in samples}
    return [clusters.get(id, id) for id in embeddings.ids]


def is_gradient_matching(encoder: str) -> bool:
    """True for gradient matching, whose anchors are a few harmful items less the refusals of others."""
    from undersong.encoders.spec import GRADIENT_MATCHING, parse_encoder

    return encoder != PRECOMPUTED and parse_encoder(encoder).kind == GRADIENT_MATCHING


def _drawn_rows(number: int) -> np.ndarray:
    return np.sort(np.random.default_rng(SEED).permutation(number)[:MAX_ITEMS])


def _drawn(samples: Sequence[Sample]) -> list[Sample]:
    return [samples[row] for row in _drawn_rows(len(samples))]


def check_select_axis(separation: Sequence[Mapping[str, Any]], axis: str, harm_set: str) -> None:
    """Check that an axis that nobody named does not choose what is kept although it tells nothing of harm.

    Args:
        separation: What `measure_separation` gave.
        axis: The axis to select by.
        harm_set: The harm set to select by.

    Raises:
        UndersongError: The axis does not tell harm from ordinary data.
    """
    entry = _entry(separation, axis, harm_set)
    if entry["separates"] is not False:
        return
    others = [other["axis"] for other in separation if other["harm_set"] == harm_set and other["separates"]]
    hint = f"--select-axis {' or '.join(others)}, which does, or " if others else ""
    raise UndersongError(
        f"{_sentence(entry, several=False).removesuffix('.')}, so it should not choose what is kept; give {hint}"
        f"--select-axis {axis} to keep by it all the same."
    )


def separation_lines(report: Mapping[str, Any]) -> list[str]:
    """What `screening.json` says of each axis: does it tell harm from ordinary data, and if not measured, why."""
    entries = report["separation"]
    several = len({entry["harm_set"] for entry in entries}) > 1
    lines = [measured_line(entry, several) for entry in entries if entry["auc"] is not None]
    if any(entry["ordinary"] == SHIPPED_ORDINARY and entry["harm_set"] != SHIPPED_HARM for entry in entries):
        lines.append(
            f"{SHIPPED_ORDINARY} may differ from your harm set in other ways than harm; --benign-reference measures "
            "with ordinary data of your own."
        )
    unmeasured: dict[str, list[str]] = {}
    for entry in entries:
        if entry["auc"] is None:
            unmeasured.setdefault(entry["reason"], []).append(_label(entry, several))
    lines += [
        f"Not measured whether {', '.join(labels)} {'tells' if len(labels) == 1 else 'tell'} harm from ordinary data: "
        f"{reason}."
        for reason, labels in unmeasured.items()
    ]
    return lines


def measured_line(entry: Mapping[str, Any], several: bool) -> str:
    """Say how well an axis tells harm from ordinary data, and what that means for its ranking.

    Args:
        entry: A measured entry of `separation`.
        several: True if there are several harm sets.
    """
    sentence = _sentence(entry, several)
    return sentence if entry["separates"] else f"{sentence} We found no evidence that its ranking follows harm."


def page_summary(report: Mapping[str, Any]) -> tuple[str, str]:
    """Headline and sentences of a page: what the ranking of the axis that is selected by is worth, and how the pool
    compares with the benign reference if there is one."""
    axis, harm_set = report["selected_by"]["axis"], report["selected_by"]["harm_set"]
    entry = _entry(report["separation"], axis, harm_set)
    several = len({entry["harm_set"] for entry in report["separation"]}) > 1
    if entry["auc"] is None:
        headline = f"Ranked by {axis}, of which it is not measured whether it tells harm from ordinary data"
        sentences = [f"Not measured: {entry['reason']}."]
    elif entry["separates"]:
        headline = f"Ranked by {axis}, which tells harm from {entry['ordinary']}"
        sentences = [measured_line(entry, several)]
    else:
        headline = f"No evidence that the ranking by {axis} follows harm"
        sentences = [_sentence(entry, several)]
    scores = [
        score
        for score in report.get("screening_scores", ())
        if (score["axis"], score["harm_set"]) == (axis, harm_set) and entry["separates"] is not False
    ]
    return headline, " ".join([*sentences, *map(_pool_sentence, scores)])


def _pool_sentence(score: Mapping[str, Any]) -> str:
    """How the pool compares with the benign reference."""
    value = score["value"]
    if value["low"] is None:
        return f"The screening score of the pool is {value['value']:+.3f}, without an interval."
    number = f"screening score {value['value']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"
    if value["low"] > 0:
        return f"The pool lies closer to harm than {BENIGN_REFERENCE} does ({number})."
    if value["high"] < 0:
        return f"The pool lies farther from harm than {BENIGN_REFERENCE} does ({number})."
    return (
        f"We found no significant difference between the pool and {BENIGN_REFERENCE} in their distance to harm "
        f"({number})."
    )


def _entry(separation: Sequence[Mapping[str, Any]], axis: str, harm_set: str) -> Mapping[str, Any]:
    return next(entry for entry in separation if (entry["axis"], entry["harm_set"]) == (axis, harm_set))


def _label(entry: Mapping[str, Any], several: bool) -> str:
    return f"{entry['axis']} to {entry['harm_set']}" if several else str(entry["axis"])


def _sentence(entry: Mapping[str, Any], several: bool) -> str:
    from undersong.proximity.separation import separation_sentence

    return separation_sentence(_label(entry, several), Interval(**entry["auc"]), entry["ordinary"])
