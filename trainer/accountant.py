"""What training costs in privacy: epsilon of the sampled Gaussian mechanism, by Rényi divergences.

Mironov, Talwar and Zhang (2019) give the divergence of whole orders exactly; Balle and others (2020) how to turn
it into (epsilon, delta). Whole orders only, so the answer is never too small. Standard library only.
"""

from __future__ import annotations

import math

ORDERS = (*range(2, 65), 72, 80, 96, 128, 192, 256, 384, 512)
MOST_NOISE = 1e4


def epsilon(*, noise: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon after `steps` in which each row took part with the chance `rate`, for a noise in units of the clip."""
    if steps == 0:
        return 0.0
    spent = (_spent(steps * _divergence(order, noise, rate), order, delta) for order in ORDERS)
    return max(0.0, min(spent))


def noise_for(*, epsilon_at_most: float, rate: float, steps: int, delta: float) -> float:
    """The least noise that keeps epsilon within bounds, to a hundredth; ValueError when no noise does."""

    def enough(noise: float) -> bool:
        return epsilon(noise=noise, rate=rate, steps=steps, delta=delta) <= epsilon_at_most

    high = 1.0
    while not enough(high):
        high *= 2
        if high > MOST_NOISE:
            raise ValueError("no amount of noise keeps so small an epsilon")
    low = 0.2
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _divergence(order: int, noise: float, rate: float) -> float:
    """Of one step, at a whole order: the logarithm of a binomial sum, its terms added in logarithms."""
    if rate >= 1.0:
        return order / (2 * noise**2)
    terms = [
        _log_binomial(order, k)
        + k * math.log(rate)
        + (order - k) * math.log1p(-rate)
        + (k * k - k) / (2 * noise**2)
        for k in range(order + 1)
    ]
    most = max(terms)
    return (most + math.log(sum(math.exp(term - most) for term in terms))) / (order - 1)


def _spent(divergence: float, order: int, delta: float) -> float:
    return divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
