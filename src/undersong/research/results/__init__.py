"""Records of research in results.json, computed from an audit's artifacts."""
