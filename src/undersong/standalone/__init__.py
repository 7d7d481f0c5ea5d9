"""`tune` and `evaluate` on a manifest, without a study or a store.  The output folder appears whole or not at all."""
