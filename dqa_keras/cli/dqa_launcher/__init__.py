"""Starts the `dqa` command; installed as the top-level package `dqa_launcher`.

Importing anything of `dqa_keras` imports TensorFlow, whose C++ side writes start-up
messages straight to file descriptor 2. So the start must lie outside that package: it
silences native code first and leaves Python's own messages visible.
"""

import contextlib
import difflib
import os
import sys

# What each command does. Its module is `dqa_keras.cli.NAME`.
COMMANDS = {
    "quantize": "a Keras model and data in, a checked .tflite out",
    "evaluate": "accuracy and stored bits of methods, bits and presets on a data set",
    "export": "a calibrated .keras file to .tflite",
    "report": "one page on a model: accuracy, layers, errors, memory, channels",
    "inspect": "what a .tflite or .keras file says about its quantizers",
    "bench": "one of the benchmarks behind the README's figures",
    "demo": "train, quantize, export and compare on real digits, offline",
}


def usage() -> str:
    """Help on the command as a whole."""
    width = max(map(len, COMMANDS))
    lines = [f"  dqa {name:{width}}   {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Quantizes Keras models with DQA and exports them to .tflite.",
            "",
            "Usage: dqa COMMAND [--flags]",
            "",
            *lines,
            "",
            "`dqa COMMAND --help` explains a command with an example.",
            "Exit codes: 0 done, 1 a figure or check fell short, 2 bad input.",
        ]
    )


def flushed(code: int, text: str = "") -> int:
    """Prints a text and all before it: the exit code, 2 where 0 finds no place.

    A closed pipe, as of `dqa inspect m.tflite | head`, is told to nobody.
    """
    try:
        if text:
            print(text)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        discard_output()
        code = code or 2
        if not isinstance(error, BrokenPipeError):
            print(f"dqa: cannot print: {error.strerror}", file=sys.stderr)
    return code


def discard_output() -> None:
    """Throws away what is still to be printed: it cannot be."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(arguments: list[str]) -> None:
    """Exits with help, or an error, if no command has to run."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.exit(flushed(0 if arguments else 2, usage()))
    if arguments[0] not in COMMANDS:
        near = difflib.get_close_matches(arguments[0], COMMANDS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(
            f"dqa: unknown command {arguments[0]!r}. Commands: {', '.join(COMMANDS)}."
            + hint,
            file=sys.stderr,
        )
        sys.exit(flushed(2))


def run() -> None:
    """The `dqa` command."""
    # Importing TensorFlow takes seconds; help and typing errors should not.
    answer(sys.argv[1:])
    if sys.stderr is not None:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        from dqa_keras.cli.main import run as command
    except KeyboardInterrupt:
        sys.exit(130)

    command(sys.argv[1:])
