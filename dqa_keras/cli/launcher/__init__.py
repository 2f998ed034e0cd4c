"""Starts the `dqa` command; installed as the top-level package `dqa_launcher`.

Importing anything of `dqa_keras` imports TensorFlow, whose C++ side writes start-up
messages straight to file descriptor 2. So the way in must lie outside that package: it
sends what native code prints to a file first and leaves Python's own messages visible.
"""

import os
import sys
import tempfile


def run() -> None:
    """The `dqa` command."""
    noise = tempfile.TemporaryFile()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(noise.fileno(), 2)
    from dqa_keras.cli.main import run as command

    command(sys.argv[1:])
