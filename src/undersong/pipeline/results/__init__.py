"""results.json, part by part, from an audit's artefacts.  Makes no measurement."""

from undersong.pipeline.results.assembled import assemble, result_hash

__all__ = ["assemble", "result_hash"]
