"""Builders of the sections of the report page, one module per section."""
