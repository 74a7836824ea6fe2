"""Expected calibration error: how far confidence and accuracy are apart."""

import numpy as np


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    r"""$\sum_b \frac{n_b}{N} | \mathrm{accuracy}_b - \mathrm{confidence}_b |$ over bins of equal width on (0, 1].

    Args:
        confidences (`np.ndarray`): `(tokens,)`, of the most probable token.
        correct (`np.ndarray`): `(tokens,)`, whether it is the right one.
        bins (`int`, *optional*, defaults to 15): bin b of B holds the confidences in (b / B, (b + 1) / B].

    Source: Guo et al., arXiv 1706.04599, equation 3.
    """
    confidences, correct = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, correct - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))
