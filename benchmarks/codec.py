"""The codec's speed beside memcpy, zstandard and huff0, and its sizes.

    dqa bench codec [--rounds 21] [--json benchmarks/results/codec.json]
        [--weights resnet32_cifar10.npz --data_dir tfds]

With --json the tables are also written as Markdown beside it. With --weights, the
activations of ResNet-32 on CIFAR-10 test images are packed as well: sizes on real data.

One tensor as the runtime meets it (n=4, m=2, 25 % important channels, half zeros,
1x256x256x64). Everything is measured in one process, the candidates of a table taking
turns in every round; a figure is the median over the rounds, and a ratio the median of
the ratios within a round, so that a busy machine slows both sides of it alike.

What must move: packing reads 4 bytes a value and writes about 0.55, memcpy reads 4 and
writes 4. GB/s counts the float32 side of each.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from shared import arguments, huff0, results

from dqa_keras import codec
from dqa_keras.codec import blocks, huffman, reference, sizes, symbols
from dqa_keras.codec.layer_table import LayerTable

SHAPE = (1, 256, 256, 64)
Job = Callable[[], object]
Key = TypeVar("Key")


def make_tensor(seed: int = 0) -> tuple[LayerTable, NDArray[np.float32]]:
    """The tensor and its table, with the code lengths of its own symbols.

    Returns:
        `LayerTable`, and float32 values (1, 256, 256, 64), half of them zero.
    """
    rng = np.random.default_rng(seed)
    channels = SHAPE[-1]
    values = np.maximum(rng.normal(size=SHAPE), 0).astype(np.float32)
    mask = np.zeros(channels, bool)
    mask[rng.permutation(channels)[: channels // 4]] = True
    top = np.where(mask, 2**6 - 1, 2**4 - 1)
    table = LayerTable(
        name="benchmark",
        bits=4,
        extra_bits=2,
        signed=False,
        shape=SHAPE[1:],
        mask=mask,
        scale=(3.2 / top).astype(np.float32),
        residual_lengths=np.full(4, 2, np.uint8),
        base_lengths=np.full(16, 4, np.uint8),
    )
    base, residual = symbols.split_symbols(symbols.quantize(values, table), table)
    lengths = {
        "base_lengths": huffman.code_lengths(np.bincount(base, minlength=16)),
        "residual_lengths": huffman.code_lengths(np.bincount(residual, minlength=4)),
    }
    return LayerTable(**{**vars(table), **lengths}), values


def take_turns(jobs: dict[Key, Job], rounds: int) -> dict[Key, list[float]]:
    """Seconds of every job in every round; one round before them is not counted."""
    seconds: dict[Key, list[float]] = {name: [] for name in jobs}
    for counted in (False, *[True] * rounds):
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            elapsed = time.perf_counter() - begin
            if counted:
                seconds[name].append(elapsed)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds of slow / fast: how many times as fast the second is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def measure_transfer(
    table: LayerTable, values: NDArray[np.float32], rounds: int
) -> list[dict[str, Any]]:
    """Pack and unpack of every class on one thread, beside memcpy."""
    fast = codec.Codec(table)
    copy, back = np.empty_like(values), np.empty_like(values)
    jobs: dict[str, Job] = {"memcpy": lambda: np.copyto(copy, values)}
    taken = {}
    for storage in sizes.STORAGE_CLASSES:
        room = np.zeros(sizes.blob_bound(table, SHAPE, storage), np.uint8)
        blob = fast.pack(values, storage).copy()
        taken[storage] = blob.size
        jobs[f"pack {storage}"] = lambda s=storage, r=room: fast.pack(values, s, out=r)
        jobs[f"unpack {storage}"] = lambda b=blob: fast.unpack(b, SHAPE, out=back)
    seconds = take_turns(jobs, rounds)
    return [
        {
            "what": name,
            "gb_per_s": values.nbytes / statistics.median(times) / 1e9,
            "of_memcpy": ratio(seconds["memcpy"], times),
            "bits_per_value": 8 * taken[name.split()[1]] / values.size
            if " " in name
            else 32.0,
        }
        for name, times in seconds.items()
    ]


def measure_threads(
    table: LayerTable, values: NDArray[np.float32], rounds: int
) -> list[dict[str, Any]]:
    """Two threads against one, in the same rounds; memcpy shows the machine's share."""
    fast = codec.Codec(table)
    back = np.empty_like(values)
    halves = [np.array_split(array.reshape(-1), 2) for array in (back, values)]
    pool = ThreadPoolExecutor(2)
    jobs: dict[str, tuple[Job, Job]] = {
        "memcpy": (
            lambda: np.copyto(back, values),
            lambda: list(pool.map(np.copyto, *halves)),
        )
    }
    for storage in sizes.STORAGE_CLASSES:
        room = np.zeros(sizes.blob_bound(table, SHAPE, storage), np.uint8)
        blob = fast.pack(values, storage).copy()

        def pack(threads: int, s=storage, r=room) -> Job:
            return lambda: fast.pack(values, s, None, threads, r)

        def unpack(threads: int, b=blob) -> Job:
            return lambda: fast.unpack(b, SHAPE, threads=threads, out=back)

        jobs[f"pack {storage}"] = pack(1), pack(2)
        jobs[f"unpack {storage}"] = unpack(1), unpack(2)
    seconds = take_turns(
        {(name, n): job for name, pair in jobs.items() for n, job in enumerate(pair)},
        rounds,
    )
    return [
        {
            "what": name,
            "two_threads_over_one": ratio(seconds[name, 0], seconds[name, 1]),
            "best_over_best": min(seconds[name, 0]) / min(seconds[name, 1]),
        }
        for name in jobs
    ]


