"""README's table and picture, of what the other benchmarks measured.

    python benchmarks/shared/overview.py --svg benchmarks/results/overview.svg

Reads the JSON files of memory, latency, arm, accuracy and packed_accuracy; measures
nothing. Times are of one thread.
"""

import argparse
import json
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"

_NETWORKS = {
    "unet": "U-Net, 512 x 512",
    "mobilenet_v2": "MobileNetV2, 224 x 224",
    "resnet32": "ResNet-32, 32 x 32",
}
_KINDS = {
    "float": "float",
    "int8": "int8",
    "packed": "**packed, 4 + 2 bits**",
}
# Networks measured in memory and time with the weights that accuracy is of. The others
# have random ones: their size and time are the same, they are right about nothing.
_TRAINED = {"resnet32"}


def read() -> dict[str, dict]:
    """The results that table and picture are made of, by benchmark."""
    names = ("memory", "latency", "arm", "accuracy", "packed_accuracy")
    return {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in names}


def _accuracy(read: dict[str, dict], name: str, kind: str) -> float | None:
    """Top-1 accuracy in percent, None where it was not measured."""
    rows = read["accuracy"]["models"].get(name)
    if rows is None or name not in _TRAINED:
        return None
    if kind == "float":
        return rows["float"]
    if kind == "int8":
        return rows["cells"].get("int8 8", {}).get("accuracy")
    return read["packed_accuracy"].get(name, {}).get("packed")


def _millions(value: float) -> str:
    """To two digits at least."""
    millions = value / 1e6
    digits = 0 if millions >= 10 else 1 if millions >= 1 else 2
    return f"{millions:.{digits}f}"


def table(read: dict[str, dict]) -> str:
    """The table, in Markdown."""
    lines = [
        "| network | in LiteRT | file, MB | activations, MB | process, MB | time, ms "
        "| on Arm, M instructions | top-1, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, words in _NETWORKS.items():
        for kind, form in _KINDS.items():
            memory = read["memory"].get(name, {}).get(kind)
            if memory is None:
                continue
            runs = read["latency"].get(name, {}).get("runs", [])
            arm = read["arm"].get(name, {}).get("dot product", {}).get(kind)
            right = _accuracy(read, name, kind)
            cells = [
                words if kind == "float" else "",
                form,
                _millions(memory["file"]),
                _millions(memory["live_peak"]),
                _millions(memory["process"]["1"]["anonymous"]),
                f"{runs[0]['ms'][kind]:.3g}" if runs else "",
                f"{arm['all'] / 1e6:.1f}" if arm else "",
                f"{right:.1f}" if right is not None else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(memory: dict[str, dict], path: Path) -> None:
    """What int8 and packed keep in memory while the network runs, op by op."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "overview"
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 2.9), layout="constrained")
    for axes, name in zip(panels, ("unet", "mobilenet_v2"), strict=True):
        live = np.array(memory[name]["int8"]["live"]) / 2**20
        packed = memory[name]["packed"]["live_peak"] / 2**20
        steps = np.linspace(0, 1, live.size + 1)
        axes.stairs(live, steps, fill=True, color="#b8b8b8")
        axes.stairs([packed], [0, 1], fill=True, color="#0072b2")
        axes.stairs(live, steps, color="#606060", linewidth=0.8)
        peak = int(np.argmax(live))
        axes.annotate(
            f"int8: {live[peak]:.3g} MiB",
            (steps[peak], live[peak]),
            ha="center" if peak > live.size // 2 else "left",
            va="bottom",
        )
        axes.annotate(
            f"packed: {packed:.2g} MiB",
            (0.99, packed),
            ha="right",
            va="bottom",
            color="#00507d",
            fontweight="bold",
        )
        axes.set(
            title=_NETWORKS[name],
            xlim=(0, 1),
            ylim=(0, live.max() * 1.15),
            xticks=[0, 1],
            xticklabels=["first layer", "last layer"],
            ylabel="activations in memory (MiB)",
        )
        for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
            label.set_ha(side)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svg", type=Path, help="file for the picture")
    options = parser.parse_args()
    results = read()
    print(table(results))
    if options.svg:
        draw(results["memory"], options.svg)


if __name__ == "__main__":
    main()
