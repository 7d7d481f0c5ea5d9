"""Where undersong meets other people's machinery: a gate for continuous integration, trainers, inspect_ai."""

from undersong.integrations.gate.inputs import verdicts_from_files, verdicts_from_study
from undersong.integrations.gate.rates import CheckedRate, RateCheck, RateLimits, check_rates, rate_check_sentence
from undersong.integrations.gate.rises import RiseLimits, RiseTest, evaluate_rises
from undersong.integrations.outcome import FAILED, INCONCLUSIVE, PASSED, GateFinding, exit_code

__all__ = [
    "FAILED",
    "PASSED",
    "INCONCLUSIVE",
    "GateFinding",
    "RateCheck",
    "RiseTest",
    "RateLimits",
    "CheckedRate",
    "RiseLimits",
    "check_rates",
    "exit_code",
    "verdicts_from_files",
    "evaluate_rises",
    "rate_check_sentence",
    "verdicts_from_study",
]
