"""An experiment from settings and data that a test has made itself."""

from ops.api import Experiment
from ops.config.cli import Request
from ops.config.console import Console
from ops.config.settings import LaunchSettings


def experiment_of(method, settings, data, **launch):
    """What a command would resolve to with these settings, on this data without labels."""
    request = Request(settings, LaunchSettings(**launch), {}, "a test")
    return Experiment(method, request, data, None, None, Console(quiet=True), 1)
