"""Share of the machine's multiply-accumulate peak that large convolutions reach.

    python benchmarks/peak.py --json benchmarks/results/peak.json

The peak is that of the instruction itself, sums in registers and nothing loaded. The
convolutions are those of the 512x512 U-Net with 64 channels or more on both sides, each
alone in a plan of its own, on one thread; requantizing is part of them. Each is
computed directly and in tiles (Winograd), whose rate counts the products of the direct
way. All are the best of alternating rounds, because other programs can only slow them
down.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from shared import arguments, results

# Side of the image, input channels, output channels.
LAYERS = ((256, 64, 64), (128, 128, 128), (64, 256, 256), (128, 384, 128))


def peaks(program: Path) -> dict[str, float]:
    """GMAC/s by instruction set."""
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    return {
        line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()
    }


def plan_of(side: int, inputs: int, outputs: int, tiles: bool):
    """A 3x3 convolution of 6-bit codes as a plan, with its constants."""
    import numpy as np

    from dqa_keras.export.plan.ops import OpCode, Window
    from dqa_keras.export.plan.program import Operation, Program, Tensor, conv_layout
    from dqa_keras.export.plan.records import Type
    from dqa_keras.export.plan.scheduling import schedule

    random = np.random.default_rng(0)

    def arrays(channels: int, gain: float) -> dict:
        ones = np.ones(-(-channels // 16) * 16, np.float32)
        return {
            "multiplier": gain * ones, "bias": 9 * ones, "low": 0 * ones,
            "high": 63 * ones, "power": ones,
        }  # fmt: skip

    def weights(*shape: int):
        drawn = np.rint(random.normal(size=shape) * 32).clip(-127, 127)
        return conv_layout(drawn.astype(np.int8))

    # Tiles have weights of 4x4 positions.
    code, taps = (OpCode.WINOGRAD, 4) if tiles else (OpCode.CONV, 3)

    def codes(channels: int) -> Tensor:
        return Tensor((side, side, channels), Type.CODES, np.ones(channels), 0, 63)

    shape = (side, side, 1)
    tensors = [
        Tensor(shape, Type.WIDE, np.ones(1), 0, 20000, slot=0),
        codes(inputs),
        codes(outputs),
    ]
    operations = [
        Operation(OpCode.QUANTIZE_INPUT, [0], 0, shift=20000),
        Operation(
            OpCode.CONV, [0], 1, window=Window(),
            arrays={"weights": weights(inputs, 1, 1, 1), **arrays(inputs, 0.3)},
        ),
        Operation(
            code, [1], 2, window=Window(3, 3, top=1, left=1),
            arrays={
                "weights": weights(outputs, taps, taps, inputs),
                **arrays(outputs, 0.01 / inputs**0.5),
            },
        ),
        Operation(
            OpCode.AVERAGE, [2], 0, window=Window(side, side),
            is_output=True,
            arrays={
                key: values
                for key, values in arrays(outputs, 1.0).items()
                if key != "power"
            },
        ),
    ]  # fmt: skip
    program = Program(tensors, operations, [shape], [(1, 1, outputs)], {})
    return schedule(program)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=arguments.output, help="file for the figures")
    parser.add_argument("--rounds", type=arguments.count, default=7)
    options = parser.parse_args()
    import numpy as np

    from dqa_keras.export.plan.encoding import encode
    from dqa_keras.export.plan.ops import OpCode
    from dqa_keras.export.plan.runtime import NativeRuntime, machine_isas

    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        source = Path(__file__).parent / "shared" / "peak.cc"
        subprocess.run(["g++", "-O3", "-std=c++17", source, "-o", program], check=True)
        runs = {}
        for layer in LAYERS:
            for tiles in (False, True):
                plan, constants = plan_of(*layer, tiles)
                for isa in set(machine_isas()) & {"avx2", "avx512-vnni"}:
                    run = NativeRuntime(encode(plan), constants, isa)
                    runs[isa, layer, tiles] = run
        best: dict = {}
        peak: dict[str, float] = {}
        for _ in range(options.rounds):
            for isa, rate in peaks(program).items():
                peak[isa] = max(peak.get(isa, 0.0), rate)
            for key, run in runs.items():
                image = np.zeros(key[1][0] ** 2, np.float32)
                seconds = run.profile()
                run([image])
                # A profile requantizes twice, but for tiles.
                spent = seconds[OpCode.CONV] - seconds[-1]
                if key[2]:
                    spent = seconds[OpCode.WINOGRAD]
                best[key] = min(best.get(key, spent), spent)
    rows = []
    for (isa, (side, inputs, outputs), tiles), seconds in sorted(best.items()):
        products = side * side * 9 * inputs * outputs
        rate = products / seconds / 1e9
        rows.append(
            {
                "isa": isa, "tiles": tiles,
                "side": side, "inputs": inputs, "outputs": outputs,
                "gmacs": rate, "peak": peak[isa], "share": rate / peak[isa],
            }
        )  # fmt: skip
        print(
            f"{isa:12} {'tiles' if tiles else 'direct':6} {side}x{side}, 3x3, "
            f"{inputs} -> {outputs}: {rate:.1f} GMAC/s, "
            f"{100 * rate / peak[isa]:.0f} % of {peak[isa]:.1f}"
        )
    if options.json:
        results.write(options.json, rows)


if __name__ == "__main__":
    main()
