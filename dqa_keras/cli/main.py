"""Runs one command; the launcher answers what needs no TensorFlow."""

import importlib
import logging
import re
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from absl import flags
from dqa_launcher import answer, discard_output, flushed

from dqa_keras.analysis.text import printable
from dqa_keras.calibration.distribution import LostWorkerError
from dqa_keras.cli.measure import ShortfallError
from dqa_keras.export import VerificationError

# Flags of which commands say themselves what an empty one lacks.
_OWN_WORDS = ("data", "model", "output", "package")


def _fail(code: int, message: str) -> NoReturn:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = printable(" ".join(lines or ["unknown error"]))
    print(f"dqa: {text}", file=sys.stderr)
    sys.exit(flushed(code))


def _reason(error: Exception) -> str:
    """What an error says that no command foresaw."""
    # What Python raised within a tf.data pipeline, such as at an image.
    raised = re.search(r"[}:] (?:ValueError|OSError): (.*)", str(error))
    if raised:
        return raised.group(1)
    place = traceback.extract_tb(error.__traceback__)[-1]
    lines = str(error).strip().splitlines()
    return (
        f"{type(error).__name__}: {lines[0] if lines else 'no reason given'} "
        f"(in {Path(place.filename).name}, line {place.lineno}). dqa did not foresee "
        "this: please report it."
    )


def run(arguments: list[str]) -> NoReturn:
    """The `dqa` command.

    Args:
        arguments: Command line without the program's name.
    """
    answer(arguments)
    name, *rest = arguments
    command = importlib.import_module(f"dqa_keras.cli.{name}")
    values = flags.FlagValues()
    command.define(values)
    # What follows a benchmark's name is for the benchmark.
    own = rest if values.is_gnu_getopt() else rest[:1]
    if "--help" in own or "-h" in own:
        sys.exit(flushed(0, f"{command.__doc__}\n{values.get_help()}"))
    try:
        left = values([f"dqa {name}", *rest])[1:]
    except flags.Error as error:
        missing = re.findall(r"flag --(\w+)=None:", str(error))
        rule = f"{name} needs --{', --'.join(missing)}" if missing else str(error)
        _fail(2, f"{rule} (see dqa {name} --help)")
    # As where a shell's variable is not set: not the same as no flag.
    empty = [flag for flag in values if values[flag].value == ""]
    if empty := [flag for flag in empty if flag not in _OWN_WORDS]:
        _fail(2, f"--{empty[0]} must not be empty (see dqa {name} --help)")
    # Advice to whoever wrote the program, such as on retracing, is not for its users.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        command.main(values, left)
    except (ShortfallError, VerificationError, LostWorkerError) as error:
        _fail(1, str(error))
    except BrokenPipeError:  # nobody reads on, and nobody is told
        discard_output()
        sys.exit(flushed(2))
    except OSError as error:
        _fail(
            2, f"{error.filename}: {error.strerror}" if error.filename else str(error)
        )
    except ValueError as error:
        _fail(2, str(error))
    except KeyboardInterrupt:
        _fail(130, "interrupted")
    except Exception as error:
        _fail(2, _reason(error))
    sys.exit(flushed(0))
