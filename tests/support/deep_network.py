"""A deep network in numpy, trained on real digits, and its audits: logs for tests that need no Keras.

An independent second measurement: forward, backward and update are written out here, so that what the page draws can
be compared with numbers that no code of the package has touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

from keras_initaudit.records import Finding, Histogram, LayerInfo, Snapshot, Statistics

ACTIVATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray], float]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype), 2**0.5),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, 1.5925),
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))) ** 2, 1.0),
}


def digits(samples: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, standardised, and their classes."""
    data = load_digits()
    x = (data.data - data.data.mean()) / data.data.std()
    return x[:samples].astype(np.float32), data.target[:samples]


@dataclass
class Network:
    """Dense layers of one width with one activation, and a softmax head; float32 throughout, as in the real graph."""

    depth: int
    activation: str = "relu"
    std: float = 2**0.5
    """Of the weights, times sqrt(fan_in): sqrt(2) is He's for relu."""
    width: int = 32
    seed: int = 0
    names: Callable[[int], str] = lambda i: "dense" if i == 0 else f"dense_{i}"

    def __post_init__(self) -> None:
        draw = np.random.default_rng(self.seed)
        sizes = [64, *[self.width] * (self.depth - 1), 10]
        self.kernels = [
            (draw.standard_normal((n, m)) * self.std / n**0.5).astype(np.float32) for n, m in itertools.pairwise(sizes)
        ]

    def forward(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Pre-activations and activations of every layer; the last is the softmax."""
        phi = ACTIVATIONS[self.activation][0]
        z, a, h = [], [], x
        for i, kernel in enumerate(self.kernels):
            z.append(h @ kernel)
            if i < self.depth - 1:
                h = phi(z[-1])
            else:
                e = np.exp(z[-1] - z[-1].max(axis=1, keepdims=True))
                h = e / e.sum(axis=1, keepdims=True)
            a.append(h)
        return z, a

    def backward(self, x: np.ndarray, y: np.ndarray) -> tuple[list, list, list, list, float]:
        """z, a, dL/da, dL/dW and the cross-entropy."""
        slope = ACTIVATIONS[self.activation][1]
        z, a = self.forward(x)
        n = len(x)
        p = a[-1][np.arange(n), y]
        onehot = np.eye(10, dtype=np.float32)[y]
        loss = float(-np.log(np.maximum(p, 1e-7)).mean()) if np.isfinite(p).all() else float("nan")
        da = [np.zeros_like(v) for v in a]
        da[-1] = -onehot / np.maximum(a[-1], np.float32(1e-7)) / n
        dz = (a[-1] - onehot) / n
        dw: list[np.ndarray] = [np.zeros(0)] * self.depth
        for i in range(self.depth - 1, -1, -1):
            dw[i] = (x if i == 0 else a[i - 1]).T @ dz
            if i > 0:
                da[i - 1] = dz @ self.kernels[i].T
                dz = da[i - 1] * slope(z[i - 1])
        return z, a, da, dw, loss

    def layers(self) -> tuple[LayerInfo, ...]:
        """The rows: the batch, the layers, the targets."""
        rows = [LayerInfo("input", -1, role="input", shape=(64,))]
        for i, kernel in enumerate(self.kernels):
            last = i == self.depth - 1
            rows.append(
                LayerInfo(
                    self.names(i),
                    i,
                    kind="Dense",
                    shape=(kernel.shape[1],),
                    activation="softmax" if last else self.activation,
                    gain=None if last else ACTIVATIONS[self.activation][2],
                    weight="kernel",
                    weight_shape=kernel.shape,
                    fan_in=float(kernel.shape[0]),
                    fan_out=float(kernel.shape[1]),
                    initializer="VarianceScaling",
                    inputs=(rows[-1].path,),
                )
            )
        return (*rows, LayerInfo("target", self.depth, role="target"))

    def audits(
        self, steps: Sequence[int], rate: float = 0.05, samples: int = 64, histograms: bool = True
    ) -> Iterator[Snapshot]:
        """Trains by plain gradient descent and yields a snapshot at each of `steps`."""
        x, y = digits(samples)
        with np.errstate(all="ignore"):
            for step in range(max(steps) + 1):
                z, a, da, dw, loss = self.backward(x, y)
                if step in steps:
                    yield self._snapshot(step, x, z, a, da, dw, loss, rate, histograms)
                for kernel, gradient in zip(self.kernels, dw, strict=True):
                    kernel -= np.float32(rate) * gradient

    def _snapshot(self, step, x, z, a, da, dw, loss, rate, histograms) -> Snapshot:
        rows = [Statistics(**_moments("activation", x))]
        for i, kernel in enumerate(self.kernels):
            last = i == self.depth - 1
            update = rate * _rms(dw[i]) / _rms(kernel)
            spread = _rms(np.std(a[i], axis=0)) / _rms(a[i]) if _rms(a[i]) > 0 else 0.0
            rows.append(
                Statistics(
                    **_moments("activation", a[i]),
                    activation_zero=float((a[i] == 0).mean()),
                    activation_dead=float((a[i] == 0).all(axis=0).mean()) if self.activation == "relu" else np.nan,
                    activation_saturated=np.nan
                    if last
                    else float((ACTIVATIONS[self.activation][1](z[i]) < 0.02 * 0.25).mean()),
                    activation_spread=float(spread),
                    **_moments("preactivation", z[i]),
                    **{k: v for k, v in _moments("backward", da[i]).items() if k[9:] in ("rms", "max", "nonfinite")},
                    **_moments("weight", kernel),
                    **{k: v for k, v in _moments("gradient", dw[i]).items() if k[9:] in ("rms", "max", "nonfinite")},
                    update_log10=float(np.log10(update)) if update > 0 else np.nan,
                )
            )
        rows.append(Statistics())
        layers = self.layers()
        kinds = {"weights": self.kernels, "activations": a, "gradients": dw}
        return Snapshot(
            step,
            layers,
            tuple(rows),
            loss=loss,
            baseline_loss=float(np.log(10)),
            batch_size=len(x),
            histograms={
                kind: {layers[i + 1].path: _histogram(v) for i, v in enumerate(values)}
                for kind, values in kinds.items()
            }
            if histograms
            else {},
            optimizer="SGD",
            learning_rate=rate,
        )


def findings_of(snapshot: Snapshot) -> list[Finding]:
    """What these plain networks can have, told from the slope of the gradient: stands in for the rules."""
    rows = [(k, s) for k, s in zip(snapshot.layers, snapshot.statistics, strict=True) if k.role == "layer"]
    for kind in ("activation", "backward"):  # what goes forward comes first, and so does its cause
        for layer, row in rows:
            if getattr(row, f"{kind}_nonfinite") > 0:
                return [Finding("non-finite", "bad", layer.path, f"{layer.path} is the first that is not finite")]
    first, last = rows[0][1].backward_rms, rows[-2][1].backward_rms
    if len(rows) < 4 or last == 0:
        return []
    factor = (first / last) ** (1 / (len(rows) - 2))
    if 1e-2 < first / last < 1e2:
        return []
    slug = "vanishing-gradient" if factor < 1 else "exploding-gradient"
    return [
        Finding(
            slug,
            "bad",
            rows[0][0].path,
            f"each layer multiplies the gradient by {factor:.2f}; after {len(rows) - 2} layers "
            f"{first / last:.1e} of it is left",
            {"observed": factor, "expected": 1.0, "threshold": 0.9},
            'keras.layers.Dense(32, activation="relu", kernel_initializer="he_normal")',
            "He et al. (2015), section 2.2",
        )
    ]


def _rms(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.sqrt(np.mean(finite**2))) if finite.size else float("nan")


def _moments(prefix: str, values: np.ndarray) -> dict[str, float]:
    finite = values[np.isfinite(values)].astype(np.float64)
    moments = {
        "mean": float(finite.mean()) if finite.size else np.nan,
        "std": float(finite.std()) if finite.size else np.nan,
        "rms": _rms(values),
        "max": float(np.abs(finite).max()) if finite.size else np.nan,
        "nonfinite": float(1 - finite.size / values.size),
    }
    return {f"{prefix}_{name}": value for name, value in moments.items()}


def _histogram(values: np.ndarray) -> Histogram:
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return Histogram(0.0, 0.0, (0.0,) * 30)
    counts, edges = np.histogram(finite, bins=30)
    return Histogram(float(edges[0]), float(edges[-1]), tuple(float(c) for c in counts))
