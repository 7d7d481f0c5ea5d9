"""Screening of training data: how near a file lies to harm (`check`), and which samples to keep (`screen`)."""
