"""Time training (images/s) and coding (ms/image, transform and entropy coding apart), and measure peak memory.

Run it on an idle machine: `make bench`, or `python benchmarks/run.py --threads 1 2`. Each case runs in a process of its
own, so that its peak memory is its own. Times are medians of single images (batch 1); training uses the recipe's own
batches of generated streets, in the recipe's precision.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

HEIGHT, WIDTH = 256, 512


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Return the median wall-clock time of a call in ms, after two calls that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        times.append(1000.0 * (time.perf_counter() - start))
    return median(times[2:])


def peak_mib() -> float:
    """Return the largest resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def measure_learned(name: str, repeats: int) -> dict[str, Any]:
    """Measure a learned codec: transform and entropy coding apart."""
    from gosvae.codecs.latent import Latent
    from gosvae.codecs.registry import load_vq_codec
    from gosvae.datasets.streets import Streets

    codec = load_vq_codec(name)
    image = Streets(1, seed=7, height=HEIGHT, width=WIDTH)[0].image_uint8_HW3
    latent = Latent(codec.indices(image), HEIGHT, WIDTH)
    data = codec.encode(latent)
    return {
        "bytes": len(data),
        "encode_transform_ms": median_ms(lambda: codec.indices(image), repeats),
        "encode_entropy_ms": median_ms(lambda: codec.encode(latent), repeats),
        "decode_entropy_ms": median_ms(lambda: codec.decode(data), repeats),
        "decode_transform_ms": median_ms(lambda: codec.reconstruct(latent), repeats),
        "encoder_parameters": sum(p.numel() for p in codec.model.encoder.parameters()),
    }


def measure_variable(name: str, repeats: int) -> dict[str, Any]:
    """Measure a variable-rate codec at its own level: transform, entropy coding, and the whole compression.

    Also in bf16 where the processor computes in it.
    """
    from gosvae.codecs.latent import Latent
    from gosvae.codecs.registry import load_trained_codec
    from gosvae.codecs.slices import StreamOptions
    from gosvae.codecs.variable import VariableRateCodec
    from gosvae.datasets.streets import Streets
    from gosvae.precision import Precision, has_bf16

    def codec_of(effort: int, precision: Precision = "32") -> VariableRateCodec:
        loaded = load_trained_codec(name, options=StreamOptions(effort=effort), precision=precision)
        assert isinstance(loaded, VariableRateCodec)
        return loaded

    codec = codec_of(StreamOptions().effort)
    image = Streets(1, seed=7, height=HEIGHT, width=WIDTH)[0].image_uint8_HW3

    def transform() -> Latent:
        return codec.quantise(codec.analyse(image), HEIGHT, WIDTH, codec.level)

    latent = transform()
    data = codec.encode(latent)
    mixed: dict[str, Any] = {}
    if has_bf16("cpu"):
        quick = codec_of(StreamOptions().effort, "bf16")
        mixed = {
            f"encode_effort_{n}_bf16_ms": median_ms(partial(codec_of(n, "bf16").compress, image), repeats)
            for n in (0, 1, 2)
        }
        mixed["decode_transform_bf16_ms"] = median_ms(partial(quick.reconstruct, latent), repeats)
    return {
        "bytes": len(data),
        "encode_transform_ms": median_ms(transform, repeats),
        "encode_entropy_ms": median_ms(lambda: codec.encode(latent), repeats),
        **{f"encode_effort_{n}_ms": median_ms(partial(codec_of(n).compress, image), repeats) for n in (0, 1, 2)},
        "encode_to_budget_ms": median_ms(lambda: codec.compress_to_budget(image, len(data)), repeats),
        "decode_entropy_ms": median_ms(lambda: codec.decode(data), repeats),
        "decode_transform_ms": median_ms(lambda: codec.reconstruct(latent), repeats),
        "encoder_parameters": sum(p.numel() for p in codec.model.encoder.parameters()),
        **mixed,
        "encoder_kmac_per_pixel": encoder_kmac(codec.model.encoder),
    }