def measure_decode(
    table: LayerTable, values: NDArray[np.float32], rounds: int
) -> dict[str, Any] | None:
    """Residual decoding beside its peers; `None` without the compiled codec.

    zstandard gets the residuals twice: one to a byte, so that a symbol of its Huffman
    stage (huff0) is a residual, and packed four to a byte, as one would use it. huff0
    alone gets them one to a byte, with either of its decoders.
    """
    fast = codec.Codec(table)
    if fast.runtime == "numpy":
        return None
    _, residual = symbols.split_symbols(symbols.quantize(values, table), table)
    section = np.frombuffer(
        blocks.write_blocks(residual, 2, table.residual_lengths), np.uint8
    )
    plane = blocks.write_plane(residual, 2)
    out = np.zeros(residual.size + 8, np.uint8)
    native = fast.native
    jobs: dict[str, Job] = {
        "codec": lambda: native.decode_blocks(section, False, residual.size, out)
    }
    sizes = {"codec": section.size}
    try:
        import zstandard
    except ImportError:
        zstandard = None
    if zstandard is not None:
        # Long matches only: nearly all the work is left to the Huffman stage.
        literal = zstandard.ZstdCompressionParameters(
            compression_level=1, window_log=18, min_match=7, strategy=1
        )
        decompressor = zstandard.ZstdDecompressor()
        for name, data in (
            ("zstandard, a residual a byte", residual.tobytes()),
            ("zstandard, four residuals a byte", plane),
        ):
            compressed = zstandard.ZstdCompressor(compression_params=literal).compress(
                data
            )
            sizes[name] = len(compressed)
            jobs[name] = lambda c=compressed: decompressor.decompress(c)
    with tempfile.TemporaryDirectory() as folder:
        peer = huff0.huff0(Path(folder), residual)
        if peer is not None:
            jobs |= peer.jobs
            sizes |= dict.fromkeys(peer.jobs, peer.size)
        seconds = take_turns(jobs, rounds)
    if out[: len(plane)].tobytes() != plane:
        raise AssertionError("the decoded residuals differ from those encoded")
    if peer is not None and not np.array_equal(peer.out, residual):
        raise AssertionError("huff0's residuals differ from those encoded")
    return {
        name: {
            "m_residuals_per_s": residual.size / statistics.median(times) / 1e6,
            "codec_is_faster": ratio(times, seconds["codec"]),
            "bits_per_residual": 8 * sizes[name] / residual.size,
        }
        for name, times in seconds.items()
    }


def measure_size(table: LayerTable, values: NDArray[np.float32]) -> dict[str, float]:
    """Stored bits beside the Huffman optimum and the entropy of the same symbols."""
    codes = symbols.quantize(values, table)
    base, residual = symbols.split_symbols(codes, table)
    residual_counts, base_counts = np.bincount(residual), np.bincount(base)
    optimum = float(residual_counts @ table.residual_lengths[: residual_counts.size])
    stored = 8 * blocks.blocks_size(residual, 2, table.residual_lengths)
    entropy = entropy_bits(base_counts) + entropy_bits(residual_counts)
    return {
        "residual_section_over_huffman": stored / optimum,
        "residual_blob_over_huffman": 8
        * len(reference.pack(codes, table, "residual"))
        / (4 * base.size + optimum),
        "all_blob_over_entropy": 8 * len(reference.pack(codes, table, "all")) / entropy,
        "zeros": float(np.mean(values == 0)),
    }


