"""A results file of a made-up study, for the tests of reports of research."""

from results_fixtures import make_results as make_results
from results_fixtures import results as results
