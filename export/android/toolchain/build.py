"""Builds libdqa_delegate.so for Android without the NDK: `build.py OUT JAVA [ABI...]`.

It writes `OUT/ABI/libdqa_delegate.so`; JAVA is the folder of a JDK that holds jni.h.
Compiler, linker and the sources of the C++ runtime come from the PyPI package ziglang,
in whose environment this runs. What it lacks of Android lies beside this file:
declarations of the C library's functions (`include`), names of what the system exports
(`system.ini`), and `runtime.cc`. The same sources give the same bytes, wherever they
lie.
"""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ziglang

ZIG = Path(ziglang.__file__).parent
HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[1] / "native"

# What clang calls the processor, and what code for it needs besides. Android's C
# library has no helpers for atomics out of line.
TARGETS = {
    "arm64-v8a": ("aarch64-linux-android", ["-mno-outline-atomics"]),
    "armeabi-v7a": ("armv7a-linux-androideabi", ["-mthumb", "-mfpu=neon"]),
    "x86_64": ("x86_64-linux-android", []),
}
API = 24

# Of libc++ and libc++abi, what the sources use; the linker takes what is called.
LIBCXX = """chrono condition_variable condition_variable_destructor error_category
    exception functional future memory mutex mutex_destructor new new_helpers stdexcept
    string system_error thread"""
LIBCXXABI = """cxa_default_handlers cxa_exception cxa_exception_storage cxa_guard
    cxa_handlers cxa_personality cxa_vector fallback_malloc private_typeinfo
    stdlib_exception stdlib_new_delete stdlib_stdexcept stdlib_typeinfo"""
LIBUNWIND = """UnwindLevel1.c UnwindLevel1-gcc-ext.c UnwindRegistersRestore.S
    UnwindRegistersSave.S Unwind-EHABI.cpp libunwind.cpp"""

COMMON = [
    *("-fPIC", "-g0", "-DNDEBUG", "-fvisibility=hidden", "-funwind-tables"),
    *("-fno-asynchronous-unwind-tables", "-ffunction-sections", "-fdata-sections"),
    "-nostdinc",
    *("-include", "config_site.h"),
]
OURS = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
# On 64-bit Arm vector instructions are always there: scalar code serves comparisons.
SMALL = ["-Oz", "-fno-vectorize", "-fno-slp-vectorize"]
# Nothing is thrown through the inner loops.
KERNELS = ["-fno-exceptions", "-fno-unwind-tables"]
RUNTIME = ["-std=c++23", "-Os", "-w"]
# __BIONIC__: the unwinder then asks the system where a function's table lies. Without
# __linux__ it does not look for signal handlers' frames: nothing throws through those.
UNWINDER = [
    *("-Oz", "-w", "-D__BIONIC__", "-U__linux__"),
    *("-D_LIBUNWIND_IS_NATIVE_ONLY", "-D_LIBUNWIND_USE_DLADDR=0"),
]
LINK = [
    *("-shared", "-soname", "libdqa_delegate.so", "--build-id=none", "-s"),
    *("-z", "max-page-size=16384", "-z", "common-page-size=16384"),
    *("-z", "relro", "-z", "now", "-z", "noexecstack", "-z", "defs", "-z", "text"),
    *("--hash-style=both", "--pack-dyn-relocs=none", "--gc-sections", "--icf=all"),
    *("--as-needed", "--no-rosegment", "--eh-frame-hdr"),
]

# Mutexes and their kin must be no smaller than the system believes; zig's own library
# knows Android's.
SIZES = """\
const std = @import("std");
comptime {
    for (.{ std.c.pthread_mutex_t, std.c.pthread_cond_t, std.c.pthread_rwlock_t }) |T| {
        if (@sizeOf(T) > 64) @compileError("pthread.h declares it too small");
    }
    if (@sizeOf(std.c.pthread_t) != @sizeOf(c_long)) @compileError("pthread_t");
}
"""


def zig(*arguments: object) -> None:
    """Runs one of zig's tools."""
    subprocess.run([ZIG / "zig", *map(str, arguments)], check=True)


