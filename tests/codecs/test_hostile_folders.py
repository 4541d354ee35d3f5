"""A codec folder of a stranger: damage is refused, sizes cost nothing before they are checked, and nothing is run."""

from __future__ import annotations

import json
import resource
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gosvae.codecs.adapter import CHANGES_FILE, Adapter, AdapterCard, save_adapter
from gosvae.codecs.cards import GescoCard
from gosvae.codecs.changes import changed_weights
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, save_codec
from gosvae.codecs.detail import Detail
from gosvae.codecs.fusion import FusionCard, load_fusion, save_fusion
from gosvae.codecs.gesco import GescoCodec, give_expert
from gosvae.codecs.registry import embedded_codecs, load_codec, models_folder
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.temporal_model import load_temporal_model, save_temporal_model
from gosvae.codecs.variable import VariableRateCodec
from gosvae.errors import CheckpointError, ConfigError, ExpertError, GosvaeError
from gosvae.experts.base import Expert
from gosvae.experts.registry import load_expert
from gosvae.experts.trained import NetworkExpert, card_of
from gosvae.nn.fusion import FusionConfig, FusionNetwork
from gosvae.tensors import ImageArray
from gosvae.training.experts import save_expert
from gosvae.weights import SHA256_KEY, WEIGHTS_FILE
from tiny import checkpoint, expert, model_config, scalar_checkpoint, streets, temporal_model, variable_checkpoint
from tiny_gesco import gesco_checkpoint

MADE: dict[str, Callable[[], CodecCheckpoint]] = {
    "codec": checkpoint,
    "autoencoder": scalar_checkpoint,
    "variable-rate": variable_checkpoint,
    "gesco": gesco_checkpoint,
}


@pytest.fixture(params=list(MADE))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_codec(tmp_path / "codec", MADE[request.param]())
    return tmp_path / "codec"


def picture() -> ImageArray:
    return streets()[0].image_uint8_HW3[:32, :48]


