"""Picks the `paper` preset's share of important channels, on training images alone.

    python benchmarks/paper_share.py --weights resnet32_cifar10.npz --data_dir tfds \
        --json benchmarks/results/paper_share.json

ResNet-32 on CIFAR-10: calibrated on the first 1,000 training images, measured on 4,000
other training images. The share picked is the smallest at which DQA leads direct
quantization and NoisyQuant by 5 points or more at 3, 4 and 5 bits: near chance level a
smaller lead comes and goes with the share. No test image is read.
"""

import os

from shared import resnet32, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BITS = (3, 4, 5)
SHARES = (0.25, 0.5, 0.625, 0.75, 0.875)
CALIBRATION, SKIPPED, HELD_OUT = 1000, 20000, 4000
MARGIN = 5.0
BATCH = 128


def use_share(quantized, share: float) -> None:
    """Gives the extra bits to this share; the ranking stays as calibrated."""
    import numpy as np

    from dqa_keras.calibration.allocation import top_share
    from dqa_keras.layers import quantizer_layers

    for layer in quantizer_layers(quantized):
        mask, scale = layer.mask.numpy(), layer.scale.numpy()
        # One range a tensor: one coarse and one fine step.
        coarse, fine = scale[~mask][0], scale[mask][0]
        mask = top_share(layer.importance.numpy(), share)
        scale = np.where(mask, fine, coarse).astype(np.float32)
        layer.mask.assign(mask)
        layer.scale.assign(scale)
        layer.inverse_scale.assign(np.float32(1) / scale)


def measure(model, train) -> dict:
    """Accuracy in percent, by bits, of the baselines and of DQA by share."""
    import dqa_keras as dqa
    from dqa_keras.cli.measure import accuracy

    calibration = train.take(CALIBRATION).batch(BATCH)
    held_out = train.skip(SKIPPED).take(HELD_OUT).cache()
    rows = {"float": accuracy(model, held_out)}
    for bits in BITS:
        row: dict = {}
        for method in ("direct", "noisyquant"):
            config = dqa.DQAConfig.paper(bits, method=method)
            quantized = dqa.quantize_model(model, config)
            dqa.calibrate(quantized, calibration, batch_size=BATCH, verbose=0)
            row[method] = accuracy(quantized, held_out)
        config = dqa.DQAConfig.paper(bits, important_fraction=0.5)
        quantized = dqa.quantize_model(model, config)
        dqa.calibrate(quantized, calibration, batch_size=BATCH)
        row["dqa"] = {}
        for share in SHARES:
            use_share(quantized, share)
            row["dqa"][str(share)] = accuracy(quantized, held_out)
        print(bits, row, flush=True)
        rows[str(bits)] = row
    return rows


def pick(rows: dict) -> float | None:
    """The smallest share that leads both baselines by `MARGIN` at all bits."""
    for share in SHARES:
        cells = (rows[str(bits)] for bits in BITS)
        if all(
            cell["dqa"][str(share)] - max(cell["direct"], cell["noisyquant"]) >= MARGIN
            for cell in cells
        ):
            return share
    return None


def main() -> None:
    parser = resnet32.parser(__doc__.splitlines()[0])
    options = parser.parse_args()

    model, train = resnet32.load(options)
    rows = measure(model, train)
    result = {"held_out_images": HELD_OUT, "rows": rows, "share": pick(rows)}
    print("share:", result["share"])
    if options.json:
        results.write(options.json, result)


if __name__ == "__main__":
    main()