def sources(abi: str) -> Iterator[tuple[Path, list[object]]]:
    """Every source and how it is compiled."""
    lib = ZIG / "lib"
    building = [
        *("-D_LIBCPP_BUILDING_LIBRARY", "-D_LIBCXXABI_BUILDING_LIBRARY"),
        *("-DLIBCXX_BUILDING_LIBCXXABI", "-DLIBCXXABI_NON_DEMANGLING_TERMINATE"),
        *("-I", lib / "libcxx/src", "-I", lib / "libcxx"),
    ]
    for name in ("codec", "runtime", "litert", "bindings/jni"):
        for path in sorted((NATIVE / name).rglob("*.cc")):
            is_spare = abi == "arm64-v8a" and path.stem in ("scalar", "scalar_kernels")
            is_kernel = path.parent.name == "kernels" or path.stem in ("avx2", "neon")
            how = [*OURS, *(SMALL if is_spare else []), *(KERNELS if is_kernel else [])]
            yield path, [*how, "-I", NATIVE / "include", "-I", NATIVE]
    yield HERE / "runtime.cc", RUNTIME
    for folder, names in (("libcxx", LIBCXX), ("libcxxabi", LIBCXXABI)):
        for name in names.split():
            yield lib / folder / f"src/{name}.cpp", [*RUNTIME, *building]
    for name in LIBUNWIND.split():
        how = ["-I", lib / "libunwind/include"]
        if not name.endswith(".S"):
            how += UNWINDER
        if name.endswith(".cpp"):
            how += ["-std=c++17", "-fno-exceptions", "-fno-rtti"]
        if name != "Unwind-EHABI.cpp" or abi == "armeabi-v7a":
            yield lib / "libunwind/src" / name, how


def compile_one(
    abi: str, java: Path, source: Path, how: list[object], out: Path
) -> Path:
    """Compiles one source to `out`, in which no path is left."""
    target, options = TARGETS[abi]
    lib = ZIG / "lib"
    headers = [lib / "libcxx/include"] if source.suffix in (".cc", ".cpp") else []
    headers += [lib / "libcxxabi/include", lib / "libunwind/include"]
    headers += [HERE / "include", lib / "include", java, java / "linux"]
    zig(
        *("clang", f"--target={target}{API}", *options, *COMMON, *how),
        *(part for header in headers for part in ("-isystem", header)),
        *(f"-ffile-prefix-map={ZIG}=zig", f"-ffile-prefix-map={NATIVE}=native"),
        *("-c", source, "-o", out),
    )
    return out


def builtins(abi: str, folder: Path) -> Path:
    """What the compiler calls, such as divisions on 32-bit Arm, from zig's library.

    Not its memcpy and the like: the system's are written for the processor. Nor its
    emulated thread-local variables: `runtime.cc` has them.
    """
    shutil.copytree(ZIG / "lib/compiler_rt", folder / "compiler_rt")
    shutil.copy(ZIG / "lib/compiler_rt.zig", folder)
    theirs = re.compile(
        r'.*(/(emutls|memcpy|memmove|ssp)\.zig|"(mem...|bcmp|strlen|__aeabi_mem\w+)"\)).*\n'
    )
    for path in (folder / "compiler_rt.zig", folder / "compiler_rt/arm.zig"):
        path.write_text(theirs.sub("", path.read_text()))
    (folder / "sizes.zig").write_text(SIZES)
    target = f"{TARGETS[abi][0].replace('armv7a', 'arm')}.{API}"
    zig("build-obj", "-target", target, "-fno-emit-bin", folder / "sizes.zig")
    zig(
        *("build-obj", "-target", target, "-lc", "-O", "ReleaseSmall", "-fPIC"),
        *("-fno-builtin", "-fstrip", "-ffunction-sections"),
        *(f"-femit-bin={folder / 'builtins.o'}", folder / "compiler_rt.zig"),
    )
    return folder / "builtins.o"


def stubs(abi: str, folder: Path) -> list[Path]:
    """Libraries with the names that the system's export, to link with."""
    found = []
    names = configparser.ConfigParser(allow_no_value=True)
    names.read(HERE / "system.ini")
    for name in names.sections():
        source, stub = folder / f"{name}.s", folder / name
        symbols = names[name]
        source.write_text("".join(f".globl {each}\n{each}:\n" for each in symbols))
        target = TARGETS[abi][0]
        zig("clang", f"--target={target}{API}", "-c", source, "-o", f"{stub}.o")
        zig("ld.lld", "-shared", "-soname", name, f"{stub}.o", "-o", stub)
        found.append(stub)
    return found


def build(abi: str, java: Path, out: Path, pool: ThreadPoolExecutor) -> None:
    """Writes `out`, the library for one kind of processor."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiled = [
            pool.submit(compile_one, abi, java, *each, folder / f"{number}.o")
            for number, each in enumerate(sources(abi))
        ]
        objects = [builtins(abi, folder), *(each.result() for each in compiled)]
        out.parent.mkdir(parents=True, exist_ok=True)
        exports = NATIVE / "bindings/jni/exports.map"
        zig(
            *("ld.lld", *LINK, f"--version-script={exports}", "-o", out),
            *(*objects, *stubs(abi, folder)),
        )


def main(folder: Path, java: Path, abis: list[str]) -> None:
    """Writes `folder/ABI/libdqa_delegate.so`."""
    with (
        tempfile.TemporaryDirectory() as cache,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        os.environ["ZIG_GLOBAL_CACHE_DIR"] = os.environ["ZIG_LOCAL_CACHE_DIR"] = cache
        for abi in abis:
            build(abi, java, folder / abi / "libdqa_delegate.so", pool)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(TARGETS))