def measure_video(name: str, repeats: int) -> dict[str, Any]:
    """Measure a trained video codec at several levels on the generated clip of the demo, without the key frame."""
    from gosvae.cli.demo_video import generated_clip
    from gosvae.codecs.registry import load_sequence_codec

    codec = load_sequence_codec(name)
    frames = generated_clip().clips[0].frames
    result: dict[str, Any] = {}
    for level in (0, 64, 128):
        encoder, decoder = codec.at(level).encoder(HEIGHT, WIDTH), codec.decoder()
        shown, sent = itertools.cycle(frames), list[bytes]()
        decoder.decode_latent(encoder.encode(next(shown)))
        result[f"level_{level}_encode_ms"] = median_ms(partial(_encode_next, encoder, shown, sent), repeats)
        result[f"level_{level}_bytes"] = round(sum(map(len, sent)) / len(sent))
        result[f"level_{level}_decode_entropy_ms"] = median_ms(partial(_decode_next, decoder, iter(sent)), repeats)
    return result


def _decode_next(decoder: Any, sent: Iterator[bytes]) -> None:
    decoder.decode_latent(next(sent))


def _encode_next(encoder: Any, frames: Iterator[Any], sent: list[bytes]) -> None:
    sent.append(encoder.encode(next(frames)))


def encoder_kmac(encoder: torch.nn.Module) -> float:
    """Return thousands of multiplications for each pixel, counted by PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode(False), torch.no_grad():
        encoder(torch.zeros(1, 3, HEIGHT, WIDTH))
    return float(counter.get_total_flops()) / 2 / 1000 / (HEIGHT * WIDTH)


def coding_ms(model: Any, indices_hw: Any, repeats: int) -> dict[str, Any]:
    """Measure entropy coding of indices, encoding and decoding."""
    import numpy as np

    from gosvae.entropy.coder import decode_indices, encode_indices

    data = encode_indices(model, indices_hw)
    assert np.array_equal(decode_indices(model, data, indices_hw.shape), indices_hw)
    return {
        "bytes": len(data),
        "encode_entropy_ms": median_ms(lambda: encode_indices(model, indices_hw), repeats),
        "decode_entropy_ms": median_ms(lambda: decode_indices(model, data, indices_hw.shape), repeats),
    }


def measure_static(_: str, repeats: int) -> dict[str, Any]:
    """Measure static coding of 8192 indices (64x128) of 512 codes, drawn from a distribution of about 8.3 bits."""
    import numpy as np

    from gosvae.entropy.static import StaticHistogram
    from gosvae.seeding import numpy_generator

    weights_K = np.exp(-np.arange(512) / 150.0)
    shape_hw = (64, 128)
    indices_hw = numpy_generator(0).choice(512, size=shape_hw, p=weights_K / weights_K.sum())
    return coding_ms(StaticHistogram.fit([indices_hw], 512), indices_hw, repeats)


def measure_context(name: str, repeats: int) -> dict[str, Any]:
    """Measure a context model of 512 codes with random weights, whose values do not affect the time.

    Random indices take more bytes than a codec's, so real images are not slower.
    """

    from gosvae.entropy.context import ContextModel, ContextNetwork, default_config
    from gosvae.seeding import numpy_generator

    config = default_config(512, (512,), product=False)
    torch.manual_seed(0)
    model = ContextModel(config, ContextNetwork(config).freeze())
    stride = int(name.removeprefix("r="))
    shape_hw = (HEIGHT // stride, WIDTH // stride)
    indices_hw = numpy_generator(0).integers(512, size=shape_hw)
    return coding_ms(model, indices_hw, repeats)


def measure_classical(name: str, repeats: int) -> dict[str, Any]:
    """Measure a classical codec at its default quality: encoding and decoding as a whole."""
    from gosvae.codecs.classical import load_classical
    from gosvae.datasets.streets import Streets

    codec = load_classical(name)
    image = Streets(1, seed=7, height=HEIGHT, width=WIDTH)[0].image_uint8_HW3
    data = codec.compress(image)
    return {
        "bytes": len(data),
        "encode_ms": median_ms(lambda: codec.compress(image), repeats),
        "decode_ms": median_ms(lambda: codec.decompress(data), repeats),
    }


def measure_training(recipe_name: str, steps: int) -> dict[str, Any]:
    """Measure the training of a recipe's last stage with the embedded expert, without the first steps."""
    from gosvae.datasets.mixture import load_prepared
    from gosvae.experts.registry import load_expert
    from gosvae.losses.perceptual import available_perceptual, load_perceptual
    from gosvae.recipes import load_recipe
    from gosvae.training.codecs import train_codec
    from gosvae.training.machine.config import RunConfig
    from gosvae.training.vq import VqRecipe

    recipe = load_recipe(recipe_name)
    assert isinstance(recipe, VqRecipe)
    names = available_perceptual()
    weights = {k: v for k, v in recipe.stages[-1].weights.items() if names or k != "lpips"}
    warm_up = 5
    stage = recipe.stages[-1].model_copy(update={"steps": warm_up + steps, "weights": weights})
    data = load_prepared("streets:8", default_split="train", cache_bytes=2**28)
    with tempfile.TemporaryDirectory() as folder:
        train_codec(
            recipe.model_copy(update={"stages": (stage,)}),
            data,
            data,
            load_expert("embedded"),
            load_perceptual(names[0]) if names else None,
            RunConfig(log_steps=1, tensorboard=False),
            Path(folder),
            progress=False,
        )
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    seconds = 60.0 * (lines[-1]["minutes"] - lines[warm_up - 1]["minutes"]) / steps
    batches = stage.batches
    return {
        "terms": sorted(weights),
        "perceptual": names[0] if names else None,
        "ms_per_step": 1000.0 * seconds,
        "images_per_s": batches.batch_size / seconds,
        "image": f"{batches.crop_height}x{batches.crop_width}",
    }


