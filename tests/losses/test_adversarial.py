"""The adversary's losses against closed forms, its discriminator's sizes, and the weight against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gosvae.errors import ConfigError, ShapeError
from gosvae.losses import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
    mean_absolute_error,
)
from gosvae.losses.adversarial import MAX_ADAPTIVE_WEIGHT, Normalisation


def test_hinge_losses_are_their_closed_forms() -> None:
    original = torch.tensor([2.0, 0.5, -1.0, 1.0], requires_grad=True)
    reconstructed = torch.tensor([-3.0, -1.0, 0.0, 1.0], requires_grad=True)
    loss = hinge_discriminator_loss(original, reconstructed)
    assert loss.item() == pytest.approx(0.5 * ((0 + 0.5 + 2 + 0) / 4 + (0 + 0 + 1 + 2) / 4))
    loss.backward()
    assert original.grad is not None
    assert original.grad[:3].tolist() == [0.0, -0.125, -0.125]  # what is beyond the margin is left alone
    assert reconstructed.grad is not None
    assert reconstructed.grad[[0, 2, 3]].tolist() == [0.0, 0.125, 0.125]
    assert hinge_discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == 1.0
    assert hinge_generator_loss(reconstructed).item() == pytest.approx(0.75)
    assert hinge_generator_loss(torch.full((2,), 3.0, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_weight_gives_both_losses_gradients_of_one_norm_at_the_last_layer() -> None:
    before, last, x = nn.Linear(3, 4), nn.Linear(4, 2, bias=False), torch.rand(5, 3)
    y = last(before(x))
    codebook = before.weight.square().sum()  # does not depend on the last layer
    pixels, generator = (y - 1).square().mean(), 10.0 * y.sum()
    weight = adaptive_weight(pixels + codebook, generator, last.weight)
    assert not weight.requires_grad
    (of_pixels,) = torch.autograd.grad(pixels, last.weight, retain_graph=True)
    (of_generator,) = torch.autograd.grad(weight * generator, last.weight, retain_graph=True)
    assert of_generator.norm().item() == pytest.approx(of_pixels.norm().item(), rel=1e-4)
    (pixels + codebook + weight * generator).backward()  # the graphs are still there
    assert last.weight.grad is not None
    torch.testing.assert_close(last.weight.grad, of_pixels + of_generator)


def test_the_weight_by_hand() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    reconstruction, generator = (w * torch.tensor([3.0, 4.0])).sum(), (w * torch.tensor([0.0, 0.5])).sum()
    assert adaptive_weight(reconstruction, generator, w).item() == pytest.approx(5.0 / (0.5 + 1e-4))
    vanishing = 1e-12 * generator
    assert adaptive_weight(reconstruction, vanishing, w).item() == MAX_ADAPTIVE_WEIGHT
    assert adaptive_weight(0 * reconstruction, generator, w).item() == 0.0


def test_a_weight_needs_a_reconstruction() -> None:
    w, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(ConfigError, match=r"give the stage a term such as mae") as caught:
        adaptive_weight(other.sum(), w.sum(), w)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_verdicts_are_of_patches(layers: int) -> None:
    discriminator = PatchDiscriminator(width=4, layers=layers, normalisation="none")
    side = 16 * 2**layers
    x = torch.rand(2, 3, side, 2 * side, requires_grad=True)
    verdicts = discriminator(x)
    assert verdicts.shape == (2, 1, side // 2**layers - 2, 2 * side // 2**layers - 2)
    verdicts[0, 0, 4, 4].backward()
    assert x.grad is not None
    rows = x.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == {1: 16, 2: 34, 3: 70}[layers]  # as Isola et al. give them
    assert x.grad[1].abs().sum() == 0


def test_the_discriminator_of_the_sources_has_its_size() -> None:
    size = sum(parameter.numel() for parameter in PatchDiscriminator().parameters())
    assert size == 2_765_633  # 4x4 kernels 3-64-128-256-512-1, batch normalisation of the three in the middle
    assert not any(isinstance(m, nn.BatchNorm2d) for m in PatchDiscriminator(4, 2, "none").modules())


def test_pictures_without_a_verdict_are_refused() -> None:
    discriminator = PatchDiscriminator(width=4, layers=3)
    assert discriminator(torch.rand(2, 3, 24, 24)).shape == (2, 1, 1, 1)
    with pytest.raises(ShapeError, match=r"at least 24 pixels a side, got shape \(2, 3, 23, 32\)"):
        discriminator(torch.rand(2, 3, 23, 32))
    with pytest.raises(ShapeError, match="3 channels"):
        discriminator(torch.rand(2, 1, 32, 32))


@pytest.mark.parametrize("normalisation", ["batch", "none"])
def test_a_discriminator_learns_to_tell_noise_from_flat_colour(normalisation: Normalisation) -> None:
    discriminator = PatchDiscriminator(8, 2, normalisation)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    generator, history = torch.Generator().manual_seed(0), []
    for _ in range(40):
        noise = torch.rand(4, 3, 24, 24, generator=generator)
        flat = torch.rand(4, 3, 1, 1, generator=generator).expand(4, 3, 24, 24)
        optimizer.zero_grad()
        loss = hinge_discriminator_loss(discriminator(noise), discriminator(flat))
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[0] == pytest.approx(1.0, abs=0.1)  # it starts without an opinion
    assert min(history[20:]) < 0.1


def test_the_mean_absolute_error_is_that() -> None:
    x, x_hat = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), -0.25)
    assert mean_absolute_error(x, x_hat).item() == 0.25
    with pytest.raises(ShapeError, match="expected a reconstruction of shape"):
        mean_absolute_error(x, x_hat[:, :1])
