"""Process start to first token of a new worker, with and without shipped executables.

Each start is a fresh process that does what a worker does between its first line and
its first token: import, map the arena, read and verify the blocks from a block store
on disk, and meanwhile get its executables, by loading the bundle that another process
compiled or by compiling them. No cluster, no network: what is left is what a worker
cannot avoid. The two kinds of start take turns, after one of each that is not counted.

    python bench/start.py
    python bench/start.py --size_mib=256 --num_layers=16 --num_blocks=4
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
MODES = ("shipped", "compiled")
PARTS = ("imports_s", "weights_s", "executables_s", "first_token_s")
PROMPT_IDS = (1, 403, 407)


def main() -> int:
    """Runs one start, or all of them; the exit status."""
    options = _parse_options()
    if options.start:
        return _start(options)
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        _prepare(folder, options)
        rows = _run_all(folder, options)
    _print_rows(rows)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1))
    tokens = {row["token"] for row in rows}
    assert len(tokens) == 1, f"the starts give different tokens: {tokens}"
    return 0


def _prepare(folder: pathlib.Path, options: argparse.Namespace) -> None:
    """Makes the block store, and the bundle as a first worker would."""
    import jscale
    from jscale.checkpoint.convert import convert
    from jscale.checkpoint.random_model import config_of_size, write_random_model
    from jscale.engine.executables import ExecutableSet

    if options.size_mib:
        config = config_of_size(options.size_mib * MIB, num_layers=options.num_layers)
        write_random_model(folder, config, num_blocks=options.num_blocks)
    else:
        convert(jscale.BUNDLED_MODEL, folder, num_blocks=options.num_blocks)
    program = _program(folder)
    executables = ExecutableSet(program)
    executables.compile((*program.stage_specs(), *program.fused_specs()))
    (folder / "bundle").write_bytes(executables.to_bundle())


def _run_all(
    folder: pathlib.Path, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Starts processes in turn; a row for each start that counts."""
    rows = []
    for repeat in range(1 + options.repeats):
        for mode in MODES:
            started_ns = time.monotonic_ns()
            command = [sys.executable, __file__, f"--start={mode}", f"--path={folder}"]
            command.append(f"--started_ns={started_ns}")
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            if repeat:
                rows.append(row)
    return rows


def _start(options: argparse.Namespace) -> int:
    """One start: prints when, in seconds since the process began, each part was done.

    The clock is the one that all processes of a machine share.
    """
    done_s: dict[str, object] = {"mode": options.start}

    def mark(part: str) -> None:
        done_s[part] = (time.monotonic_ns() - options.started_ns) / 1e9

    from jscale.engine.executables import ExecutableSet
    from jscale.engine.executor import StageExecutor
    from jscale.engine.pages import page_map
    from jscale.engine.request import Request, SamplingParams
    from jscale.engine.scheduler import Scheduler
    from jscale.engine.sequence import Sequence
    from jscale.store.block_store import BlockStore
    from jscale.store.manifest import Manifest

    mark("imports_s")
    folder = pathlib.Path(options.path)
    program = _program(folder)
    executables = ExecutableSet(program)

    def get_executables() -> None:
        _get_executables(executables, folder, options.start)
        mark("executables_s")

    getting = threading.Thread(target=get_executables)
    getting.start()
    store = BlockStore(Manifest.load(folder))
    executor = StageExecutor(executables)
    for block in range(program.partition.num_blocks):
        store.load(block, folder)
        executor.set_block(block, store.publish(block))
    mark("weights_s")
    getting.join()
    num_pages = program.engine.pages_per_sequence
    scheduler = Scheduler(program.engine, num_pages=num_pages)
    sampling = SamplingParams(max_tokens=1)
    scheduler.add(Sequence(Request("start", PROMPT_IDS, sampling)))
    scheduled = scheduler.next_batch()
    result = executor.run(
        0,
        program.partition.num_blocks,
        scheduled.batch,
        page_map(range(1, num_pages + 1)),
    )
    mark("first_token_s")
    done_s["token"] = int(result.tokens[len(PROMPT_IDS) - 1])
    print(json.dumps(done_s))
    return 0


def _get_executables(executables, folder: pathlib.Path, mode: str) -> None:
    """What the first token needs; the fused step comes later in both cases."""
    from jscale.engine.bundle import bundle_digest, open_bundle

    specs = executables.program.stage_specs()
    if mode == "compiled":
        executables.compile(specs)
        return
    data = (folder / "bundle").read_bytes()
    executables.load(open_bundle(data, sha256=bundle_digest(data)), specs)


def _program(folder: pathlib.Path):
    from jscale.engine.config import EngineConfig
    from jscale.engine.program import ModelProgram
    from jscale.store.manifest import Manifest

    return ModelProgram.of(Manifest.load(folder), EngineConfig())


def _print_rows(rows: list[dict[str, object]]) -> None:
    """Medians and spreads of each part, and the ratio that matters."""
    print(f"{'executables':12}" + "".join(f"{part:>22}" for part in PARTS))
    medians = {}
    for mode in MODES:
        line = f"{mode:12}"
        for part in PARTS:
            values = [row[part] for row in rows if row["mode"] == mode]
            medians[mode, part] = statistics.median(values)
            spread = f"{min(values):.2f}-{max(values):.2f}"
            line += f"{medians[mode, part]:>9.2f} ({spread})".rjust(22)
        print(line)
    ratio = medians["compiled", "first_token_s"] / medians["shipped", "first_token_s"]
    print(f"first token with shipped executables: {ratio:.2f} times as soon")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size_mib", type=int, default=0, help="0: the bundled model")
    parser.add_argument("--num_layers", type=int, default=16, help="with --size_mib")
    parser.add_argument("--num_blocks", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="file for the rows")
    parser.add_argument("--start", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--started_ns", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
