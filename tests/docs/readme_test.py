"""README and docs/figures.md do what they say: figures are the measured ones."""

import json
import re
import runpy
from pathlib import Path

import keras
import pytest

import dqa_keras as dqa

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FIGURES = (ROOT / "docs" / "figures.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_prints_what_stands_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 14
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "unet.tflite").stat().st_size > 0
    (shown,) = blocks("text")
    number = r"[\d.]+"
    printed = capsys.readouterr().out.splitlines()[-1]
    assert re.sub(number, "", printed) == re.sub(number, "", shown.strip())
    # Other processors round a little differently.
    pairs = zip(re.findall(number, printed), re.findall(number, shown), strict=True)
    for ours, theirs in pairs:
        assert float(ours) == pytest.approx(float(theirs), rel=0.01)


def test_the_readme_is_short_and_its_best_comes_first():
    lines = README.splitlines()
    assert len(lines) <= 120
    first = "\n".join(lines[:70])
    assert "overview.svg" in first
    assert overview()["table"](overview()["read"]()) in first
    assert blocks("text")[0] in first


def overview():
    return runpy.run_path(str(ROOT / "benchmarks" / "shared" / "overview.py"))


def test_the_picture_is_of_the_figures(tmp_path):
    drawn = tmp_path / "overview.svg"
    overview()["draw"](overview()["read"]()["memory"], drawn)
    assert drawn.read_text() == (RESULTS / "overview.svg").read_text()
    memory = json.loads((RESULTS / "memory.json").read_text())
    mib = [
        memory[name][kind]["live_peak"] / 2**20
        for name in ("unet", "mobilenet_v2")
        for kind in ("int8", "packed")
    ]
    assert (
        f"int8 keeps up to {mib[0]:.0f} and {mib[2]:.1f} MiB of activations, packed at "
        f"most {mib[1]:.1f} and {mib[3]:.2f}"
    ) in README


def test_resnet_figures_are_the_measured_ones():
    rows = json.loads((RESULTS / "resnet32.json").read_text())["rows"]
    row = r"^\| (default|paper) \| (\w+) \| (.*) \|$"
    shown = re.findall(row, FIGURES, re.MULTILINE)
    assert len(shown) == 6
    in_readme = re.findall(row, README, re.MULTILINE)
    assert in_readme
    assert set(in_readme) <= set(shown)
    for preset, method, cells in shown:
        for bits, cell in zip((3, 4, 5), cells.split(" | "), strict=True):
            row = rows[f"{preset} {method} {bits}"]
            assert cell == f"{row['accuracy']:.2f} at {row['stored_bits']:.2f}"
    assert f"{rows['float']['accuracy']:.2f} %" in README
    words = " ".join(FIGURES.split())
    assert f"{rows['float']['accuracy']:.2f} %" in words
    for bits in (3, 4):
        exported = rows[f"default dqa {bits}"]["tflite_accuracy"]
        assert f"{exported:.2f} % (n = {bits})" in words


def test_cost_figures_are_the_measured_ones():
    result = json.loads((RESULTS / "cost.json").read_text())
    part = FIGURES.partition("## What it costs")[2]
    shown = re.findall(r"^\| .* \| ([\d.]+x) \|$", part.partition("\n## ")[0], re.M)
    ratios = [result[f"{name}_ratio"] for name in ("predict", "calibrate", "memory")]
    ratios += [result[name]["latency_ratio"] for name in ("resnet32", "mobilenet_v2")]
    assert shown == [f"{ratio:.2f}x" for ratio in ratios]


def test_peers_are_the_measured_ones():
    result = json.loads((RESULTS / "peers.json").read_text())
    assert (
        runpy.run_path(str(ROOT / "benchmarks" / "peers.py"))["overview"](result)
        in FIGURES
    )
    text = " ".join(FIGURES.split())
    whole, profiled = result["calibration_ratios"].values()
    assert f"takes {whole:.2f} times as long as ai-edge-quantizer's default" in text
    assert f"and {profiled:.2f} times as long as its profiler's" in text


