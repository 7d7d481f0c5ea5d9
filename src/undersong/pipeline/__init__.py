"""Whole studies: the audit, its plan, screening, probing and the commands that work without a study."""