def entropy_bits(counts: NDArray[np.integer]) -> float:
    """Order-0 entropy of all symbols together, in bits."""
    present = counts[counts > 0]
    return float(-(present * np.log2(present / counts.sum())).sum())


def measure_resnet32(weights: Path, data_dir: Path, images: int = 64) -> dict[str, Any]:
    """Stored bits of ResNet-32's activations on CIFAR-10 test images, default preset.

    Args:
        weights: Path of the weights (`.npz`).
        data_dir: Where TFDS keeps its prepared datasets.
        images: Integer. Test images, each packed for itself. Defaults to `64`.

    Returns:
        Dictionary: bits a value of every class over all layers, `huffman` (what class
        residual would take with no overhead), `entropy` (the order-0 entropy of base
        codes and residuals, each layer for itself), and what `all` takes over it.
    """
    import keras

    import dqa_keras as dqa
    from dqa_keras import datasets
    from dqa_keras.layers import quantizer_layers
    from dqa_keras.models import resnet32

    splits = datasets.load("cifar10", data_dir=data_dir)
    model = dqa.quantize_model(resnet32(weights=str(weights)), dqa.DQAConfig())
    dqa.calibrate(model, splits.train.take(1000).batch(100), verbose=0)
    layers = quantizer_layers(model)
    inputs = keras.Model(model.inputs, [layer.input for layer in layers])
    bits = dict.fromkeys((*sizes.STORAGE_CLASSES, "huffman", "entropy"), 0.0)
    counts = {
        layer.name: (np.zeros(2**layer.bits, int), np.zeros(2**layer.extra_bits, int))
        for layer in layers
    }
    codecs = [codec.Codec(layer.table()) for layer in layers]
    values = 0
    for x, _ in splits.test.take(images).batch(1):
        for fast, activation in zip(codecs, inputs.predict_on_batch(x), strict=True):
            table = fast.table
            codes = symbols.quantize(np.asarray(activation), table)
            values += codes.size
            for storage in sizes.STORAGE_CLASSES:
                bits[storage] += 8 * fast.pack(codes, storage).size
            for total, split in zip(
                counts[table.name], symbols.split_symbols(codes, table), strict=True
            ):
                total += np.bincount(split, minlength=total.size)
    for table in (fast.table for fast in codecs):
        base, residual = counts[table.name]
        bits["entropy"] += entropy_bits(base) + entropy_bits(residual)
        bits["huffman"] += int(base.sum()) * table.bits + int(
            residual @ table.residual_lengths.astype(int)
        )
    return {
        "images": images,
        "bits_per_value": {name: total / values for name, total in bits.items()},
        "all_over_entropy": bits["all"] / bits["entropy"],
        "residual_over_huffman": bits["residual"] / bits["huffman"],
    }


def run(
    rounds: int = 21, weights: Path | None = None, data_dir: Path | None = None
) -> dict[str, Any]:
    """Measures everything.

    Args:
        rounds: Integer. How often every candidate takes its turn. Defaults to `21`.
        weights: Path of ResNet-32's weights; `None` leaves real data out. Defaults to
            `None`.
        data_dir: Path of the prepared CIFAR-10. Defaults to `None`.

    Returns:
        Dictionary of plain JSON values.
    """
    table, values = make_tensor()
    return {
        "runtime": codec.runtime(),
        "machine": platform.processor() or platform.machine(),
        "tensor": "n=4, m=2, 25 % important, half zeros, 1x256x256x64",
        "rounds": rounds,
        "size": measure_size(table, values),
        "transfer": measure_transfer(table, values, rounds),
        "threads": measure_threads(table, values, rounds),
        "residual_decode": measure_decode(table, values, rounds),
        "resnet32": None
        if weights is None or data_dir is None
        else measure_resnet32(weights, data_dir),
    }


