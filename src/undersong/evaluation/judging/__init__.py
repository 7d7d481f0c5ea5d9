"""Judges: what a reply is called.  Import the submodule you need; `named` makes one from its name."""
