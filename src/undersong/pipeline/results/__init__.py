"""results.json, part by part, from an audit's artefacts.  Makes no measurement."""

from undersong.pipeline.results.assembled import assemble_results, result_hash
from undersong.pipeline.results.defended import defense_costs

__all__ = ["assemble_results", "defense_costs", "result_hash"]
