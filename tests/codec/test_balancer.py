import pytest
import torch

from audiolm.codec.balancer import LossBalancer
from audiolm.errors import ConfigError


def _gradient(balancer: LossBalancer, losses: dict, reconstruction: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(balancer(losses, reconstruction), reconstruction)[0]


def _two_halves(reconstruction: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Losses on disjoint samples, so that the share of each can be read from the combined gradient."""
    left, right = reconstruction.chunk(2, dim=-1)
    return {"small": 1e-3 * left.abs().mean(), "large": scale * 1e3 * right.abs().mean()}


def test_each_loss_contributes_the_share_of_its_weight():
    reconstruction = torch.randn(4, 10, requires_grad=True)
    gradient = _gradient(LossBalancer({"small": 3.0, "large": 1.0}), _two_halves(reconstruction), reconstruction)
    left, right = (half.norm(dim=1).sum().item() for half in gradient.chunk(2, dim=-1))
    assert (left, right) == pytest.approx((0.75, 0.25), rel=1e-4)


def test_scaling_a_loss_changes_nothing():
    reconstruction = torch.randn(2, 8, requires_grad=True)
    plain, scaled = (
        _gradient(LossBalancer({"small": 1.0, "large": 2.0}), _two_halves(reconstruction, scale), reconstruction)
        for scale in (1.0, 50.0)
    )
    torch.testing.assert_close(plain, scaled)


def test_an_absent_loss_takes_no_share():
    reconstruction = torch.randn(2, 8, requires_grad=True)
    losses = {"small": _two_halves(reconstruction)["small"]}
    gradient = _gradient(LossBalancer({"small": 1.0, "large": 9.0}, total_norm=5.0), losses, reconstruction)
    assert gradient.norm(dim=1).sum().item() == pytest.approx(5.0, rel=1e-4)


def test_a_sudden_gradient_passes_in_proportion_to_the_average():
    balancer = LossBalancer({"a": 1.0}, decay=0.5)
    reconstruction = torch.ones(1, 4, requires_grad=True)
    for size in (1.0, 3.0):
        gradient = _gradient(balancer, {"a": size * reconstruction[:, :1].sum()}, reconstruction)
    average = (0.5 * 1.0 + 3.0) / 1.5
    assert balancer.average_norm("a").item() == pytest.approx(average)
    assert gradient.norm().item() == pytest.approx(3.0 / average)


def test_average_norm_does_not_depend_on_the_batch_size():
    norms = []
    for batch in (1, 6):
        balancer, reconstruction = LossBalancer({"a": 1.0}), torch.ones(batch, 5, requires_grad=True)
        balancer({"a": reconstruction.square().mean()}, reconstruction)
        norms.append(balancer.average_norm("a").item())
    assert norms[0] == pytest.approx(norms[1])


def test_gradients_reach_what_made_the_reconstruction_and_not_the_losses_parameters():
    source, critic = torch.ones(1, 4, requires_grad=True), torch.ones(4, requires_grad=True)
    reconstruction = 2.0 * source
    balancer = LossBalancer({"critic": 1.0, "distance": 1.0})
    losses = {"critic": (reconstruction * critic).mean(), "distance": (reconstruction - 5.0).square().mean()}
    balancer(losses, reconstruction).backward()
    assert source.grad.shape == (1, 4)
    assert critic.grad is None


def test_a_vanished_gradient_gives_zero():
    reconstruction = torch.zeros(1, 4, requires_grad=True)
    gradient = _gradient(LossBalancer({"a": 1.0}), {"a": reconstruction.square().sum()}, reconstruction)
    assert torch.equal(gradient, torch.zeros(1, 4))


def test_an_overflow_does_not_stay_in_the_average():
    balancer, reconstruction = LossBalancer({"a": 1.0}), torch.ones(1, 4, requires_grad=True)
    for size in (1.0, float("inf"), 1.0):
        gradient = _gradient(balancer, {"a": size * reconstruction.sum()}, reconstruction)
    assert gradient.norm().item() == pytest.approx(1.0)


def test_averages_survive_saving_and_loading():
    reconstruction = torch.randn(2, 8, requires_grad=True)
    first, second = (LossBalancer({"small": 1.0, "large": 2.0}) for _ in range(2))
    first(_two_halves(reconstruction), reconstruction)
    second.load_state_dict(first.state_dict())
    assert second.average_norm("large") == first.average_norm("large") > 0


def test_bad_settings_and_unknown_losses_are_refused():
    with pytest.raises(ConfigError, match="positive"):
        LossBalancer({"a": 0.0})
    with pytest.raises(ConfigError, match="decay"):
        LossBalancer({"a": 1.0}, decay=1.0)
    reconstruction = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(ConfigError, match="found \\['b'\\]"):
        LossBalancer({"a": 1.0})({"b": reconstruction.sum()}, reconstruction)
