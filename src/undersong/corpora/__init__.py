"""Corpora: manifests of samples, their formats, decoded audio and duplicate checks.  Does not import models."""
