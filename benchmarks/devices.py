"""The programs of benchmarks/device_programs.py on accelerators: what the compilers make of them, or measured times.

    python -m benchmarks.devices                         # compiles all for an H200 and a TPU v5e, on a CPU: hours
    python -m benchmarks.devices --only mlp adam         # those whose names contain one of the words
    python -m benchmarks.devices --quick --targets tpu   # those that the tests compile too
    python -m benchmarks.devices --write                 # and save the table in benchmarks/results/devices.json
    python -m benchmarks.devices --measure               # where there is a GPU or a TPU: runs them, 8 minutes at most

To compile it needs no device, but the compilers: `pip install -e '.[dev,devices]' flax`, Python 3.12, 1.9 GB.

Each row has the memory that the compiler planned (arguments, results, temporaries), kernels, FLOPs by dtype and
precision, bytes moved, collectives, loops, and products of half-precision operands at HIGHEST precision. These are
exact: they are in the compiled program. The time is an estimate: for each kernel the launch, and the longer of bytes /
bandwidth and FLOPs / rate, of the program alone on the device (tests/devices/hlo_cost.py).

`--measure` first runs some tests on the device, in a process of their own; then the programs with their rivals,
interleaved, most important first, until the time is over. What is measured is printed and saved as it comes, in
benchmarks/results/devices-<device>.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "libtpu", "flax", "optax")
KEPT = ("kernels", "bytes", "flops", "collectives", "custom_calls", "argument_bytes", "output_bytes", "temp_bytes",
        "alias_bytes")  # fmt: skip


def environment() -> dict[str, Any]:
    """The versions of what compiles."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "cores": os.cpu_count(), "versions": found}


def row_of(report: Any) -> dict[str, Any]:
    """What is kept of a report of tests/devices/hlo.py."""
    return {
        **{name: getattr(report, name) for name in KEPT},
        "half_at_highest_flops": sum(report.half_at_highest.values()),
        "loops": [loop.trips for loop in report.loops],
        "callbacks": len(report.callbacks),
        "float64": report.has_float64,
        "estimated_us": round(report.seconds * 1e6, 1),
        "compile_s": round(report.compile_seconds, 1),
    }


def compile_all(names: list[str], targets: list[str], tables: dict[str, dict[str, Any]], keep: Any) -> None:
    """Fill the table, row by row; a program that does not compile is told and left out."""
    from benchmarks.device_programs import PROGRAMS
    from tests.devices import hlo_cache

    for name in names:
        program = PROGRAMS[name]
        for target in targets:
            try:
                case = program.build()
                report = hlo_cache.compiled(case.function, case.args, target, **case.options)
            except Exception as error:  # of the compiler: the others still have their rows
                print(f"{name}, {target}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
                continue
            tables.setdefault(name, {})[target] = row_of(report)
            print_row(name, target, tables, program.rivals)
        keep()


def print_row(name: str, target: str, tables: dict[str, Any], rivals: tuple[str, ...]) -> None:
    row = tables[name][target]
    print(
        f"{name:53} {target:5}{row['kernels']:7} kernels{row['temp_bytes'] / 2**20:10.2f} MiB"
        f"{row['bytes'] / 1e9:9.3f} GB{row['estimated_us']:11.1f} us{row['compile_s']:7.1f} s"
        + "".join(
            f"   {over(row, tables[rival][target])} {rival}" for rival in rivals if target in tables.get(rival, {})
        ),
        flush=True,
    )


def over(row: dict[str, Any], rival: dict[str, Any]) -> str:
    return f"{row['estimated_us'] / rival['estimated_us']:.2f}x"


TARGETS = {"cuda": "H200", "tpu": "v5e"}


def markdown(tables: dict[str, Any]) -> list[str]:
    """The lines of the table in benchmarks/README.md: each program with its rival, if it has one."""
    from benchmarks.device_programs import PROGRAMS

    columns = [
        f"{device}: {what}" for device in TARGETS.values() for what in ("kernels", "temporaries, MiB", "time, us")
    ]
    lines = [f"| program | rival | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    compared = {rival for name in tables for rival in PROGRAMS[name].rivals}
    for name, program in PROGRAMS.items():
        if name not in tables or (name in compared and not program.rivals):
            continue
        rival = next((r for r in program.rivals if r in tables), None)
        rows = [tables[name], *([tables[rival]] if rival else [])]
        cells = [" / ".join(cell(row.get(t), n) for row in rows) for t in TARGETS for n in range(3)]
        words = (rival or "-").replace(name, "").strip()
        lines.append(f"| {name} | {words} | {' | '.join(cells)} |")
    return lines


def cell(row: dict[str, Any] | None, column: int) -> str:
    if row is None:
        return "-"
    return (f"{row['kernels']:,}", f"{row['temp_bytes'] / 2**20:,.1f}", f"{row['estimated_us']:,.0f}")[column]


def wanted(words: argparse.Namespace) -> list[str]:
    """The rivals before the programs that are compared with them."""
    from benchmarks.device_programs import PROGRAMS, with_rivals

    names = [name for name, program in PROGRAMS.items() if program.quick or not words.quick]
    if words.only:
        names = [name for name in names if any(word in name for word in words.only)]
        if not names:
            raise SystemExit(f"no program has one of {words.only} in its name; --list prints the names")
    if words.measure:
        return names
    return sorted(names if words.quick else with_rivals(names), key=lambda name: len(PROGRAMS[name].rivals) > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="programs whose names contain one of the words")
    parser.add_argument("--list", action="store_true", help="print the names of the programs")
    parser.add_argument("--quick", action="store_true", help="only the programs that the tests compile too")
    parser.add_argument("--targets", nargs="+", choices=("cuda", "tpu"), default=["cuda", "tpu"])
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/")
    parser.add_argument("--table", action="store_true", help="print the saved table as in benchmarks/README.md")
    parser.add_argument("--measure", action="store_true", help="run the programs on the accelerator of this machine")
    parser.add_argument("--seconds", type=float, default=480, help="for all of --measure (default: 480)")
    parser.add_argument("--platform", help=argparse.SUPPRESS)  # "cpu", to try --measure
    parser.add_argument("--no-tests", action="store_true", help="--measure without the tests")
    words = parser.parse_args()
    if words.list:
        from benchmarks.device_programs import PROGRAMS

        print(*PROGRAMS, sep="\n")
        return
    if words.table:
        print(*markdown(json.loads((RESULTS / "devices.json").read_text())["programs"]), sep="\n")
        return
    if words.measure:
        from benchmarks import device_measure

        parser.exit(device_measure.main(words, wanted))
    from tests.devices import hlo

    hlo.prepare()
    for target in list(words.targets):
        if why := hlo.unavailable(target):
            print(why)
            words.targets.remove(target)
    if not words.targets:
        parser.exit(1, "nothing to compile with\n")
    path = RESULTS / "devices.json"
    tables = json.loads(path.read_text())["programs"] if path.exists() else {}

    def keep() -> None:
        from jaxnn import files

        if words.write:
            files.write_json(path, {"environment": environment(), "programs": tables}, indent=1)

    compile_all(wanted(words), words.targets, tables, keep)
    if words.write:
        print(f"written: {path.name}")


if __name__ == "__main__":
    main()
