"""Prints the transcript of a seed: `python -m tests.simulation.replay SEED`."""

import sys

from tests.simulation import scenarios

if __name__ == "__main__":
    scenario = scenarios.draw(int(sys.argv[1]))
    print(scenario)
    scenarios.run(scenario, say=print)
