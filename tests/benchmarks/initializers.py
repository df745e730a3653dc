"""Time to draw a kernel: each scheme against Keras's of the same name, in turn, in one process.

Run as `python tests/benchmarks/initializers.py [--size 4096] [--repeats 5]`. Prints medians in milliseconds and their
ratio; at most 1 is the aim. The two are drawn alternately, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import keras

import keras_initaudit as ki

PAIRS: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
    "Zeros": (lambda _: ki.Zeros(), lambda _: keras.initializers.Zeros()),
    "RandomNormal": (lambda seed: ki.RandomNormal(seed=seed), lambda seed: keras.initializers.RandomNormal(seed=seed)),
    "RandomUniform": (
        lambda seed: ki.RandomUniform(seed=seed),
        lambda seed: keras.initializers.RandomUniform(seed=seed),
    ),
    "TruncatedNormal": (
        lambda seed: ki.TruncatedNormal(seed=seed),
        lambda seed: keras.initializers.TruncatedNormal(seed=seed),
    ),
    "VarianceScaling": (
        lambda seed: ki.VarianceScaling(seed=seed),
        lambda seed: keras.initializers.VarianceScaling(seed=seed),
    ),
    "GlorotNormal": (lambda seed: ki.GlorotNormal(seed=seed), lambda seed: keras.initializers.GlorotNormal(seed=seed)),
    "GlorotNormal, truncated": (
        lambda seed: ki.GlorotNormal(truncated=True, seed=seed),
        lambda seed: keras.initializers.GlorotNormal(seed=seed),
    ),
    "GlorotUniform": (
        lambda seed: ki.GlorotUniform(seed=seed),
        lambda seed: keras.initializers.GlorotUniform(seed=seed),
    ),
    "HeNormal": (lambda seed: ki.HeNormal(seed=seed), lambda seed: keras.initializers.HeNormal(seed=seed)),
    "HeUniform": (lambda seed: ki.HeUniform(seed=seed), lambda seed: keras.initializers.HeUniform(seed=seed)),
    "LeCunNormal": (lambda seed: ki.LeCunNormal(seed=seed), lambda seed: keras.initializers.LecunNormal(seed=seed)),
    "LeCunUniform": (lambda seed: ki.LeCunUniform(seed=seed), lambda seed: keras.initializers.LecunUniform(seed=seed)),
    "Identity": (lambda _: ki.Identity(), lambda _: keras.initializers.Identity()),
    "Orthogonal": (lambda seed: ki.Orthogonal(seed=seed), lambda seed: keras.initializers.Orthogonal(seed=seed)),
}


def milliseconds(make: Callable[[int], object], seed: int, size: int) -> float:
    """Time of one draw, the value waited for."""
    initializer = make(seed)
    start = time.perf_counter()
    value = initializer((size, size), dtype="float32")  # type: ignore[operator]
    float(value[-1, -1])
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    backend = keras.backend.backend()
    print(f"{options.size} x {options.size}, median of {options.repeats}, Keras {keras.__version__} on {backend}")
    print(f"{'scheme':<25}{'ours ms':>10}{'Keras ms':>10}{'ratio':>8}")
    for name, (ours, theirs) in PAIRS.items():
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(options.repeats + 1):
            both = [(times[0], ours), (times[1], theirs)]
            for taken, make in both if repeat % 2 else reversed(both):
                taken.append(milliseconds(make, repeat, options.size))
        mine, keras_own = (statistics.median(taken[1:]) for taken in times)  # the first compiles
        print(f"{name:<25}{mine:>10.1f}{keras_own:>10.1f}{mine / keras_own:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
