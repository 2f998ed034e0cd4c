"""Time and memory of models on a phone, measured through adb.

    make phone
    dqa bench phone float.tflite int8.tflite packed.tflite
    dqa bench phone mobilenet_v2 --cores 7

A name of a network stands for its float, int8 and packed files, with random weights.
The files run in turns, each turn in a fresh process on one thread, in LiteRT 2 with
XNNPACK; ratios are medians of the rounds' ratios to the first file. What is pushed to
/data/local/tmp is removed in the end. Rows are printed, and added to those in the JSON
file. `ANDROID_SERIAL` names the phone where several are connected, as for adb.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from shared import arguments, networks, results

BUILD = Path(__file__).resolve().parents[2] / "build" / "aarch64" / "phone"
FOLDER = "/data/local/tmp/dqa_phone"
KINDS = ("float", "int8", "packed")
# The C library on phones is another: the program comes with its own, and its loader.
RUN = (
    f"cd {FOLDER} && ./ld-linux-aarch64.so.1 --library-path . ./dqa_phone "
    "./libLiteRt.so"
)


def stop(message: str) -> NoReturn:
    """Ends with a message."""
    raise SystemExit(message)


def adb(*command: str) -> str:
    """What adb prints.

    Raises:
        SystemExit: If it fails, with its reason.
    """
    done = subprocess.run(
        ["adb", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()
        stop(f"adb {command[0]} failed: {reason.splitlines()[-1] if reason else '?'}")
    return done.stdout


def check_phone() -> None:
    """Raises SystemExit unless adb reaches one phone with a 64-bit Arm processor."""
    if shutil.which("adb") is None:
        stop("adb is not on PATH: install Android's platform tools")
    phones = dict(re.findall(r"^(\S+)\t(\S+)", adb("devices"), re.M))
    chosen = os.environ.get("ANDROID_SERIAL")
    if chosen:
        phones = {name: state for name, state in phones.items() if name == chosen}
    if not phones:
        stop(
            f"adb finds no phone{f' called {chosen}' if chosen else ''}: connect one "
            "with USB debugging switched on"
        )
    if len(phones) > 1:
        stop(
            "adb finds several phones: name one in ANDROID_SERIAL. "
            f"Received: {', '.join(sorted(phones))}"
        )
    ((name, state),) = phones.items()
    if state != "device":
        stop(f"phone {name} is {state}: unlock it and allow USB debugging")
    abis = property_of("ro.product.cpu.abilist")
    if "arm64-v8a" not in abis.split(","):
        stop(f"the phone must have a 64-bit Arm processor. Received: {abis}")


def property_of(*names: str) -> str:
    """The first of the phone's properties that is set."""
    for name in names:
        value = adb("shell", f"getprop {name}").strip()
        if value:
            return value
    return "unknown"


def describe() -> dict[str, str]:
    """Which phone it is."""
    maker = property_of("ro.product.manufacturer")
    chip = property_of("ro.soc.model", "ro.board.platform", "ro.hardware")
    version = property_of("ro.build.version.release")
    return {
        "device": f"{maker} {property_of('ro.product.model')}",
        "chipset": f"{property_of('ro.soc.manufacturer')} {chip}",
        "android": f"{version} (API {property_of('ro.build.version.sdk')})",
    }


def files_of(models: list[str], folder: Path) -> list[Path]:
    """The files of the models, which are files or names of networks."""
    paths = []
    for model in models:
        if model in networks.NAMES or model == "efficientnet_lite0":
            networks.prepare([model], folder)
            paths += [folder / f"{model}.{kind}.tflite" for kind in KINDS]
        elif Path(model).is_file():
            paths.append(Path(model))
        else:
            stop(
                "a model must be a .tflite file or one of "
                f"{', '.join(networks.NAMES)}. Received: {model}"
            )
    if len({path.name for path in paths}) < len(paths):
        stop("files must have different names")
    return paths


