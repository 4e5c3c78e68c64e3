"""A small language model in numpy: the next token from the few before it, and Adam.

Embedding, one hidden layer, softmax; the gradients are written out by hand.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Tokens = NDArray[np.integer]


class NGramModel:
    """Predicts a token from a fixed number of tokens before it."""

    def __init__(self, vocab: int, context: int, width: int, hidden: int, seed: int) -> None:
        random = np.random.default_rng(seed)

        def normal(*shape: int, scale: float) -> Array:
            return (random.standard_normal(shape) * scale).astype(np.float32)

        self.parameters: dict[str, Array] = {
            "embedding": normal(vocab, width, scale=0.1),
            "into": normal(context * width, hidden, scale=(context * width) ** -0.5),
            "into_bias": np.zeros(hidden, np.float32),
            "out": normal(hidden, vocab, scale=0.01),
            "out_bias": np.zeros(vocab, np.float32),
        }

    def loss(self, contexts: Tokens, targets: Tokens) -> float:
        """Mean cross-entropy in nats."""
        chances = self._forward(contexts)[2]
        return float(-np.log(chances[np.arange(len(targets)), targets]).mean())

    def gradients(self, contexts: Tokens, targets: Tokens) -> tuple[float, dict[str, Array]]:
        """The loss and its gradient by every parameter."""
        p = self.parameters
        inputs, hidden, chances = self._forward(contexts)
        rows = np.arange(len(targets))
        loss = float(-np.log(chances[rows, targets]).mean())

        d_logits = chances
        d_logits[rows, targets] -= 1.0
        d_logits /= len(targets)
        d_hidden = (d_logits @ p["out"].T) * (1.0 - hidden**2)  # through tanh
        d_inputs = (d_hidden @ p["into"].T).reshape(*contexts.shape, -1)
        d_embedding = np.zeros_like(p["embedding"])
        np.add.at(d_embedding, contexts, d_inputs)
        return loss, {
            "embedding": d_embedding,
            "into": inputs.T @ d_hidden,
            "into_bias": d_hidden.sum(axis=0),
            "out": hidden.T @ d_logits,
            "out_bias": d_logits.sum(axis=0),
        }

    def _forward(self, contexts: Tokens) -> tuple[Array, Array, Array]:
        p = self.parameters
        inputs = p["embedding"][contexts].reshape(len(contexts), -1)
        hidden = np.tanh(inputs @ p["into"] + p["into_bias"])
        logits = hidden @ p["out"] + p["out_bias"]
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        chances /= chances.sum(axis=1, keepdims=True)
        return inputs, hidden, chances + np.finfo(chances.dtype).tiny  # never log(0)


class Adam:
    """Adam with its usual constants."""

    def __init__(self, parameters: dict[str, Array], rate: float) -> None:
        self._parameters = parameters
        self._rate = rate
        self._mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._square = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._steps = 0

    def step(self, gradients: dict[str, Array]) -> None:
        """Move every parameter a little against its gradient."""
        self._steps += 1
        rate = self._rate * (1 - 0.999**self._steps) ** 0.5 / (1 - 0.9**self._steps)
        for name, gradient in gradients.items():
            mean, square = self._mean[name], self._square[name]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            self._parameters[name] -= (rate * mean / (np.sqrt(square) + 1e-8)).astype(mean.dtype)
