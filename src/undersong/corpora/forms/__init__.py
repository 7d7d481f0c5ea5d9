"""Corpora as files of other people: the forms they are read from and written to."""
