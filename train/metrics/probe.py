"""How well a linear classifier tells classes apart by a model's codes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

FOLDS = 5
DECAY = 1e-3  # of the probe's weights, beside the mean loss, for codes of a mean variance of 1


class Codes:
    """The codes of the `wanted` items, by their indices, and rows of pictures of the first `shown`.

    `probe_accuracy` is that of a linear classifier on these codes, in five-fold cross-validation: each item is judged
    by a classifier that has not seen it. Without classes there is none.
    """

    def __init__(self, wanted: Iterable[int], shown: int):
        self.wanted, self.shown = set(wanted), shown
        self.codes: dict[int, np.ndarray] = {}
        self.labels: dict[int, int] = {}
        self.rows: dict[int, dict[str, np.ndarray]] = {}

    def add(self, index: int, result: dict[str, Any]) -> None:
        if index in self.wanted:
            self.codes[index], self.labels[index] = np.asarray(result["code"], float), int(result["label"])
        if index < self.shown:
            self.rows[index] = {name: row for name, row in result.items() if name not in ("code", "label")}

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes (N, K) and labels (N,), in the order of the items."""
        order = sorted(self.codes)
        return np.array([self.codes[i] for i in order]), np.array([self.labels[i] for i in order], int)

    def compute(self) -> dict[str, float]:
        if len(set(self.labels.values())) < 2 or len(self.labels) < FOLDS:
            return {}
        return {"probe_accuracy": cross_validated(*self.arrays())}


def cross_validated(codes: np.ndarray, labels: np.ndarray) -> float:
    """The part of the items (N, K) whose label (N,) a softmax regression on the other folds finds."""
    fold = np.arange(len(labels)) % FOLDS
    right = [
        predicted(codes[fold != held], labels[fold != held], codes[fold == held]) == labels[fold == held]
        for held in range(FOLDS)
    ]
    return float(np.concatenate(right).mean())


def predicted(codes: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Labels of `asked` by softmax regression. All of the code is scaled alike, so units that are dead stay small."""
    mean, spread = codes.mean(0), np.sqrt(codes.var(0).mean()) or 1.0
    codes, asked = ((side - mean) / spread for side in (codes, asked))
    classes, targets = np.unique(labels, return_inverse=True)
    one_hot = np.eye(len(classes))[targets]
    inputs = np.column_stack([codes, np.ones(len(codes))])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(inputs.shape[1], -1)
        logits = inputs @ weights
        total = logsumexp(logits, axis=1, keepdims=True)
        decayed = np.vstack([weights[:-1], np.zeros_like(weights[:1])])
        value = (total[:, 0] - logits[np.arange(len(logits)), targets]).mean() + DECAY / 2 * np.square(decayed).sum()
        return value, (inputs.T @ (np.exp(logits - total) - one_hot) / len(inputs) + DECAY * decayed).ravel()

    start = np.zeros(inputs.shape[1] * len(classes))
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100, "ftol": 1e-6}).x
    logits = np.column_stack([asked, np.ones(len(asked))]) @ weights.reshape(inputs.shape[1], -1)
    return classes[logits.argmax(1)]
