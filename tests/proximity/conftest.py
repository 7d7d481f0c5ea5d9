"""No time limit on an example: the first one pays for imports that stay inside functions."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
