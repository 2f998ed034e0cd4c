"""The launcher's table and the modules of the commands are the same list."""

from pathlib import Path

from dqa_launcher import COMMANDS, usage

import dqa_keras.cli


def test_every_module_with_flags_is_a_command_and_in_the_help():
    folder = Path(dqa_keras.cli.__file__).parent
    modules = {
        path.stem
        for path in folder.glob("*.py")
        if "\ndef define(values: flags.FlagValues)" in path.read_text()
    }
    assert modules == set(COMMANDS)
    for name, text in COMMANDS.items():
        (line,) = (li for li in usage().splitlines() if li.startswith(f"  dqa {name} "))
        assert line.endswith(f"  {text}")