def test_growth_figures_are_the_measured_ones():
    result = json.loads((RESULTS / "growth.json").read_text())
    power = result["exponents"]
    text = " ".join(FIGURES.split())
    rows = re.findall(r"^\| (\w+).* \| `(\w+)` \| ([\d.]+) \|$", FIGURES, re.MULTILINE)
    assert rows == [
        ("images", "mse", f"{power['images']:.2f}"),
        ("channels", "mse", f"{power['channels']:.2f}"),
        ("channels", "fisher", f"{power['channels fisher']:.2f}"),
        ("channels", "output", f"{power['channels output']:.2f}"),
        ("channels", "greedy", f"{power['channels greedy']:.2f}"),
        ("layers", "mse", f"{power['layers']:.2f}"),
    ]
    assert f"is {result['memory_ratio']:.3f} times that at 1,000" in text
    assert f"than {100 * result['formula_error']:.1f} % from the formula" in text
    workers = json.loads((RESULTS / "workers.json").read_text())
    assert workers["identical"]
    assert f"Two workers calibrate {workers['by_clock_ratio']:.2f} times" in text


def test_the_cost_of_greedy_is_the_measured_one():
    result = json.loads((RESULTS / "greedy.json").read_text())
    assert (
        f"({result['channels']:,} channels, n = 3, 64 images) calibration takes "
        f"{result['seconds']:.0f} s where a loop of forward passes takes "
        f"{result['loop_seconds']:.0f} s, {result['loop_over_greedy']:.2f} times as "
        f"long, in the same order (Kendall's tau {result['mean_tau']:.3f};"
    ) in " ".join(FIGURES.split())


def test_latencies_with_avx2_are_the_measured_ones():
    result = json.loads((RESULTS / "latency_avx2.json").read_text())
    for words, name in (
        ("U-Net 512", "unet"),
        ("MobileNetV2 224", "mobilenet_v2"),
        ("the same, `quantize_linear=True`", "mobilenet_v2_linear"),
        ("ResNet-32", "resnet32"),
    ):
        cells = [
            f"{ratio:.2f}x"
            for run in result[name]["runs"]
            for ratio in (
                run["packed_to_int8"],
                run["ms"]["packed"] / run["ms"]["float"],
            )
        ]
        assert f"| {words} | {' | '.join(cells)} |" in FIGURES


def test_ratios_of_the_readme_are_the_measured_ones():
    result = json.loads((RESULTS / "latency_avx2.json").read_text())
    ratios = [
        run["packed_to_int8"]
        for name in ("unet", "mobilenet_v2", "resnet32")
        for run in result[name]["runs"]
    ]
    words = " ".join(README.split())
    assert f"took {min(ratios):.2f} to {max(ratios):.2f}x of int8's time" in words
    models = json.loads((RESULTS / "accuracy.json").read_text())["models"]
    cells = models["efficientnet_lite0"]["cells"]
    ours, theirs = (cells[name]["agreement"] for name in ("budget 4.25", "int8 8"))
    assert (
        f"float model's class on {ours:.2f} % of 800 images of ImageNet, int8 on "
        f"{theirs:.2f} %"
    ) in words


def test_what_options_buy_is_what_was_measured():
    rows = json.loads((RESULTS / "ablation.json").read_text())["rows"]
    text = " ".join(FIGURES.split())
    (part,) = re.findall(r"## Options, each by itself(.*?)## What it costs", text)
    shown = {float(figure) for figure in re.findall(r"([\d.]+) %", part)}
    assert shown
    assert shown <= {round(row["accuracy"], 2) for row in rows.values()}


def test_accuracy_figures_are_the_measured_ones():
    models = json.loads((RESULTS / "accuracy.json").read_text())["models"]
    text = " ".join(FIGURES.split())
    networks = {"ResNet-32": "resnet32", "MobileNetV2": "mobilenet_v2", "U-Net": "unet"}
    for words, name in networks.items():
        assert f"| {words} | {models[name]['float']:.2f} % |" in text
    row = rf"^\| ({'|'.join(networks)}) \| (\w+) \| (.* at .*) \|$"
    shown = re.findall(row, FIGURES, re.MULTILINE)
    assert {words for words, _, _ in shown} == set(networks)
    for words, method, cells in shown:
        measured = sorted(
            (cell["stored_bits"], cell["accuracy"])
            for name, cell in models[networks[words]]["cells"].items()
            if name.rpartition(" ")[0] == method
        )
        assert cells == ", ".join(
            f"{percent:.2f} at {at:.2f}" for at, percent in measured
        )


