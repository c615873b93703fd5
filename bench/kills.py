"""Kills processes of a cluster while it scales and serves, and counts what that costs.

    python bench/kills.py --kills=200 --seed=0
    python bench/kills.py --episode=17         # again what one cluster went through

Exits 1 if a request was lost, a token was wrong, or the workers that are wanted were
not there in time; and names the episode.
"""

import argparse
import dataclasses
import json
import logging
import pathlib
import statistics
import sys
import tempfile
import time

from kill_episode import KINDS, Episode, EpisodeConfig, Kill, problems

EPISODES_PER_SEED = 10_000


def main() -> None:
    """Plays episodes until enough was killed."""
    options = _parse_options()
    logging.getLogger("absl").setLevel(logging.ERROR)  # A death is no news here.
    kills: list[Kill] = []
    failed = []
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as cache_dir:
        for seed, num_kills in _episodes(options):
            log_dir = f"{options.logs}/{seed}" if options.logs else None
            config = EpisodeConfig(seed, num_kills, cache_dir, log_dir=log_dir)
            told = Episode(config).run()
            kills += told
            lines = problems(told)
            failed += [seed] * bool(lines)
            minutes = (time.monotonic() - start_s) / 60
            print(f"episode {seed}: {len(told)} kills, {minutes:.1f} min", flush=True)
            for line in lines:
                print(f"  {line}", flush=True)
            if options.json:
                rows = [dataclasses.asdict(kill) for kill in kills]
                pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    print(table(kills))
    for seed in failed:
        print(f"again: python bench/kills.py --episode={seed}")
    sys.exit(bool(failed))


def table(kills: list[Kill]) -> str:
    """The tally for each kind of victim, as Markdown."""
    lines = [
        "| victim | kills | requests completed | lost | wrong | stuck "
        "| longest stall, s: median (worst) | settled after, s: median (worst) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in [*KINDS, "all"]:
        of_kind = [kill for kill in kills if name in (kill.kind, "all")]
        if not of_kind:
            continue
        stalls = [kill.longest_stall_s for kill in of_kind]
        settled = [kill.settled_s for kill in of_kind if kill.settled_s is not None]
        cells = [
            name,
            len(of_kind),
            sum(kill.num_completed for kill in of_kind),
            sum(kill.num_lost for kill in of_kind),
            sum(kill.num_wrong for kill in of_kind),
            sum(bool(kill.stuck_as) for kill in of_kind),
            _spread(stalls),
            _spread(settled),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):.1f} ({max(values):.1f})"


def _episodes(options: argparse.Namespace) -> list[tuple[int, int]]:
    """The seed of each cluster, and how often something is killed there."""
    if options.episode is not None:
        return [(options.episode, options.kills_per_cluster)]
    first = options.seed * EPISODES_PER_SEED
    full, rest = divmod(options.kills, options.kills_per_cluster)
    counts = [options.kills_per_cluster] * full + [rest] * bool(rest)
    return [(first + index, count) for index, count in enumerate(counts)]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--kills_per_cluster", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episode", type=int, help="plays this one alone")
    parser.add_argument("--logs", help="logs of each cluster go to this folder")
    parser.add_argument("--json", help="a row for each kill goes to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
