"""Loss balancer (EnCodec, arXiv 2210.13438, section 3.4): weights are shares of the gradient, not factors of losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiolm.errors import ConfigError

_TINY = 1e-12


class LossBalancer(nn.Module):
    """Scales the gradients g_i = d loss_i / d reconstruction so that loss i contributes the share w_i / sum(w).

    The combined gradient is

        G = total_norm * sum_i (w_i / sum_j w_j) * g_i / <|g_i|>

    where the sum over j runs over the losses given in this call, |g| adds up the L2 norms of the gradient of each item
    of the batch, and <.> is an exponential moving average, corrected for its start. For losses that are means over the
    batch |g_i| does not depend on the batch size, and G is that of a mean over the batch too; EnCodec averages the
    norms instead, which makes the step grow with the batch.

    What is independent of the reconstruction (the commitment loss) is not for the balancer: add it to the result. The
    gradients stop at the reconstruction, so the parameters of a discriminator gather none here.

    The averages are buffers: they are part of `state_dict`, and a resumed run goes on with them.

    Raises:
        ConfigError: no weights, a weight that is not positive, or a decay outside [0, 1).
    """

    def __init__(self, weights: dict[str, float], total_norm: float = 1.0, decay: float = 0.999) -> None:
        super().__init__()
        if not weights or min(weights.values()) <= 0.0:
            raise ConfigError(f"LossBalancer: weights must be given and positive, found {weights}")
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"LossBalancer: decay must be in [0, 1), found {decay}")
        self.weights = dict(weights)
        self.total_norm = total_norm
        self.decay = decay
        self._rows = {name: row for row, name in enumerate(weights)}
        self.register_buffer("sums", torch.zeros(len(weights)))
        self.register_buffer("masses", torch.zeros(len(weights)))

    def forward(self, losses: dict[str, Tensor], reconstruction: Tensor) -> Tensor:
        """Scalar whose gradient with respect to `reconstruction` [B, ...] is G; its value has no meaning.

        `losses` (scalars computed from `reconstruction`) may be any of those with a weight: one that starts later
        takes no share before.

        Raises:
            ConfigError: no losses, or one without a weight.
        """
        unknown = sorted(set(losses) - set(self.weights))
        if unknown or not losses:
            raise ConfigError(f"LossBalancer: expected losses among {sorted(self.weights)}, found {sorted(losses)}")
        total_weight = sum(self.weights[name] for name in losses)
        combined = torch.zeros_like(reconstruction)
        for name, loss in losses.items():
            # Losses may share their graph (adversarial and feature matching do).
            (gradient,) = torch.autograd.grad(loss, reconstruction, retain_graph=True)
            self._record(name, gradient)
            share = self.total_norm * self.weights[name] / total_weight
            combined += gradient * (share / self.average_norm(name).clamp_min(_TINY))
        return (reconstruction * combined).sum()

    def average_norm(self, name: str) -> Tensor:
        """The moving average <|g|> of one loss, 0 before its first call; a scalar, for logs."""
        row = self._rows[name]
        return self.sums[row] / self.masses[row].clamp_min(_TINY)

    @torch.no_grad()
    def _record(self, name: str, gradient: Tensor) -> None:
        row = self._rows[name]
        norm = gradient.float().flatten(1).norm(dim=1).sum()
        # One overflow must not stay in the average for good; the caller sees it in the loss and skips the step.
        finite = torch.isfinite(norm)
        self.sums[row] = torch.where(finite, self.decay * self.sums[row] + norm, self.sums[row])
        self.masses[row] = torch.where(finite, self.decay * self.masses[row] + 1.0, self.masses[row])
