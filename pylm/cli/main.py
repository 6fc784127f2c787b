"""The `pylm` command: finds its subcommands when asked for them; an error is one line and an exit code."""

import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from pylm import __version__
from pylm.errors import Interrupted, PylmError, SaidElsewhere

# Each is the module `pylm.cli.NAME`, whose click command is called `command`. In the order of the work.
COMMANDS = ("tokenize", "train", "generate", "estimate", "tokenizer", "data")


class _LazyGroup(click.Group):
    """Imports a subcommand's module when it is named, so that `pylm tokenize` never pays for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"pylm.cli.{name}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="pylm")
def cli() -> None:
    """From a text file to a trained language model: tokenize, train, generate."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 an error, 2 usage, 130 and 143 after Ctrl-C and SIGTERM."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        result = cli.main(arguments, prog_name="pylm", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of torchrun's processes, which all find it
            error.show()
        return error.exit_code
    except SaidElsewhere as error:
        return error.exit_code
    except Interrupted as error:
        return _fail(str(error), error.exit_code, kind="stopped")
    except PylmError as error:
        return _fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("by Ctrl-C", 130, kind="stopped")
    except BrokenPipeError:  # the reader of our output has gone: nothing is wrong, and nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a path and the system's own words; anything without a path is ours to explain
        if error.filename is None and error.strerror is None:
            raise
        return _fail(f"{error.filename or 'input or output'}: {error.strerror}", 1)


def _fail(message: str, exit_code: int, kind: str = "error") -> int:
    if kind == "stopped" and os.environ.get("RANK", "0") != "0":
        return exit_code  # torchrun stops all its processes: the first one speaks
    click.echo(f"{kind}: {' '.join(message.split())}", err=True)
    return exit_code


def _terminate(signal_number: int, _frame: FrameType | None) -> None:
    raise Interrupted("by SIGTERM", signal_number)
