"""Outcomes of harmful prompts by run and cluster, for models in which prompts vary as runs do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from undersong.results.schema import RunResult
from undersong.types import Verdict

PromptEndpoint = Literal["rate", "refusal_margin"]
ClusterMeans = Mapping[str, float]  # by cluster, in the order of the prompts


@dataclass(frozen=True)
class PromptOutcomes:
    """Mean outcome of each cluster of harmful prompts in each run; empty if single prompts are not known.

    Attributes:
        means: Means by endpoint, run, prompt set, modality and system prompt. A run in which a prompt has no refusal
            margin has none of that endpoint.
    """

    means: Mapping[tuple[Any, ...], ClusterMeans] = field(default_factory=dict)

    @classmethod
    def of_runs(cls, runs: Iterable[tuple[RunResult, Sequence[Verdict]]]) -> PromptOutcomes:
        """Outcomes of runs with their verdicts."""
        means: dict[tuple[Any, ...], ClusterMeans] = {}
        for run, verdicts in runs:
            grouped: dict[tuple[str, str, str], dict[str, list[Verdict]]] = {}
            for verdict in verdicts:
                if verdict.harmful:
                    key = verdict.set, verdict.modality, verdict.system
                    grouped.setdefault(key, {}).setdefault(verdict.cluster, []).append(verdict)
            for key, clusters in grouped.items():
                rates = {name: fmean(v.verdict == "jailbreak" for v in rows) for name, rows in clusters.items()}
                means["rate", *_identity(run), *key] = rates
                margins = {name: [verdict.refusal_margin for verdict in rows] for name, rows in clusters.items()}
                known = {name: [m for m in rows if m is not None] for name, rows in margins.items()}
                if all(len(known[name]) == len(rows) for name, rows in margins.items()):
                    means["refusal_margin", *_identity(run), *key] = {name: fmean(known[name]) for name in known}
        return cls(means)

    def find(
        self, endpoint: PromptEndpoint, run: RunResult, set_name: str, modality: str, system: str
    ) -> ClusterMeans | None:
        """Means by cluster of one run on one prompt set; None if they are not known.

        Args:
            endpoint: The endpoint.
            run: The run.
            set_name: Name of the prompt set.
            modality: Modality of the prompts.
            system: Name of the system prompt.
        """
        return self.means.get((endpoint, *_identity(run), set_name, modality, system))


NO_OUTCOMES: PromptOutcomes = PromptOutcomes()


def _identity(run: RunResult) -> tuple[Any, ...]:
    return run.arm, run.base_seed, run.draw, run.seed, run.step