def test_figures_of_efficientnet_lite0_are_the_measured_ones():
    models = json.loads((RESULTS / "accuracy.json").read_text())["models"]
    rows = models["efficientnet_lite0"]
    (part,) = re.findall(
        r"^## EfficientNet-Lite0.*?(?=^## )", FIGURES, re.M | re.DOTALL
    )
    assert f"float model's {rows['float']:.2f} %" in " ".join(part.split())
    shown = re.findall(r"^\| ([a-z][a-z0-9 ]* [\d.]+) \| (.*) \|$", part, re.MULTILINE)
    assert {name for name, _ in shown} == set(rows["cells"])
    for name, figures in shown:
        cell = rows["cells"][name]
        drop = rows["float"] - cell["accuracy"]
        assert figures.split(" | ") == [
            f"{cell['stored_bits']:.3f}",
            f"{drop:.2f} ± {cell['drop_error']:.2f}",
            f"{cell['agreement']:.2f} ± {cell['agreement_error']:.2f}",
            f"{cell['output_error']:.4f}",
        ]


def test_the_papers_comparison_is_the_measured_one():
    models = json.loads((RESULTS / "accuracy.json").read_text())["models"]
    for words, name in (
        ("ResNet-32", "resnet32"),
        ("MobileNetV2", "mobilenet_v2"),
        ("U-Net", "unet"),
    ):
        cells = models[name]["cells"]
        (row,) = re.findall(rf"^\| {words} \| ([^|]*; [^|]* \|.*) \|$", FIGURES, re.M)
        for n, shown in zip((3, 4, 5), row.split(" | "), strict=True):
            names = [
                f"paper {method} {n}" for method in ("dqa", "direct", "noisyquant")
            ]
            if not cells.keys() >= set(names):
                assert shown == "not measured"
                continue
            trio = [cells[name] for name in names]
            percents = [f"{cell['accuracy']:.2f}" for cell in trio]
            percents[0] += f" at {trio[0]['stored_bits']:.2f}"
            assert shown == "; ".join(percents)
        below, above = (cells[f"paper direct {n}"]["accuracy"] for n in (4, 5))
        bits = cells["paper dqa 3"]["stored_bits"]
        line = below + (above - below) * (bits - 4)
        dqa_accuracy = cells["paper dqa 3"]["accuracy"]
        assert f"| {words} | {line:.2f} % | {dqa_accuracy:.2f} % |" in FIGURES


def test_budgets_in_the_readme_are_the_measured_ones():
    (line,) = re.findall(r"^One budget for all layers.*?\.$", README, re.M | re.DOTALL)
    cells = json.loads((RESULTS / "accuracy.json").read_text())["models"]["resnet32"]
    known = {
        f"{cell['accuracy']:.2f} at {cell['stored_bits']:.2f}": name.split()[0]
        for name, cell in cells["cells"].items()
    }
    shown = re.findall(r"[\d.]+ at \d+\.\d+", line)
    assert [known[figure] for figure in shown] == ["budget", "budget", "entropy"]


def test_report_figures_are_the_measured_ones():
    rows = json.loads((RESULTS / "report.json").read_text())
    for name, words in (("mobilenet_v2", "MobileNetV2"), ("unet", "U-Net")):
        size, seconds = rows[name]["bytes"] / 1024, rows[name]["seconds"]
        assert f"| {words} | {size:.0f} KiB | {seconds:.2f} s |" in FIGURES


def test_applications_measured_are_counted_right():
    rows = json.loads((RESULTS / "applications.json").read_text())
    models = [name for name in dir(keras.applications) if name[0].isupper()]
    assert set(rows) <= set(models)
    assert f"{len(rows)} of {len(models)} measured" in " ".join(FIGURES.split())
    assert not [name for name, row in rows.items() if "error" in row]


def test_real_sizes_measured_are_counted_right():
    rows = json.loads((RESULTS / "real_sizes.json").read_text())
    text = " ".join(FIGURES.split())
    assert f"real input sizes {len(rows)} of the 40 were calibrated" in text
    assert not [name for name, row in rows.items() if "error" in row]
    largest = max(row["calibrate_mib"] / row["predict_mib"] for row in rows.values())
    assert f"at most {largest:.2f} times that of predicting" in text


def test_codec_figures_are_the_measured_ones():
    result = json.loads((RESULTS / "codec.json").read_text())
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "codec.py"))
    overview = benchmark["overview"](result)
    assert overview in FIGURES
    text = (RESULTS / "codec.md").read_text()
    assert overview in text
    assert text.endswith(benchmark["to_text"](result))


