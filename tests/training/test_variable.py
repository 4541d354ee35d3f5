"""Training for rate and task together: whom each term teaches, and that a price on bits saves bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.entropy.latent_network import LEVELS, LatentContextNetwork
from gosvae.entropy.lattice import reach
from gosvae.errors import ConfigError, ExpertError
from gosvae.experts.registry import load_expert
from gosvae.losses.divergence import imitation_loss
from gosvae.seeding import seed_everything, torch_generator
from gosvae.tensors import image_to_tensor
from gosvae.training.codecs import train_codec
from gosvae.training.judges import Judges
from gosvae.training.passes import drawn, pass_uses
from gosvae.training.variable import RateConfig, latent_bits
from tiny import expert, perceptual, run_config, streets, variable_config
from tiny import variable_recipe as recipe


def test_training_makes_a_codec_of_every_rate(tmp_path: Path) -> None:
    outcome = train_codec(
        recipe(), streets(2), streets(2), expert(), perceptual(), run_config(), tmp_path, progress=False
    )
    assert outcome.complete
    codec = load_trained_codec(tmp_path)
    assert isinstance(codec, VariableRateCodec)
    image = streets()[0].image_uint8_HW3
    low, high = codec.compress_at(image, 0), codec.compress_at(image, LEVELS - 1)
    assert train_codec(
        recipe(name="again"), streets(2), streets(2), expert(), perceptual(), run_config(), tmp_path / "again",
        init=tmp_path, progress=False,
    ).complete  # fmt: skip
    assert len(low) < len(high)
    assert codec.decompress(high).shape == image.shape


def test_a_decoder_that_trains_alone_leaves_the_bits_as_they_are(tmp_path: Path) -> None:
    def train(name: str, start: str | None, **more: Any) -> VariableRateCodec:
        made = recipe(name=name, **more)
        init = None if start is None else tmp_path / start
        outcome = train_codec(
            made,
            streets(2),
            streets(2),
            expert(),
            perceptual(),
            run_config(),
            tmp_path / name,
            init=init,
            progress=False,
        )
        assert outcome.complete
        codec = load_trained_codec(tmp_path / name)
        assert isinstance(codec, VariableRateCodec)
        return codec

    weights = {"mse": 1.0, "lpips": 1.0, "jsd": 1.0, "lattice": 5.0}
    stage = {"name": "decoder", "weights": weights, "steps": 3, "learning_rate": 0.01, "warmup_steps": 1}
    stage |= {"batches": {"batch_size": 2, "crop_height": 64, "crop_width": 64}}
    first = train("first", None)
    second = train("second", "first", stages=[stage], trained=["decoder."], views={"shift": 2.0, "blur": 1.0})
    image = streets()[0].image_uint8_HW3
    data, again = first.compress_at(image, 128), second.compress_at(image, 128)
    assert len(data) == len(again)
    assert (first.decode(data).symbols == second.decode(again).symbols).all()
    assert not (first.decompress(data) == second.decompress(again)).all()
    with pytest.raises(ConfigError, match=r"no part of the network begins with 'decodr'; there are context\."):
        train("third", "first", stages=[stage], trained=["decoder.", "decodr"])


def test_each_term_teaches_its_own_part() -> None:
    seed_everything(0)
    network = recipe().network()
    config = variable_config().context
    y_BDhw = (2.0 * torch.randn(2, config.channels, 3, 4)).clamp(-2.9, 2.9).requires_grad_()
    symbols_BDhw = y_BDhw.detach().round().long() + config.bound
    uses = pass_uses(config.refinements, config.taps)
    bits_B, costs_B = latent_bits(
        network.context, y_BDhw, symbols_BDhw, torch.tensor([0, 200]), uses, reach(config.refinements),
        torch_generator(1),
    )  # fmt: skip
    torch.testing.assert_close(bits_B, costs_B)
    assert (bits_B > 0).all()
    assert torch.autograd.grad(bits_B.sum(), y_BDhw, retain_graph=True, allow_unused=True)[0] is None
    learned = torch.autograd.grad(bits_B.sum(), network.context.embedding, retain_graph=True)[0]
    assert learned.abs().sum() > 0
    assert (
        torch.autograd.grad(costs_B.sum(), network.context.embedding, retain_graph=True, allow_unused=True)[0] is None
    )
    slope_BDhw = torch.autograd.grad(costs_B.sum(), y_BDhw)[0]
    # Before training the distributions fall off from 0 on both sides: larger integers cost more.
    assert (slope_BDhw * y_BDhw.detach().sign()).mean() > 0


def test_bits_are_those_of_the_channels_that_are_coded() -> None:
    seed_everything(0)
    config = variable_config().context.model_copy(update={"first_levels": (0, 100)})
    network = LatentContextNetwork(config)
    y_BDhw = torch.randn(2, config.channels, 3, 4).requires_grad_()
    symbols_BDhw = y_BDhw.detach().round().long() + config.bound
    uses = pass_uses(config.refinements, config.taps)

    def of_levels(*levels: int) -> tuple[torch.Tensor, torch.Tensor]:
        level_B = torch.tensor(levels)
        return latent_bits(network, y_BDhw, symbols_BDhw, level_B, uses, reach(config.refinements), torch_generator(1))

    bits_B, costs_B = of_levels(99, 100)
    assert bits_B[0] < 0.7 * bits_B[1]
    torch.testing.assert_close(bits_B, costs_B)
    gradient_BDhw = torch.autograd.grad(costs_B.sum(), y_BDhw)[0]
    assert (gradient_BDhw[0, 4:] == 0.0).all()
    assert (gradient_BDhw[1, 4:] != 0.0).any()
    assert (gradient_BDhw[0, :4] != 0.0).any()


def test_every_part_of_the_passes_gets_its_share() -> None:
    uses = pass_uses(3, (4, 6, 8))
    assert sum(use.share for use in uses) == pytest.approx(1.0)
    shares = [(use.share, len(order_N)) for use, order_N in drawn(uses, 6400, torch_generator(0))]
    for share, count in shares:
        assert count == pytest.approx(share * 6400, abs=1)
    assert all(len(order_N) == 1 for _, order_N in drawn(uses, 1, torch_generator(0)))


def test_prices_fall_from_the_lowest_to_the_highest_level() -> None:
    rate = RateConfig(lowest_price=0.5, highest_price=8.0)
    levels = torch.tensor([0, 255])
    torch.testing.assert_close(rate.prices(levels, 0), torch.tensor([8.0, 0.5]))
    slow = rate.model_copy(update={"warmup_steps": 10})
    torch.testing.assert_close(slow.prices(levels, 4), torch.tensor([2.0, 0.125]))
    torch.testing.assert_close(slow.prices(levels, 50), torch.tensor([8.0, 0.5]))


def test_features_and_rarity_are_optional_and_wrong_layers_are_named() -> None:
    x = image_to_tensor(streets()[0].image_uint8_HW3)
    x_hat = (x + 0.1 * torch.randn(x.shape, generator=torch_generator(0))).clamp(0, 1)
    plain, balanced = Judges(expert(), None, feature_layers=()), Judges(expert(), None, balance_classes=True)
    wanted = frozenset({"jsd", "features"})
    assert float(plain(x, x_hat, wanted)["features"]) == 0.0
    assert float(balanced(x, x_hat, wanted)["features"]) > 0.0
    assert float(balanced(x, x, wanted)["features"]) == 0.0
    assert plain(x, x_hat, wanted)["jsd"] != balanced(x, x_hat, wanted)["jsd"]
    with pytest.raises(ConfigError, match="no module 'nothing'"):
        Judges(expert(), None, feature_layers=("nothing",))


def test_lpips_is_the_mean_of_several_distances() -> None:
    x = image_to_tensor(streets()[0].image_uint8_HW3)
    x_hat = (x + 0.1 * torch.randn(x.shape, generator=torch_generator(0))).clamp(0, 1)
    wanted = frozenset({"lpips"})
    one, other = perceptual(), perceptual(1)
    alone = [Judges(None, loss)(x, x_hat, wanted)["lpips"] for loss in (one, other)]
    assert alone[0] != alone[1]
    both = Judges(None, one, more_perceptual=[other])(x, x_hat, wanted)["lpips"]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)
    with pytest.raises(ConfigError, match="nothing"):
        recipe(more_perceptual=["nothing"]).task(recipe().network(), expert(), perceptual())


def test_terms_of_several_experts_are_their_mean() -> None:
    x = image_to_tensor(streets()[0].image_uint8_HW3)
    x_hat = (x + 0.1 * torch.randn(x.shape, generator=torch_generator(0))).clamp(0, 1)
    first, second = expert(), load_expert("embedded")  # of other classes
    wanted = frozenset({"jsd", "features"})
    alone = [Judges(one, None)(x, x_hat, wanted) for one in (first, second)]
    both = Judges(first, None, more_experts=[second])(x, x_hat, wanted)
    for name in wanted:
        torch.testing.assert_close(both[name], (alone[0][name] + alone[1][name]) / 2)
    assert "jsd" not in Judges(None, None)(x, x_hat, wanted)
    with pytest.raises(ExpertError, match="nobody"):
        recipe(more_experts=["nobody"]).task(recipe().network(), expert(), perceptual())


@pytest.mark.parametrize("kind", ["jsd", "kld", "ce"])
def test_weights_of_one_change_nothing_and_others_weigh_pixels(kind: Any) -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch_generator(0))
    logits_hat = torch.randn(2, 3, 4, 5, generator=torch_generator(1)).requires_grad_()
    plain = imitation_loss(kind, logits, logits_hat)
    torch.testing.assert_close(imitation_loss(kind, logits, logits_hat, torch.ones(2, 4, 5)), plain)
    weights = torch.zeros(2, 4, 5)
    weights[0, 1, 2] = 40.0
    one = imitation_loss(kind, logits, logits_hat, weights)
    here = imitation_loss(kind, logits[:1, :, 1:2, 2:3], logits_hat[:1, :, 1:2, 2:3])
    torch.testing.assert_close(one, here)
    (gradient,) = torch.autograd.grad(one, logits_hat)
    assert int((gradient.abs().sum(dim=1) > 0).sum()) == 1
