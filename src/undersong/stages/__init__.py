"""Stages of an audit. Every function looks an artifact up in the store or makes it; looking up loads no model."""
