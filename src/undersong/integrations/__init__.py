"""Where undersong meets other people's machinery: a gate for continuous integration."""

from undersong.integrations.gate import Checked, Limits, Rate, check, sentence

__all__ = ["Checked", "Limits", "Rate", "check", "sentence"]
