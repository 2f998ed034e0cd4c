"""What the codec's speed is, beside memcpy and zstandard: the figures of the README.

    python -m benchmarks.codec [--json out.json] [--rounds 21]

One tensor as the runtime meets it (n=4, m=2, 25 % important channels, half zeros,
1x256x256x64). Everything is measured in one process, the candidates of a table taking
turns in every round; a figure is the median over the rounds, and a ratio the median of
the ratios within a round, so that a busy machine slows both sides of it alike.

What must move: packing reads 4 bytes a value and writes about 0.55, memcpy reads 4 and
writes 4. GB/s counts the float32 side of each.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqa_keras import blocks, codec, huffman, packing
from dqa_keras.tables import LayerTable

SHAPE = (1, 256, 256, 64)
Job = Callable[[], object]


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
    base, residual = packing.split_symbols(packing.quantize(values, table), table)
    lengths = {
        "base_lengths": huffman.code_lengths(np.bincount(base, minlength=16)),
        "residual_lengths": huffman.code_lengths(np.bincount(residual, minlength=4)),
    }
    return LayerTable(**{**vars(table), **lengths}), values


def take_turns(jobs: dict[str, Job], rounds: int) -> dict[str, list[float]]:
    """Seconds of every job in every round; one round before them is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
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
    sizes = {}
    for storage in packing.STORAGES:
        room = np.zeros(packing.blob_bound(table, SHAPE, storage), np.uint8)
        blob = fast.pack(values, storage).copy()
        sizes[storage] = blob.size
        jobs[f"pack {storage}"] = lambda s=storage, r=room: fast.pack(values, s, out=r)
        jobs[f"unpack {storage}"] = lambda b=blob: fast.unpack(b, SHAPE, out=back)
    seconds = take_turns(jobs, rounds)
    return [
        {
            "what": name,
            "gb_per_s": values.nbytes / statistics.median(times) / 1e9,
            "of_memcpy": ratio(seconds["memcpy"], times),
            "bits_per_value": 8 * sizes[name.split()[1]] / values.size
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
    result = []
    for storage in packing.STORAGES:
        room = np.zeros(packing.blob_bound(table, SHAPE, storage), np.uint8)
        blob = fast.pack(values, storage).copy()
        for what in ("pack", "unpack"):
            jobs: dict[str, Job] = {}
            for threads in (1, 2):
                jobs[str(threads)] = (
                    (
                        lambda t=threads, s=storage, r=room: fast.pack(
                            values, s, None, t, r
                        )
                    )
                    if what == "pack"
                    else (
                        lambda t=threads, b=blob: fast.unpack(
                            b, SHAPE, threads=t, out=back
                        )
                    )
                )
            seconds = take_turns(jobs, rounds)
            result.append(
                {
                    "what": f"{what} {storage}",
                    "two_threads_over_one": ratio(seconds["1"], seconds["2"]),
                    "best_over_best": min(seconds["1"]) / min(seconds["2"]),
                }
            )
    return result


def measure_decode(
    table: LayerTable, values: NDArray[np.float32], rounds: int
) -> dict[str, Any] | None:
    """Residual decoding beside zstandard; `None` without the compiled codec.

    zstandard gets the residuals twice: one to a byte, so that a symbol of its Huffman
    stage (huff0) is a residual, and packed four to a byte, as one would use it.
    """
    fast = codec.Codec(table)
    if fast.runtime == "numpy":
        return None
    _, residual = packing.split_symbols(packing.quantize(values, table), table)
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
    seconds = take_turns(jobs, rounds)
    if out[: len(plane)].tobytes() != plane:
        raise AssertionError("the decoded residuals differ from those encoded")
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
    codes = packing.quantize(values, table)
    base, residual = packing.split_symbols(codes, table)
    residual_counts, base_counts = np.bincount(residual), np.bincount(base)
    optimum = float(residual_counts @ table.residual_lengths[: residual_counts.size])
    stored = 8 * blocks.blocks_size(residual, 2, table.residual_lengths)
    entropy = entropy_bits(base_counts) + entropy_bits(residual_counts)
    return {
        "residual_section_over_huffman": stored / optimum,
        "residual_blob_over_huffman": 8
        * packing.packed_size(codes, table, "residual")
        / (4 * base.size + optimum),
        "all_blob_over_entropy": 8 * packing.packed_size(codes, table, "all") / entropy,
        "zeros": float(np.mean(values == 0)),
    }


def entropy_bits(counts: NDArray[np.integer]) -> float:
    """Order-0 entropy of all symbols together, in bits."""
    present = counts[counts > 0]
    return float(-(present * np.log2(present / counts.sum())).sum())


def run(rounds: int = 21) -> dict[str, Any]:
    """Measures everything.

    Args:
        rounds: Integer. How often every candidate takes its turn. Defaults to `21`.

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
    }


def to_text(result: dict[str, Any]) -> str:
    """The result of `run` as tables for a terminal or the README."""
    lines = [
        result["tensor"],
        f"{result['runtime']}; medians of {result['rounds']} rounds",
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
    size = result["size"]
    lines += [
        "",
        f"residual section over its Huffman optimum: "
        f"{size['residual_section_over_huffman']:.4f}",
        f"class residual over its Huffman optimum: "
        f"{size['residual_blob_over_huffman']:.4f}",
        f"class all over the order-0 entropy: {size['all_blob_over_entropy']:.4f}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables and, if asked, writes the JSON."""
    parser = argparse.ArgumentParser(description="Speed and size of the codec.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    result = run(arguments.rounds)
    print(to_text(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
