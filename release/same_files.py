"""Whether two revisions of this repository export the same files, to the byte.

    python release/same_files.py BASE [REVISION]

Each revision is taken from git, built, and asked for the same models in a process of
its own: the nine of `dqa demo`, and ResNet-32 (CIFAR-10), the U-Net (CamVid) and
MobileNetV2 (random weights) in every form that `export_tflite` writes. Prints the
SHA-256 of each `.tflite`; exits with 1 if one differs. A refactoring keeps them all; a
change that means to alter the output says in its message which of them.

Only names that users rely on are imported from the package, so that old revisions and
new ones can be asked alike.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# What `export_tflite` is asked for, by what the file is called.
FORMS: dict[str, dict[str, Any]] = {
    "builtin": {},
    "builtin-float16": {"weights": "float16"},
    "builtin-int8": {"weights": "int8"},
    "packed": {"mode": "packed"},
    "packed-uint8": {"mode": "packed", "inputs": "uint8"},
    "packed-coded": {"mode": "packed", "skips": "coded"},
}


def build(revision: str, folder: Path) -> Path:
    """Installs a revision, its native code built, into a folder of its own."""
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", source], check=True, input=archive)
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--target", site, source], check=True)
    if not list(site.glob("dqa_keras/_delegate*.so")):
        raise SystemExit(f"the native code of {revision} was not built: is g++ there?")
    return site


def digests(site: Path, folder: Path) -> dict[str, str]:
    """What a built revision writes: the SHA-256 of each file, by name."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_DETERMINISTIC_OPS": "1",  # the demo trains
    }
    for command in (
        [site / "bin" / "dqa", "demo", "--output", folder / "demo"],
        [__file__, "--write", folder, site],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout}\nno files from the build in {site}")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.tflite"))
    }


def images(shape: tuple[int, ...]) -> Any:
    """Eight images of soft patches with noise on them, RGB values in 0..255."""
    import numpy as np

    random = np.random.default_rng(0)
    height, width, channels = shape
    coarse = random.integers(0, 256, (8, -(-height // 8), -(-width // 8), channels))
    patches = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noise = random.integers(-16, 17, patches.shape)
    return np.clip(patches + noise, 0, 255).astype(np.float32)


def write(folder: Path, site: Path) -> None:
    """Writes the files of the networks, with the package that lies in `site`."""
    import keras

    import dqa_keras as dqa
    from dqa_keras import models
    from dqa_keras.export import export_tflite

    if site.resolve() not in Path(dqa.__file__).resolve().parents:
        raise SystemExit(f"imported {dqa.__file__}, not what was built in {site}")
    keras.utils.set_random_seed(0)
    networks = {
        "resnet32": models.resnet32(weights="cifar10"),
        "unet": models.unet(weights="camvid"),
        "mobilenet_v2": keras.applications.MobileNetV2(
            input_shape=(96, 96, 3), alpha=0.35, weights=None
        ),
    }
    for name, model in networks.items():
        data = images(model.input_shape[1:])
        quantized = dqa.quantize_model(model, dqa.DQAConfig(bits=4, extra_bits=2))
        dqa.calibrate(quantized, data, batch_size=2, verbose=0)
        (folder / name).mkdir()
        for form, options in FORMS.items():
            path = folder / name / f"{form}.tflite"
            export_tflite(quantized, path, samples=data[:2], **options)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="revision to compare with")
    parser.add_argument("revision", nargs="?", default="HEAD")
    options = parser.parse_args()
    written = []
    with tempfile.TemporaryDirectory() as name:
        for which, revision in (("base", options.base), ("new", options.revision)):
            folder = Path(name) / which
            (folder / "files").mkdir(parents=True)
            site = build(revision, folder)
            written.append(digests(site, folder / "files"))
    base, new = written
    different = 0
    for file in sorted({*base, *new}):
        same = base.get(file) == new.get(file)
        different += not same
        both = [w.get(file, "missing")[:12] for w in written]
        shown = both[0] if same else f"{both[0]} {both[1]} DIFFERENT"
        print(f"{file:34} {shown}")
    print(f"{len(base)} files of {options.base}, {different} different")
    if different or not base:
        raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
