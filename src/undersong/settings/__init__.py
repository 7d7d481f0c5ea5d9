"""Settings that commands and studies share: tuning, evaluation, defaults and judge names."""
