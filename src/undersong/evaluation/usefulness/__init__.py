"""Usefulness: is a benign prompt answered rightly?  `named` makes a judge from its name; import the submodule you need.

What cannot be parsed is `unparsed`, an outcome of its own, and never a guess (VoiceBench's own scorer draws one there).
"""
