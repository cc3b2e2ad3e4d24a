"""What every verb shares: arguments, configs, the run directory, one style of error, a status for each ending."""

from core.command.arguments import EvaluateArguments, Parsed, TrainArguments, from_preset, parse_arguments, parse_config
from core.command.config import config_from_dict, config_to_dict, differences, read_config, stored_config
from core.command.describe import fact_lines, measured, rewritten, switches
from core.command.directory import RunDirectory, only_writer
from core.command.findings import CheckArguments, CheckResult, Finding, Severity, condense, from_error, tell
from core.command.outcome import (
    claim_data,
    data_facts,
    discarded_if_refused,
    is_complete,
    read_history,
    source_from,
    write_outcome,
)
from core.command.output import counted, note, read_facts, say, to_json
from core.command.run import require, run

__all__ = [
    "CheckArguments",
    "CheckResult",
    "EvaluateArguments",
    "Finding",
    "Parsed",
    "RunDirectory",
    "Severity",
    "TrainArguments",
    "claim_data",
    "condense",
    "config_from_dict",
    "config_to_dict",
    "counted",
    "data_facts",
    "differences",
    "discarded_if_refused",
    "fact_lines",
    "from_error",
    "from_preset",
    "is_complete",
    "measured",
    "note",
    "only_writer",
    "parse_arguments",
    "parse_config",
    "read_config",
    "read_facts",
    "read_history",
    "require",
    "rewritten",
    "run",
    "say",
    "source_from",
    "stored_config",
    "switches",
    "tell",
    "to_json",
    "write_outcome",
]
