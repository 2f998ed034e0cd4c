"""What each option of calibration is worth, on training images that it did not see.

    python benchmarks/ablation.py --weights resnet32_cifar10.npz --data_dir tfds \
        --calibration_images 500 --held_out_images 1000 \
        --json benchmarks/results/ablation.json

ResNet-32 on CIFAR-10. Calibrates on the first training images and measures on others:
no test image is read, so options may be chosen by this table. The float network knows
its training images (99.9 %), so the divergence of the predictions from float's says
more than accuracy does. Rows that the file already holds are not computed again; when
all are there, a Markdown table is written beside it.
"""

import json
import os
from pathlib import Path

from shared import arguments, resnet32, results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 100

# Within a group rows differ in one option; the first has the defaults. `correct_bias`
# is the function of that name, all others are fields of `DQAConfig`.
GROUPS: dict[str, dict[str, dict]] = {
    "who gets the bits (budget of 2.5)": {
        "ranking=output (default)": {"budget_bits": 2.5},
        "ranking=fisher": {"budget_bits": 2.5, "ranking": "fisher"},
        "ranking=mse": {"budget_bits": 2.5, "ranking": "mse"},
    },
    "base codes coded too (budget of 2.5)": {
        "entropy=residual (default)": {"budget_bits": 2.5},
        "entropy=all": {"budget_bits": 2.5, "entropy": "all"},
    },
    "biases corrected (budget of 2.5)": {
        "default": {"budget_bits": 2.5},
        "correct_bias": {"budget_bits": 2.5, "correct_bias": True},
    },
    "one n for all (n = 2, m = 2)": {
        "ranking=mse (default)": {"bits": 2},
        "ranking=fisher": {"bits": 2, "ranking": "fisher"},
        "ranking=output": {"bits": 2, "ranking": "output"},
        "clipping=output": {"bits": 2, "clipping": "output"},
        "clipping=max": {"bits": 2, "clipping": "max"},
        "clipping=percentile": {"bits": 2, "clipping": "percentile"},
        "granularity=tensor": {"bits": 2, "granularity": "tensor"},
        "entropy=all": {"bits": 2, "entropy": "all"},
        "correct_bias": {"bits": 2, "correct_bias": True},
    },
    "one n for all (n = 3, m = 2)": {
        "default": {"bits": 3},
        "clipping=output": {"bits": 3, "clipping": "output"},
        "correct_bias": {"bits": 3, "correct_bias": True},
    },
    "no extra bits (n = 2)": {
        "method=direct": {"bits": 2, "method": "direct"},
        "clipping=output": {"bits": 2, "method": "direct", "clipping": "output"},
        "correct_bias": {"bits": 2, "method": "direct", "correct_bias": True},
    },
}


def key(fields: dict) -> str:
    """The options of a row as text."""
    return ", ".join(f"{name}={value}" for name, value in sorted(fields.items()))


def finished(path: Path | None, calibration: int, held_out: int) -> dict:
    """Rows of an earlier run over the same images."""
    if path is None or not path.exists():
        return {}
    results = json.loads(path.read_text())
    counts = results["calibration_images"], results["held_out_images"]
    if counts != (calibration, held_out):
        raise SystemExit(f"{path} holds figures over other images: move it away")
    return results["rows"]


def arrays(train, skip: int, count: int):
    """Images and labels of a part of a `tf.data` set, as NumPy arrays."""
    x, y = next(iter(train.skip(skip).take(count).batch(count)))
    return x.numpy(), y.numpy()


def measure(model, fields: dict, calibration, x, y, expected) -> dict:
    """Accuracy, divergence from float's predictions, and stored bits."""
    import numpy as np

    import dqa_keras as dqa

    config = {name: at for name, at in fields.items() if name != "correct_bias"}
    quantized = dqa.quantize_model(model, dqa.DQAConfig(**config))
    dqa.calibrate(quantized, calibration, batch_size=BATCH, verbose=0)
    if "correct_bias" in fields:
        dqa.correct_bias(quantized, model, calibration)
    predicted = log_softmax(quantized.predict(x, batch_size=BATCH, verbose=0))
    divergence = np.sum(np.exp(expected) * (expected - predicted), -1)
    return {
        "accuracy": 100 * float(np.mean(predicted.argmax(-1) == y)),
        "divergence": float(np.mean(divergence)),
        "stored_bits": dqa.storage_bits(quantized, x, batch_size=BATCH).total,
    }


def log_softmax(logits):
    """Logarithm of the probabilities, float64."""
    import numpy as np

    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def markdown(result: dict) -> str:
    """The table."""
    head = (
        f"ResNet-32, calibrated on {result['calibration_images']} training images, "
        f"measured on {result['held_out_images']} others; float: "
        f"{result['float']:.2f} %."
    )
    lines = [
        head,
        "",
        "| | option | stored bits | accuracy, % | divergence from float, nats |",
        "|---|---|---|---|---|",
    ]
    for group, rows in GROUPS.items():
        for name, fields in rows.items():
            row = result["rows"][key(fields)]
            lines.append(
                f"| {group} | {name} | {row['stored_bits']:.3f} | "
                f"{row['accuracy']:.2f} | {row['divergence']:.4f} |"
            )
            group = ""
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = resnet32.parser(__doc__.splitlines()[0])
    parser.add_argument("--calibration_images", type=arguments.count, default=1000)
    parser.add_argument("--held_out_images", type=arguments.count, default=4000)
    options = parser.parse_args()

    import numpy as np

    model, train = resnet32.load(options)
    calibration, _ = arrays(train, 0, options.calibration_images)
    x, y = arrays(train, options.calibration_images, options.held_out_images)
    expected = log_softmax(model.predict(x, batch_size=BATCH, verbose=0))
    result: dict = {
        "calibration_images": len(calibration),
        "held_out_images": len(x),
        "float": 100 * float(np.mean(expected.argmax(-1) == y)),
        "rows": finished(options.json, len(calibration), len(x)),
    }
    for rows in GROUPS.values():
        for fields in rows.values():
            if key(fields) not in result["rows"]:
                row = measure(model, fields, calibration, x, y, expected)
                result["rows"][key(fields)] = row
                print(key(fields), row, flush=True)
            if options.json:
                results.write(options.json, result)
    print("\n" + markdown(result))
    if options.json:
        options.json.with_suffix(".md").write_text(markdown(result))


if __name__ == "__main__":
    main()
