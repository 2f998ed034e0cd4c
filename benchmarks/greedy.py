"""What `ranking="greedy"` costs beside a loop of forward passes, and whose order it is.

    dqa bench greedy --data_dir tfds --weights resnet32_cifar10.npz \
        --json benchmarks/results/greedy.json

Calibrates ResNet-32 at the paper's setting, n = 3, on 64 training images of CIFAR-10,
twice: as it is, and inside a subclassed model, whose layers are out of sight, so that
each channel takes a forward pass of the whole model. Seconds are those of `calibrate`;
Kendall's tau compares the two orders of channels, layer by layer.
"""

import os
import statistics
import time

from shared import resnet32, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def hidden(model):
    """The same model with its layers out of sight."""
    import keras

    class Hidden(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def call(self, x):
            return self.inner(x)

    return Hidden()


def ranked(model, images) -> tuple[float, dict]:
    """Seconds of calibration, and the importance of each layer's channels."""
    import dqa_keras as dqa
    from dqa_keras.layers import quantizer_layers

    start = time.perf_counter()
    dqa.calibrate(model, images, verbose=0)
    seconds = time.perf_counter() - start
    layers = quantizer_layers(model)
    return seconds, {layer.name: layer.importance.numpy() for layer in layers}


def main() -> None:
    parser = resnet32.parser(__doc__.splitlines()[0])
    options = parser.parse_args()

    from scipy.stats import kendalltau

    import dqa_keras as dqa

    model, train = resnet32.load(options)
    images = next(train.take(64).batch(64).as_numpy_iterator())[0]
    quantized = [dqa.quantize_model(model, dqa.DQAConfig.paper(3)) for _ in range(2)]
    seconds, scores = ranked(quantized[0], images)
    slow, expected = ranked(hidden(quantized[1]), images)
    taus = [
        kendalltau(ranks, expected[name]).statistic for name, ranks in scores.items()
    ]
    result = {
        "channels": sum(map(len, scores.values())),
        "seconds": seconds,
        "loop_seconds": slow,
        "loop_over_greedy": slow / seconds,
        "mean_tau": float(statistics.mean(taus)),
        "least_tau": float(min(taus)),
    }
    print(result)
    if options.json:
        results.write(options.json, result)


if __name__ == "__main__":
    main()
