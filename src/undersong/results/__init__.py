"""Results of a study: the schema of results.json, and the parts that are computed from an audit's artifacts."""