def overview(result: dict[str, Any]) -> str:
    """The few figures that the README quotes, as it quotes them."""
    transfer = {row["what"]: row for row in result["transfer"]}
    threads = {row["what"]: row["two_threads_over_one"] for row in result["threads"]}
    real = (result["resnet32"] or {}).get("bits_per_value", {})
    lines = [
        "| class | bits a value | on ResNet-32 | pack | unpack | two threads: pack "
        "| unpack |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sizes.STORAGE_CLASSES:
        pack, unpack = transfer[f"pack {name}"], transfer[f"unpack {name}"]
        bits = f"{real[name]:.2f}" if name in real else "-"
        lines.append(
            f"| {name} | {pack['bits_per_value']:.2f} | {bits} "
            f"| {pack['of_memcpy']:.2f}x | {unpack['of_memcpy']:.2f}x "
            f"| {threads[f'pack {name}']:.2f}x | {threads[f'unpack {name}']:.2f}x |"
        )
    lines += [
        "",
        f"Two threads copy {threads['memcpy']:.2f}x as fast as one: what is bound by "
        "memory can hardly gain more.",
    ]
    decode = result["residual_decode"] or {}
    peers = [name for name in decode if name.startswith("huff0")]
    if peers:
        fastest = min(peers, key=lambda name: decode[name]["codec_is_faster"])
        lines += [
            "",
            f"Residuals decode at {decode['codec']['m_residuals_per_s']:.0f} million a "
            f"second, {decode[fastest]['codec_is_faster']:.2f}x the faster of huff0's "
            "decoders.",
        ]
    return "\n".join(lines) + "\n"


def to_text(result: dict[str, Any]) -> str:
    """The result of `run` as Markdown tables."""
    lines = [
        f"Tensor: {result['tensor']}. Medians of {result['rounds']} rounds, "
        f"{result['runtime']}.",
        "",
        "| one thread | GB/s of float32 | of memcpy | stored bits a value |",
        "|---|---|---|---|",
    ]
    for row in result["transfer"]:
        lines.append(
            f"| {row['what']} | {row['gb_per_s']:.2f} | {row['of_memcpy']:.2f} "
            f"| {row['bits_per_value']:.3f} |"
        )
    lines += ["", "| two threads over one | median | best |", "|---|---|---|"]
    for row in result["threads"]:
        lines.append(
            f"| {row['what']} | {row['two_threads_over_one']:.2f} "
            f"| {row['best_over_best']:.2f} |"
        )
    decode = result["residual_decode"]
    if decode is not None:
        lines += [
            "",
            "| residual decoding | M residuals/s | codec / this | bits a residual |",
            "|---|---|---|---|",
        ]
        for name, row in decode.items():
            lines.append(
                f"| {name} | {row['m_residuals_per_s']:.0f} "
                f"| {row['codec_is_faster']:.2f} | {row['bits_per_residual']:.3f} |"
            )
        if not any(name.startswith("huff0") for name in decode):
            lines += [
                "",
                "huff0 is absent: it needs g++ and libzstd-dev from 1.5.4 on.",
            ]
    size = result["size"]
    lines += [
        "",
        "| size | over |",
        "|---|---|",
        f"| residual section over its Huffman optimum "
        f"| {size['residual_section_over_huffman']:.4f} |",
        f"| class residual over its Huffman optimum "
        f"| {size['residual_blob_over_huffman']:.4f} |",
        f"| class all over the order-0 entropy | {size['all_blob_over_entropy']:.4f} |",
    ]
    real = result["resnet32"]
    if real is not None:
        bits = real["bits_per_value"]
        lines += [
            "",
            f"| ResNet-32, {real['images']} CIFAR-10 test images | bits a value |",
            "|---|---|",
            *(f"| {name} | {bits[name]:.3f} |" for name in sizes.STORAGE_CLASSES),
            f"| residual without overhead | {bits['huffman']:.3f} |",
            f"| order-0 entropy, a code a layer | {bits['entropy']:.3f} |",
            "",
            f"There, class all takes {real['all_over_entropy']:.4f} of the entropy, "
            f"class residual {real['residual_over_huffman']:.4f} of its Huffman "
            "optimum.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the tables and, if asked, writes them and the JSON."""
    parser = argparse.ArgumentParser(description="Speed and size of the codec.")
    parser.add_argument("--json", type=arguments.output)
    parser.add_argument("--rounds", type=arguments.count, default=21)
    parser.add_argument("--weights", type=Path, help="ResNet-32's, for real data")
    parser.add_argument("--data_dir", type=Path, help="prepared CIFAR-10")
    options = parser.parse_args()
    if (options.weights is None) != (options.data_dir is None):
        parser.error("--weights and --data_dir go together: real data needs both")
    result = run(options.rounds, options.weights, options.data_dir)
    text = to_text(result)
    print(text, end="")
    if options.json is not None:
        results.write(options.json, result)
        options.json.with_suffix(".md").write_text(
            f"# The codec, measured\n\nThe README quotes:\n\n{overview(result)}\n{text}"
        )


if __name__ == "__main__":
    main()