MEASURES: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "learned": measure_learned,
    "variable": measure_variable,
    "video": measure_video,
    "classical": measure_classical,
    "static": measure_static,
    "context": measure_context,
    "training": measure_training,
}
"""What each kind of case measures."""


def _child(job: tuple[str, str, int, int]) -> dict[str, Any]:
    kind, name, repeats, threads = job
    torch.set_num_threads(threads)
    return {"case": f"{kind} {name}", "threads": threads, **MEASURES[kind](name, repeats), "peak_mib": peak_mib()}


def main() -> int:
    """Measure every case and print one line of numbers for each; `--json` for machines."""
    from gosvae.codecs.checkpoint import load_codec_checkpoint
    from gosvae.codecs.classical import CLASSICAL_CODECS
    from gosvae.codecs.registry import embedded_codecs, models_folder
    from gosvae.codecs.temporal_model import has_temporal_model
    from gosvae.provenance import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[torch.get_num_threads()], help="numbers of threads to measure with"
    )
    parser.add_argument("--repeats", type=int, default=20, help="number of images or steps for a median")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASURES), help="kinds of cases; all by default")
    parser.add_argument("--recipes", nargs="*", default=["vqvae", "gosvae", "gosvae-compact"], help="recipes to train")
    parser.add_argument("--classical", nargs="*", default=["avif", "jpeg", "jpegxl", "webp"], help="classical codecs")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()

    kinds = {"codec": "learned", "variable-rate": "variable"}
    cards = {name: load_codec_checkpoint(models_folder() / name).card for name in embedded_codecs()}
    jobs = [(kinds[card.kind], name) for name, card in cards.items()]
    jobs += [("video", name) for name in cards if has_temporal_model(models_folder() / name)]
    jobs += [("classical", name) for name in CLASSICAL_CODECS if name in options.classical]
    jobs += [("static", "8192 indices")]
    jobs += [("context", f"r={stride}") for stride in (4, 8, 16)]
    jobs += [("training", name) for name in options.recipes]
    jobs = [job for job in jobs if options.only is None or job[0] in options.only]
    print(f"{hardware()}; images of {HEIGHT}x{WIDTH} pixels; KiB and MiB are 1024-based")
    results = []
    context = multiprocessing.get_context("spawn")
    for threads, (kind, name) in itertools.product(options.threads, jobs):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            result = pool.submit(_child, (kind, name, options.repeats, threads)).result()
        results.append(result)
        numbers = {k: v for k, v in result.items() if k not in ("case", "threads")}
        shown = ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
        print(f"{result['case']}, threads {threads}: {shown}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"hardware": hardware(), "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
