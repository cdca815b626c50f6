"""What in a sound spoke for "generated" and what against, in colours to lay over its spectrogram. Pure."""

from __future__ import annotations

import numpy as np
from torch import Tensor

FOR, AGAINST = (255, 110, 190), (40, 230, 170)  # pink and green: apart for every common kind of colour vision
FULL_COLOUR_QUANTILE = 0.99  # of the absolute values: the few beyond it would leave all others pale


def painted(saliency: Tensor, max_columns: int) -> np.ndarray:
    """Saliency [mels, frames], positive where it spoke for "generated" -> RGBA [mels, columns, 4] uint8, the highest
    band first. The weaker, the more see-through; of more than `max_columns` frames, the strongest of neighbours."""
    values = saliency.detach().cpu().float().numpy()[::-1]
    starts = np.arange(0, values.shape[1], -(-values.shape[1] // max_columns))
    most, least = np.maximum.reduceat(values, starts, axis=1), np.minimum.reduceat(values, starts, axis=1)
    strongest = np.where(most > -least, most, least)
    strengths = np.abs(strongest)
    looked_at = strengths[:, strengths.any(axis=0)]  # what came before the judged part is zero
    full = max(float(np.quantile(looked_at, FULL_COLOUR_QUANTILE)) if looked_at.size else 0.0, 1e-12)
    alpha = (strengths / full).clip(0.0, 1.0) * 255
    colours = np.where(strongest[..., None] > 0, np.uint8(FOR), np.uint8(AGAINST))
    return np.concatenate([colours, alpha.round().astype(np.uint8)[..., None]], axis=2)
