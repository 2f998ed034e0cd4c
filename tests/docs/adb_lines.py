"""What can be checked of lines for adb without a phone."""

import shlex
import subprocess
from pathlib import PurePosixPath

DEVICE = "/data/local/tmp/"

# Of LiteRT's benchmark_model: tflite/tools/benchmark/README.md at commit 383870e of
# github.com/google-ai-edge/LiteRT; the last two also in that repository's
# tflite/tools/delegates/external_delegate_provider.cc at 7d88950.
FLAGS = frozenset(
    [
        *("graph", "signature_to_run_for", "num_threads", "warmup_runs", "num_runs"),
        *("max_secs", "run_delay", "enable_op_profiling", "dry_run", "verbose"),
        *("report_peak_memory_footprint", "use_gpu", "use_nnapi", "use_xnnpack"),
        *("external_delegate_path", "external_delegate_options"),
    ]
)


def check(code, folder, apart=()):
    """Checks a block: Bash reads it, what it pushes exists, what it names was pushed.

    `apart` are files that come from elsewhere than `folder`; `benchmark_model`, which
    the text beside the lines asks for, is on the device already.
    """
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    lines = [shlex.split(line) for line in code.replace("\\\n", " ").splitlines()]
    device = {f"{DEVICE}benchmark_model"}
    for tool, verb, *words in lines:
        assert tool == "adb"
        if verb == "push":
            *files, target = words
            assert files
            assert target == DEVICE
            for name in files:
                assert name in apart or (folder / name).is_file(), name
                device.add(DEVICE + PurePosixPath(name).name)
        else:
            assert verb == "shell"
            program, *flags = words
            assert program in device
            values = dict(flag.removeprefix("--").split("=") for flag in flags)
            assert set(values) <= FLAGS
            paths = {value for value in values.values() if "/" in value}
            assert paths <= device, paths - device
            assert values["graph"] in paths
    assert any(verb == "shell" for _, verb, *_ in lines)
