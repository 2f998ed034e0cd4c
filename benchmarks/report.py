"""Size of the report's page, and how long a browser takes to open it.

    python benchmarks/report.py --json benchmarks/results/report.json

Pages of MobileNetV2 (CIFAR-10's size) and U-Net (CamVid's size), random weights and
random images: the page's weight depends on the number of layers and channels, not on
what they compute. Opening is from navigation to the load event, in headless Chromium
with an empty cache, each time in a new tab; the median of `--rounds`. Needs
`make browser` and the test extra.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from shared import arguments, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NAMES = ("mobilenet_v2", "unet")


def write(name: str, path: Path, images: int) -> None:
    """Writes the page of one model."""
    import keras
    import numpy as np
    import tensorflow as tf

    import dqa_keras as dqa
    from dqa_keras import models
    from dqa_keras.report import page
    from dqa_keras.report.findings import examine

    keras.utils.set_random_seed(0)
    model = getattr(models, name)()
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (images, *model.input_shape[1:])).astype(np.float32)
    y = random.integers(0, 10, (images, *model.output_shape[1:-1]))
    quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
    dqa.calibrate(quantized, x, batch_size=8, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    path.write_text(page.render(examine(quantized, data, data)))


def opening_seconds(path: Path, rounds: int) -> list[float]:
    """Seconds from navigation to the load event."""
    from shared import browser

    with tempfile.TemporaryDirectory() as profile:
        driver = browser.start(profile)
        try:
            times = []
            for _ in range(rounds):
                driver.switch_to.new_window("tab")
                driver.get(path.as_uri())
                entry = driver.execute_script(
                    "return performance.getEntriesByType('navigation')[0].toJSON()"
                )
                times.append(entry["loadEventEnd"] / 1000)
            return times
        finally:
            driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=arguments.output, help="file for the figures")
    parser.add_argument("--rounds", type=arguments.count, default=9)
    parser.add_argument("--images", type=arguments.count, default=16)
    options = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = Path(folder) / f"{name}.html"
            write(name, path, options.images)
            seconds = opening_seconds(path, options.rounds)
            result[name] = {
                "bytes": path.stat().st_size,
                "seconds": statistics.median(seconds),
                "slowest_seconds": max(seconds),
            }
            print(
                f"{name}: {path.stat().st_size / 1024:.0f} KiB, opens in "
                f"{result[name]['seconds']:.2f} s (slowest {max(seconds):.2f} s)",
                flush=True,
            )
    if options.json:
        results.write(options.json, result)


if __name__ == "__main__":
    main()