def precision(path: Path) -> str:
    """What a file computes with: packed, int8 or float."""
    from dqa_keras.export.litert import flatbuffer

    model = flatbuffer.parse(path.read_bytes())
    if any(code.customCode == b"DQA" for code in model.operatorCodes):
        return "packed"
    tensors = model.subgraphs[0].tensors
    return "int8" if any(tensor.type == 9 for tensor in tensors) else "float"


def measure(paths: list[Path], options: argparse.Namespace) -> dict[Path, list[dict]]:
    """What each turn of each file gave."""
    adb("shell", f"rm -rf {FOLDER} && mkdir -p {FOLDER}")
    turns: dict[Path, list[dict]] = {path: [] for path in paths}
    try:
        for path in [*sorted(BUILD.iterdir()), *paths]:
            adb("push", str(path), f"{FOLDER}/{path.name}")
        adb("shell", f"chmod 755 {FOLDER}/dqa_phone {FOLDER}/ld-linux-aarch64.so.1")
        for _ in range(options.rounds):
            for path in paths:
                command = f"{RUN} ./{path.name} {options.seconds} {options.cores or ''}"
                line = adb("shell", command).strip().splitlines()[-1]
                turns[path].append(json.loads(line))
    finally:
        adb("shell", f"rm -rf {FOLDER}")
    return turns


def row(path: Path, turns: list[dict], first: list[dict]) -> dict:
    """Figures of a file; memory in MiB."""
    times = [turn["ms"] for turn in turns]
    peaks = [turn["peak_kib"] / 1024 for turn in turns]
    ratios = [
        turn["ms"] / other["ms"] for turn, other in zip(turns, first, strict=True)
    ]
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "precision": precision(path),
        "ms": statistics.median(times),
        "ms_range": [min(times), max(times)],
        "to_first": statistics.median(ratios),
        "peak_mib": [min(peaks), max(peaks)],
        "digest": turns[0]["digest"],
    }


def show(phone: dict, rows: list[dict]) -> None:
    """Prints the rows."""
    print(
        f"{phone['device']}, {phone['chipset']}, Android {phone['android']}, CPU, one "
        f"thread, {phone['cores']}; {phone['runtime']}; {phone['date']}, commit "
        f"{phone['commit'] or 'unknown'}"
    )
    for each in rows:
        low, high = each["ms_range"]
        least, most = each["peak_mib"]
        print(
            f"{each['file']}, {each['precision']}, {each['bytes'] / 1024:.0f} KiB: "
            f"{each['ms']:.2f} ms ({low:.2f} to {high:.2f}), {each['to_first']:.2f} of "
            f"the first, peak memory {least:.1f} to {most:.1f} MiB"
        )


def cores(text: str) -> str:
    """Numbers of cores with commas between them."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(
            f"must be numbers with commas between them. Received: {text!r}"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help=".tflite files, or networks' names")
    parser.add_argument("--rounds", type=arguments.count, default=5)
    parser.add_argument(
        "--seconds", type=arguments.duration, default=1.0, help="of a turn"
    )
    parser.add_argument("--cores", type=cores, help="to pin it to: 7 or 6,7")
    parser.add_argument("--json", type=arguments.output, default=Path("phone.json"))
    parser.add_argument("--folder", type=Path, default=Path("build/networks"))
    options = parser.parse_args()
    if not (BUILD / "version").exists():
        parser.error("what runs on the phone is missing. Build it: make phone")
    check_phone()
    paths = files_of(options.models, options.folder)
    phone = {
        **describe(),
        "cores": f"pinned to {options.cores}" if options.cores else "not pinned",
        "runtime": (BUILD / "version").read_text().strip(),
        "date": datetime.date.today().isoformat(),
        "commit": results.commit(),
    }
    turns = measure(paths, options)
    rows = [row(path, turns[path], turns[paths[0]]) for path in paths]
    show(phone, rows)
    known = results.read(options.json)
    runs = [*known.get("runs", []), {**phone, "threads": 1, "files": rows}]
    results.write(options.json, {**known, "runs": runs})


if __name__ == "__main__":
    sys.exit(main())
