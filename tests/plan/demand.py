"""Demand curves: requests over time, by name and seed."""

import math
import random

from jscale.core.units import NS_PER_S

SERVICE_S = 4.0


def requests(curve, seed, duration_s=100.0):
    """Poisson arrivals whose rate follows the curve, with exponential service times."""
    rng = random.Random(f"{curve}-{seed}")
    rate, most = CURVES[curve]
    now_s, out = 0.0, []
    while (now_s := now_s + rng.expovariate(most)) < duration_s:
        if rng.random() * most < rate(now_s):
            service_s = rng.expovariate(1 / SERVICE_S)
            out.append((round(now_s * NS_PER_S), round(service_s * NS_PER_S)))
    return out


CURVES = {
    "step": (lambda s: 2.0 if s < 30 or s > 70 else 20.0, 20.0),
    "ramp": (lambda s: min(s, 100 - s) / 2, 25.0),
    "burst": (lambda s: 80.0 if 40 < s < 42 else 3.0, 80.0),
    "diurnal": (lambda s: 10 - 9 * math.cos(math.tau * s / 60), 19.0),
    "noise": (lambda s: 7.0, 7.0),
}
"""Requests a second at a second, and the most of it."""