def change_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    change(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change tensors, and the SHA-256 with them, as a forger would."""
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)
    change_config(folder, lambda tree: tree.pop(SHA256_KEY))


def test_a_flipped_bit_of_the_weights_is_refused(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    whole = path.read_bytes()
    places = np.random.default_rng(0).integers(8 * len(whole), size=20)
    for place in (*places.tolist(), 8 * len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"is not the file that config\.json names by its SHA-256"):
            load_codec(folder)
    path.write_bytes(whole)
    load_codec(folder)


def test_every_model_of_the_package_names_its_weights() -> None:
    for path in (*models_folder().glob("*/config.json"), *models_folder().glob("*/temporal.json")):
        tree = json.loads(path.read_text(encoding="utf-8"))
        assert len(tree["sha256" if "shared" in tree else SHA256_KEY]) == 64
    assert len(embedded_codecs()) > 5


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """As a crash leaves them that comes after the first of the two files was replaced."""
    save_codec(tmp_path / "old", checkpoint())
    save_codec(tmp_path / "new", checkpoint(seed=1))
    (tmp_path / "new" / WEIGHTS_FILE).write_bytes((tmp_path / "old" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(CheckpointError, match="or of another model"):
        load_codec(tmp_path / "new")
    codec = load_codec(tmp_path / "new", verify=False)
    assert codec.decompress(codec.compress(picture())).shape == picture().shape


def make_adapter(folder: Path, seed: int) -> None:
    base = checkpoint()
    save_codec(folder / "base", base)
    adapter = Adapter(base.weights, 2)
    torch.nn.init.constant_(next(iter(adapter.parameters())), 0.01 * seed)
    card = AdapterCard(name="adapted", base="base", fingerprint=base.fingerprint().hex(), rank=2)
    save_adapter(folder, card, adapter, {})


def make_fusion(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    sizes = FusionConfig(channels=8, blocks=1, coarse_channels=8, coarse_blocks=1, finish_channels=2)
    save_fusion(folder, FusionCard(name="tiny", model=sizes), FusionNetwork(sizes), {})


def make_temporal_model(folder: Path, seed: int) -> None:
    codec = VariableRateCodec(variable_checkpoint())
    model = temporal_model(codec)
    save_temporal_model(folder, replace(model, counts=(model.counts.int() + seed).to(torch.uint16)))


def make_expert(folder: Path, seed: int) -> None:
    made = load_expert("embedded")
    assert isinstance(made, NetworkExpert)
    torch.nn.init.constant_(next(made.network.parameters()), float(seed))
    save_expert(folder, card_of(made, "own"), made.network, {})


def load_temporal(folder: Path, **options: Any) -> object:
    return load_temporal_model(folder, variable_checkpoint().fingerprint(), **options)


OTHERS: dict[str, tuple[Callable[[Path, int], None], Callable[..., object], str]] = {
    "adapter": (make_adapter, load_codec, CHANGES_FILE),
    "fusion": (make_fusion, load_fusion, WEIGHTS_FILE),
    "temporal": (make_temporal_model, load_temporal, "temporal.safetensors"),
    "expert": (make_expert, load_expert, WEIGHTS_FILE),
}


@pytest.mark.parametrize("kind", list(OTHERS))
def test_damage_of_other_files_with_weights_is_refused(kind: str, tmp_path: Path) -> None:
    make, load, name = OTHERS[kind]
    make(tmp_path / "one", 1)
    make(tmp_path / "other", 2)
    path = tmp_path / "one" / name
    whole = path.read_bytes()
    load(tmp_path / "one")
    places = np.random.default_rng(0).integers(8 * len(whole), size=20)
    for place in (*places.tolist(), 8 * len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(GosvaeError, match=r"is not the file that \w+\.json names by its SHA-256"):
            load(tmp_path / "one")
    path.write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(GosvaeError, match="or of another model"):
        load(tmp_path / "one")
    load(tmp_path / "one", verify=False)


def test_a_folder_of_an_earlier_version_names_no_weights(folder: Path) -> None:
    before = load_codec_checkpoint(folder)
    change_config(folder, lambda tree: tree.pop(SHA256_KEY))
    assert load_codec_checkpoint(folder).fingerprint() == before.fingerprint()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel() > 1)
        tensors[name].view(-1)[1] = value

    change_weights(folder, spoil)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        load_codec(folder)


@pytest.mark.parametrize("lost", ["the scale", "the kernel"])
def test_a_kernel_without_its_scale_is_refused(lost: str, tmp_path: Path) -> None:
    save_codec(tmp_path, checkpoint(), eight_bit_decoder=True)
    load_codec(tmp_path)

    def lose(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith(".scale"))
        del tensors[name if lost == "the scale" else name.removesuffix(".scale")]

    change_weights(tmp_path, lose)
    with pytest.raises(CheckpointError, match="without its scale, or the scale alone"):
        load_codec(tmp_path)


LARGE: dict[str, tuple[str, Any]] = {
    "codec": ("autoencoder", {"architecture": "residual", "width": 4096, "blocks": 64, "stride": 64}),
    "autoencoder": ("autoencoder", {"width": 4096, "hidden_width": 4096, "blocks": 64, "stride": 64}),
    "variable-rate": ("pyramid", {"decoder_widths": [4096] * 3, "decoder_blocks": [64] * 3}),
    "gesco": ("width", 4096),
}


@pytest.mark.parametrize("kind", list(LARGE))
def test_a_configuration_larger_than_its_weights_is_refused_before_it_is_built(kind: str, tmp_path: Path) -> None:
    save_codec(tmp_path, MADE[kind]())
    load_codec(tmp_path)
    name, value = LARGE[kind]

    def enlarge(tree: dict[str, Any]) -> None:
        old = tree["model"][name]
        tree["model"][name] = {**old, **value} if isinstance(value, dict) else value

    change_config(tmp_path, enlarge)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="do not fit its configuration"):
        load_codec(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_sizes_without_bound_are_refused(tmp_path: Path) -> None:
    for width in (20_000, 10**30):
        save_codec(tmp_path, checkpoint())
        change_config(tmp_path, lambda tree, width=width: tree["model"]["autoencoder"].update(width=width))
        with pytest.raises(ConfigError, match=r"autoencoder\.width"):
            load_codec(tmp_path)


def peak_kib() -> int:
    """Largest memory that the process has taken so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("sizes", [{"width": 4096, "blocks": 64}, {"embedding_width": 4096}])
def test_a_context_model_larger_than_its_weights_is_refused(sizes: dict[str, int], tmp_path: Path) -> None:
    save_codec(tmp_path, variable_checkpoint())
    change_config(tmp_path, lambda tree: tree["model"]["context"].update(sizes))
    before = peak_kib()
    with pytest.raises(CheckpointError, match=r"do not (fit|belong)"):
        load_codec(tmp_path)
    assert peak_kib() - before < 500 * 1024


def test_a_temporal_model_larger_than_its_weights_is_refused(tmp_path: Path) -> None:
    save_codec(tmp_path, variable_checkpoint())
    make_temporal_model(tmp_path, 0)
    path = tmp_path / "temporal.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["model"]["context"].update(width=4096, blocks=8)
    path.write_text(json.dumps(tree), encoding="utf-8")
    before = peak_kib()
    with pytest.raises(CheckpointError, match="do not belong together"):
        SequenceCodec.load(tmp_path).encoder(32, 48).encode(picture())
    assert peak_kib() - before < 500 * 1024


def test_a_fusion_network_larger_than_its_weights_is_refused(tmp_path: Path) -> None:
    make_fusion(tmp_path, 0)
    change_config(tmp_path, lambda tree: tree["model"].update(channels=512, blocks=32))
    before = peak_kib()
    with pytest.raises(CheckpointError, match="do not fit its configuration"):
        load_fusion(tmp_path)
    assert peak_kib() - before < 300 * 1024


@pytest.mark.parametrize(
    "changes",
    [
        {"gain": (4000,)},
        {"change": (2000, 8, 8, 3, 3)},
        {"up": (20_000, 1), "down": (1, 20_000)},
        {"up": (8,), "down": (8,)},
        {"up": (8, 2), "down": (3, 72)},
    ],
)
def test_an_adapter_larger_than_the_decoder_is_refused(changes: dict[str, tuple[int, ...]]) -> None:
    """The product of two small matrices, and a small array that is added to each of many, would fill the memory."""
    weights = {"decoder.a": torch.zeros(8, 8, 3, 3)}
    tensors = {f"decoder.a:{part}": torch.zeros(1).expand(shape) for part, shape in changes.items()}
    before = peak_kib()
    with pytest.raises(CheckpointError, match=r"does not fit the decoder of its codec: decoder\.a"):
        changed_weights(weights, tensors)
    assert peak_kib() - before < 300 * 1024


@pytest.mark.parametrize(
    "text",
    ['{"kind": []}', '{"kind": {}}', "[]", "7", "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "9" * 100_000, ""],
)
def test_any_json_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    save_codec(tmp_path, checkpoint())
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    for load in (load_codec, load_expert):
        with pytest.raises(GosvaeError) as caught:
            load(tmp_path)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 1000


def test_the_default_type_of_pytorch_changes_nothing(folder: Path) -> None:
    codec = load_codec(folder)
    seen = expert()
    give_expert(codec, seen)
    data = codec.compress(picture())
    shown = codec.decompress(data)
    torch.set_default_dtype(torch.float64)
    try:
        again = load_codec(folder)
        give_expert(again, seen)
        assert again.compress(picture()) == data
        np.testing.assert_array_equal(again.decompress(data), shown)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_default_type_of_pytorch_changes_no_fusion_and_no_video(tmp_path: Path) -> None:
    save_codec(tmp_path, variable_checkpoint())
    make_temporal_model(tmp_path, 0)
    make_fusion(tmp_path / "fusion", 1)
    expected = SequenceCodec.load(tmp_path).encoder(32, 48).encode(picture())
    detail = Detail(picture(), 2, 40, 900)
    fused = load_fusion(tmp_path / "fusion")(picture(), detail)
    torch.set_default_dtype(torch.float64)
    try:
        assert SequenceCodec.load(tmp_path).encoder(32, 48).encode(picture()) == expected
        np.testing.assert_array_equal(load_fusion(tmp_path / "fusion")(picture(), detail), fused)
    finally:
        torch.set_default_dtype(torch.float32)


def foreign(tmp_path: Path, source: str, trained_with: Expert) -> GescoCodec:
    """A codec folder whose card says where its expert lies."""
    given = gesco_checkpoint(trained_with)
    assert isinstance(given.card, GescoCard)
    reference = given.card.expert.model_copy(update={"source": source})
    save_codec(tmp_path / "codec", replace(given, card=given.card.model_copy(update={"expert": reference})))
    codec = load_codec(tmp_path / "codec")
    assert isinstance(codec, GescoCodec)
    return codec


@pytest.mark.parametrize("name", ["evil.pt2", "evil.pt", "evil.py:make", "hf:someone/model", "folder", ""])
def test_no_path_in_a_checkpoint_is_followed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(tmp_path / name) if name and not name.startswith("hf:") else name
    codec = foreign(tmp_path, source, expert())

    def followed(*_: Any, **__: Any) -> Expert:
        raise AssertionError("followed")

    monkeypatch.setattr("gosvae.codecs.gesco.load_expert", followed)
    with pytest.raises(ExpertError, match="which is not part of the package") as caught:
        codec.compress(picture())
    assert caught.value.argument == "expert"
    codec.use_expert(expert())
    assert codec.decompress(codec.compress(picture())).shape == picture().shape


def test_the_expert_of_the_training_must_be_given(tmp_path: Path) -> None:
    codec = foreign(tmp_path, "", expert())
    with pytest.raises(ExpertError, match="compress with the expert of the training"):
        codec.use_expert(load_expert("embedded"))
    give_expert(codec, load_expert("embedded"))  # of another model: left out
    with pytest.raises(ExpertError, match="not part of the package"):
        codec.compress(picture())


def test_all_architectures_are_built_without_memory_first(tmp_path: Path) -> None:
    for architecture in ("shallow", "residual", "compact", "vqgan"):
        for quantizer in ("vq", "vq-ema", "fsq"):
            save_codec(tmp_path, checkpoint(model_config(quantizer, architecture=architecture)))
            assert load_codec(tmp_path).decompress(load_codec(tmp_path).compress(picture())).shape == picture().shape
