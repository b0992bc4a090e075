"""The command line, and the only place that reads arguments: arguments -> records, errors -> exit statuses.

Every heavy import happens inside the command that needs it, so that --help is immediate.
Exit statuses: 0 done (LoadGen's verdict, VALID or INVALID, is printed), 1 a run failed, 2 bad input, 128 + n ended
by signal n.
"""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Final

import click

from ..errors import BadInputError, HarnessError, RunInterruptedError
from . import data, quantize, report, runs, submission


def _one_spelling(name: str) -> str:
    """A dash and an underscore in a flag are the same flag."""
    return name.replace("_", "-")


_CONTEXT: Final = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": _one_spelling,
    "max_content_width": 120,
}


_EPILOG: Final = "Exit status: 0 done, LoadGen's verdict is printed; 1 a run failed; 2 bad input; 130 after Ctrl-C."


@click.group(context_settings=_CONTEXT, epilog=_EPILOG)
@click.version_option(package_name="loadgen-numba")
def cli() -> None:
    """MLPerf Inference on CPUs: the official LoadGen over Numba-compiled kernels."""


for command in (
    *(runs.run, runs.preprocess, runs.demo, runs.accuracy, runs.bench, runs.plan),
    *(data.get_model, data.prepare_imagenet, quantize.quantize, quantize.get_calibration_list),
    *(submission.doctor, submission.tune_load, submission.campaign, submission.audit),
    *(submission.describe_system, submission.package_command, submission.check, report.report),
):
    cli.add_command(command)


def main() -> None:
    """Console script."""
    sys.exit(exit_status(sys.argv[1:]))


def exit_status(arguments: list[str]) -> int:
    """Run a command line to its end; everything the user is told has then been printed."""
    debug = "--debug" in arguments
    try:
        cli.main(arguments, prog_name="loadgen-numba", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted by SIGINT", 128 + signal.SIGINT, debug)
    except RunInterruptedError as error:
        return _fail(str(error), 128 + error.signal_number, debug)
    except BadInputError as error:
        return _fail(str(error), 2, debug)
    except HarnessError as error:
        return _fail(str(error), 1, debug)
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1, debug)
    return 0


def _fail(text: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"error: {text}", err=True)
    return status
