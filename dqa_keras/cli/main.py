"""Runs one command; the launcher answers what needs no TensorFlow."""

import importlib
import logging
import re
import sys
from typing import NoReturn

from absl import flags
from dqa_launcher import answer

from dqa_keras.calibration.distribution import LostWorkerError
from dqa_keras.cli.measure import ShortfallError
from dqa_keras.export import VerificationError


def _fail(code: int, message: str) -> NoReturn:
    first, *rest = message.strip().splitlines() or ["unknown error"]
    print(f"dqa: {' '.join([first, *map(str.strip, rest)])}", file=sys.stderr)
    sys.exit(code)


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
        print(command.__doc__)
        print(values.get_help())
        sys.exit(0)
    try:
        left = values([f"dqa {name}", *rest])[1:]
    except flags.Error as error:
        missing = re.findall(r"flag --(\w+)=None:", str(error))
        rule = f"{name} needs --{', --'.join(missing)}" if missing else str(error)
        _fail(2, f"{rule} (see dqa {name} --help)")
    # Advice to whoever wrote the program, such as on retracing, is not for its users.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        command.main(values, left)
    except (ShortfallError, VerificationError, LostWorkerError) as error:
        _fail(1, str(error))
    except (ValueError, OSError) as error:
        _fail(2, str(error))
    except KeyboardInterrupt:
        _fail(130, "interrupted")
    sys.exit(0)
