"""What is timed: training images/s, encode and decode ms/image with transform and entropy coding apart, peak memory.

Run it on an idle machine: `make bench`, or `python benchmarks/run.py --threads 1`. Each case runs in a process of its
own, so that its peak memory is its own. Times are medians of single images (batch 1); training uses the recipe's own
batches of generated streets, in the recipe's precision.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch

HEIGHT, WIDTH = 256, 512


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of a call in ms, after two calls that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        times.append(1000.0 * (time.perf_counter() - start))
    return median(times[2:])


def peak_mib() -> float:
    """Largest resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def measure_learned(name: str, repeats: int) -> dict[str, Any]:
    """A learned codec: transform and entropy coding apart."""
    from gosvae.codecs.registry import load_learned_codec
    from gosvae.datasets.streets import Streets

    codec = load_learned_codec(name)
    image = Streets(1, seed=7, height=HEIGHT, width=WIDTH)[0].image_uint8_HW3
    indices = codec.indices(image)
    data = codec.encode(indices, HEIGHT, WIDTH)
    return {
        "bytes": len(data),
        "encode_transform_ms": median_ms(lambda: codec.indices(image), repeats),
        "encode_entropy_ms": median_ms(lambda: codec.encode(indices, HEIGHT, WIDTH), repeats),
        "decode_entropy_ms": median_ms(lambda: codec.decode(data), repeats),
        "decode_transform_ms": median_ms(lambda: codec.reconstruct(indices, HEIGHT, WIDTH), repeats),
        "encoder_parameters": sum(p.numel() for p in codec.model.encoder.parameters()),
    }


def measure_classical(name: str, repeats: int) -> dict[str, Any]:
    """A classical codec at its default quality: encode and decode as a whole."""
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
    """Training of a recipe's last stage against the embedded expert, first steps left out."""
    from gosvae.datasets.mixture import load_prepared
    from gosvae.experts.registry import load_expert
    from gosvae.losses.perceptual import available_perceptual, load_perceptual
    from gosvae.recipes import load_recipe
    from gosvae.training.codecs import CodecRecipe, train_codec
    from gosvae.training.config import RunConfig

    recipe = load_recipe(recipe_name)
    assert isinstance(recipe, CodecRecipe)
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


def _child(job: tuple[str, str, int, int]) -> dict[str, Any]:
    kind, name, repeats, threads = job
    torch.set_num_threads(threads)
    measures = {"learned": measure_learned, "classical": measure_classical, "training": measure_training}
    return {"case": f"{kind} {name}", "threads": threads, **measures[kind](name, repeats), "peak_mib": peak_mib()}


def main() -> int:
    """Measure every case and print one line of numbers for each; `--json` for machines."""
    from gosvae.codecs.classical import CLASSICAL_CODECS
    from gosvae.codecs.registry import embedded_codecs
    from gosvae.provenance import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=20, help="images, and training steps, for each median")
    parser.add_argument("--recipes", nargs="*", default=["vqvae", "gosvae", "gosvae-compact"], help="recipes to train")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()

    jobs = [("learned", name) for name in embedded_codecs()] + [("classical", name) for name in CLASSICAL_CODECS]
    jobs += [("training", name) for name in options.recipes]
    print(f"{hardware()}; {options.threads} threads; images of {HEIGHT}x{WIDTH} pixels; KiB and MiB are 1024-based")
    results = []
    context = multiprocessing.get_context("spawn")
    for kind, name in jobs:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            result = pool.submit(_child, (kind, name, options.repeats, options.threads)).result()
        results.append(result)
        numbers = {k: v for k, v in result.items() if k not in ("case", "threads")}
        shown = ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
        print(f"{result['case']}: {shown}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"hardware": hardware(), "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
