"""results.json, part by part, from an audit's artefacts.  Makes no measurement."""

from undersong.pipeline.results.assembled import assemble, result_hash
from undersong.pipeline.results.defended import defense_costs

__all__ = ["assemble", "defense_costs", "result_hash"]