def test_packed_figures_are_the_measured_ones():
    read = {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("memory", "latency", "packed_accuracy", "peak")
    }
    text = " ".join(FIGURES.split())
    unet = {kind: row["live_peak"] for kind, row in read["memory"]["unet"].items()}
    runs = read["latency"]["unet"]["runs"]
    assert (
        f"to {unet['coded'] / unet['packed']:.2f}x of that memory at "
        f"{runs[0]['coded_to_packed']:.2f}x the time on one thread and "
        f"{runs[1]['coded_to_packed']:.2f}x on two"
    ) in text
    for name, words in (
        ("unet", "U-Net 512"),
        ("mobilenet_v2", "MobileNetV2 224"),
        ("resnet32", "ResNet-32"),
    ):
        peak = {kind: row["live_peak"] for kind, row in read["memory"][name].items()}
        one, two = (run["packed_to_int8"] for run in read["latency"][name]["runs"])
        assert (
            f"| {words} | {peak['packed'] / 2**20:.2f} MiB "
            f"| {peak['packed'] / peak['int8']:.2f}x "
            f"| {peak['packed'] / peak['bytes']:.2f}x | {one:.2f}x | {two:.2f}x |"
        ) in text
    linear = read["memory"]["mobilenet_v2_linear"]
    packed, bytes_, int8 = (
        linear[kind]["live_peak"] for kind in ("packed", "bytes", "int8")
    )
    assert (
        f"become {packed / 2**20:.2f} MiB, {packed / bytes_:.2f}x "
        f'of "bytes" and {packed / int8:.2f}x of int8\'s'
    ) in text
    coverage = json.loads((RESULTS / "coverage.json").read_text())
    for name, row in coverage.items():
        assert f"| {name} | {100 * row['inside']:.2f} % |" in text
    for name, words in (
        ("resnet32", "ResNet-32"),
        ("unet", "U-Net"),
        ("mobilenet_v2", "MobileNetV2 (CIFAR-10)"),
        ("mobilenet_v2 quantize_linear", "the same, `quantize_linear=True`"),
    ):
        row = read["packed_accuracy"][name]
        assert f"| {words} | {row['packed']:.2f} % | {row['keras']:.2f} % |" in text
    rates = {
        (row["isa"], row["tiles"], row["side"], row["inputs"]): row
        for row in read["peak"]
    }
    fast = [row for (isa, *_), row in rates.items() if isa == "avx512-vnni"]
    shares = [row["share"] for row in fast if not row["tiles"]]
    assert f"reach {100 * min(shares):.0f} % or more" in text
    for isa, words in (
        ("avx512-vnni", "with AVX512-VNNI"),
        ("avx2", "with AVX2 alone"),
    ):
        gains = [
            row["gmacs"] / rates[(isa, False, *layer)]["gmacs"]
            for (machine, tiles, *layer), row in rates.items()
            if machine == isa and tiles
        ]
        assert f"{min(gains):.2f} to {max(gains):.2f} times as fast {words}" in text


def test_process_growth_is_what_was_measured():
    result = json.loads((RESULTS / "memory.json").read_text())
    table = runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))["process_table"]
    assert table(result) in FIGURES
    for name, words, digits in (
        ("mobilenet_v2", "MobileNetV2 224", 0),
        ("mobilenet_v2_035", "MobileNetV2 0.35 at 144", 1),
    ):
        row = result[name]["packed"]
        arena = (row["live_peak"] - row["inputs_and_outputs"]) / 1000
        assert f"| {words} | packed, 4 bits | {arena:.{digits}f} |" in FIGURES


def test_coded_skips_are_what_was_measured():
    rows = json.loads((RESULTS / "coded_skips.json").read_text())["rows"]
    table = runpy.run_path(str(ROOT / "benchmarks" / "images" / "coded_skips.py"))[
        "table"
    ]
    assert table(rows) in FIGURES
    (images,) = {row["images"] for row in rows.values()}
    assert f"{images} test images); what rows needed" in FIGURES


def test_files_that_are_linked_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_papers_share_is_the_one_picked_on_training_images():
    picked = json.loads((RESULTS / "paper_share.json").read_text())
    assert dqa.DQAConfig.paper().important_fraction == picked["share"]
    assert f"{picked['held_out_images']:,} training images" in FIGURES
    at_three = picked["rows"]["3"]
    assert at_three["dqa"]["0.5"] < at_three["direct"]  # as figures.md says
