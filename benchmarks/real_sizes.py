"""Calibrates and plans every model of keras.applications at its real input size.

    dqa bench real_sizes --json benchmarks/results/real_sizes.json

Random weights and images. Each model runs in a process of its own: it predicts, which
is what memory it takes anyhow, and then calibrates one image at a time. Then its packed
export is planned: planning is timed alone, as processor time. Models that the JSON file
already holds are not run again, so the run may be interrupted. Exits with 1 if a model
failed, or if planning one took more than 20 s.
"""

import os
import resource
import sys
import time

from shared import keras_applications

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

IMAGES = 8
MOST_SECONDS = 20  # of planning


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def planning(quantized, image) -> dict:
    """What planning a packed export takes, over all regions of the model."""
    from dqa_keras.export.litert import flatbuffer, metadata
    from dqa_keras.export.litert.conversion import convert
    from dqa_keras.export.packed.pack import programs_of
    from dqa_keras.export.plan.scheduling import schedule

    size = image.shape[1:] if None in quantized.input_shape[1:] else None
    parsed = flatbuffer.parse(convert(quantized, "float32", size))
    described = metadata.describe(quantized, "float32", None, None)
    flatbuffer.attach_metadata(parsed, described)
    programs = programs_of(flatbuffer.serialize(parsed), quantized, image)
    start = time.process_time()
    plans = [schedule(program)[0] for program in programs]
    return {
        "plan_seconds": round(time.process_time() - start, 1),
        "regions": len(programs),
        "operations": sum(len(program.operations) for program in programs),
        "arena_kib": round(sum(plan.arena for plan in plans) / 1024),
    }


def measure(name: str) -> dict:
    import keras
    import numpy as np

    import dqa_keras as dqa
    from dqa_keras.layers import quantizer_layers

    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    # The default input is what the published weights were trained at; some models
    # leave it open, and were trained at 224.
    model = build(weights=None)
    shape = tuple(size or 224 for size in model.input_shape[1:])
    random = np.random.default_rng(0)

    def images(count):
        return (random.random((1, *shape), np.float32) * 255 for _ in range(count))

    quantized = dqa.quantize_model(model, dqa.DQAConfig())
    for image in images(2):
        quantized.predict_on_batch(image)
    before = peak_mib()
    start = time.perf_counter()
    dqa.calibrate(quantized, images(IMAGES), batch_size=1, verbose=0)
    seconds = time.perf_counter() - start
    calibrate_mib = round(peak_mib())
    layers = quantizer_layers(quantized)
    return {
        "input": list(shape),
        "quantizers": len(layers),
        "channels": sum(layer.scale.shape[0] for layer in layers),
        "predict_mib": round(before),
        "calibrate_mib": calibrate_mib,
        "seconds": round(seconds, 1),
        **planning(quantized, next(images(1))),
    }


def main() -> None:
    _, rows = keras_applications.measure_all(__file__, __doc__.splitlines()[0], measure)
    slow = [
        name for name, row in rows.items() if row.get("plan_seconds", 0) > MOST_SECONDS
    ]
    if slow:
        print(f"more than {MOST_SECONDS} s of planning: {', '.join(slow)}")
    sys.exit(bool(slow) or any("error" in row for row in rows.values()))


if __name__ == "__main__":
    main()
