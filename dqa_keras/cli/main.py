"""Quantizes Keras models with DQA and exports them to .tflite.

Usage: dqa COMMAND [--flags]

  dqa quantize   a Keras model and data in, a checked .tflite out
  dqa evaluate   accuracy and stored bits of methods, bits and presets on a data set
  dqa export     a calibrated .keras file to .tflite
  dqa report     one page on a model: accuracy, layers, errors, memory, channels
  dqa inspect    what a .tflite or .keras file says about its quantizers
  dqa bench      one of the benchmarks behind the README's figures
  dqa demo       train, quantize, export and compare on real digits, offline

`dqa COMMAND --help` explains a command with an example.
Exit codes: 0 done, 1 a figure or check fell short, 2 bad input.
"""

import importlib
import logging
import sys
from typing import NoReturn

from absl import flags

from dqa_keras.cli.common import ShortfallError
from dqa_keras.export import VerificationError
from dqa_keras.workers import LostWorkerError

COMMANDS = ("quantize", "evaluate", "export", "report", "inspect", "bench", "demo")


def _fail(code: int, message: str) -> NoReturn:
    first, *rest = message.strip().splitlines() or ["unknown error"]
    print(f"dqa: {' '.join([first, *map(str.strip, rest)])}", file=sys.stderr)
    sys.exit(code)


def run(arguments: list[str]) -> NoReturn:
    """The `dqa` command.

    Args:
        arguments: Command line without the program's name.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        sys.exit(0 if arguments else 2)
    name, *rest = arguments
    if name not in COMMANDS:
        _fail(2, f"unknown command {name!r}. Commands: {', '.join(COMMANDS)}")
    command = importlib.import_module(f"dqa_keras.cli.{name}")
    values = flags.FlagValues()
    command.define(values)
    if "--help" in rest or "-h" in rest:
        print(command.__doc__)
        print(values.get_help())
        sys.exit(0)
    try:
        left = values([f"dqa {name}", *rest])[1:]
    except flags.Error as error:
        _fail(2, f"{error} (see dqa {name} --help)")
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
