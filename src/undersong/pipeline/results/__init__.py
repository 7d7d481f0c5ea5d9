"""results.json, part by part, from an audit's artefacts.  Makes no measurement."""

from undersong.defenses.results import defense_costs
from undersong.pipeline.assembly import assemble_results, result_hash

__all__ = ["assemble_results", "defense_costs", "result_hash"]
