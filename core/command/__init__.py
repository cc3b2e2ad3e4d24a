"""What every verb shares: arguments, configs, the run directory, one style of error, a status for each ending."""

from core.command.arguments import Parsed, parse_arguments, parse_config
from core.command.config import config_from_dict, config_to_dict, differences, read_config
from core.command.directory import RunDirectory, only_writer
from core.command.output import read_facts, say, to_json
from core.command.run import require, run

__all__ = [
    "Parsed",
    "RunDirectory",
    "config_from_dict",
    "config_to_dict",
    "differences",
    "only_writer",
    "parse_arguments",
    "parse_config",
    "read_config",
    "read_facts",
    "require",
    "run",
    "say",
    "to_json",
]
