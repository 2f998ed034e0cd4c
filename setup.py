"""Builds the native code where there is a compiler; setup.cfg holds the rest."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("export/native")


def runtime() -> Extension:
    """The runtime of packed models: a plain shared library that LiteRT loads."""
    folders = ("codec", "runtime", "litert")
    return Extension(
        "dqa_keras._delegate",
        sources=sorted(
            str(path) for name in folders for path in (SOURCES / name).rglob("*.cc")
        ),
        depends=sorted(str(path) for path in SOURCES.rglob("*.h")),
        include_dirs=[str(SOURCES / "include"), str(SOURCES)],
        extra_compile_args=[
            "-std=c++17",
            "-O3",
            "-g0",
            "-fvisibility=hidden",
            "-ffp-contract=off",
        ],
        extra_link_args=["-pthread", "-Wl,-z,max-page-size=16384", "-s"],
        language="c++",
        optional=True,
    )


def extensions() -> list[Extension]:
    """The extensions; pip goes on without them if they do not compile."""
    import nanobind

    nanobind_sources = Path(nanobind.source_dir())
    return [
        Extension(
            "dqa_keras.codec._codec",
            sources=[
                *sorted(str(path) for path in (SOURCES / "codec").glob("*.cc")),
                str(SOURCES / "bindings" / "python" / "codec_module.cc"),
                str(nanobind_sources / "nb_combined.cpp"),
            ],
            depends=sorted(str(path) for path in SOURCES.rglob("*.h")),
            include_dirs=[
                str(SOURCES / "include"),
                str(SOURCES),
                nanobind.include_dir(),
                str(nanobind_sources.parent / "ext" / "robin_map" / "include"),
            ],
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-fvisibility=hidden",
                "-fno-strict-aliasing",  # nanobind asks for it
                "-ffp-contract=off",
            ],
            extra_link_args=["-pthread", "-s"],
            language="c++",
            optional=True,
        ),
        runtime(),
    ]


setup(ext_modules=extensions())
