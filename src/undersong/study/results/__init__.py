"""Parts of results.json that are computed from an audit's artifacts."""
