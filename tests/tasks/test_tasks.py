"""What every task promises, and the numbers of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gosvae.errors import ConfigError, ExpertError
from gosvae.experts.base import TaskExpert
from gosvae.experts.compact import random_compact_expert
from gosvae.losses.divergence import jensen_shannon
from gosvae.protocol.arrays import code_arrays
from gosvae.seeding import torch_generator
from gosvae.tasks.base import AnyTask
from gosvae.tasks.bernoulli import bernoulli_divergence
from gosvae.tasks.boxes import Boxes, coco_average_precision, without_duplicates
from gosvae.tasks.group import ExpertGroup, parse_experts
from gosvae.tasks.maps import DepthMeter
from gosvae.tasks.registry import TASKS, load_task
from gosvae.training.judges import Judges
from tiny import TASK_INFO, TaskNetwork


@pytest.fixture(params=list(TASKS))
def expert(request: pytest.FixtureRequest) -> TaskExpert:
    return TaskNetwork(request.param)


def test_the_distance_is_0_on_equal_pictures_and_grows(expert: TaskExpert) -> None:
    task = load_task(expert)
    x = torch.rand(2, 3, 32, 48)
    noise = torch.randn_like(x)
    distances = [float(task.distance(expert(x), expert(x + step * noise))) for step in (0.0, 0.05, 0.5)]
    assert distances[0] == pytest.approx(0.0, abs=1e-6)
    assert 0 < distances[1] < distances[2]


def test_the_gradient_goes_to_the_reconstruction_alone(expert: TaskExpert) -> None:
    task = load_task(expert)
    x, x_hat = (torch.rand(1, 3, 32, 48, requires_grad=True) for _ in range(2))
    task.distance(expert(x), expert(x_hat)).backward()
    assert x.grad is None or not x.grad.any()
    assert x_hat.grad is not None
    assert x_hat.grad.isfinite().all()
    assert x_hat.grad.any()


def test_results_agree_with_themselves_and_less_with_others(expert: TaskExpert) -> None:
    task = load_task(expert)
    same, other = task.meter(), task.meter()
    assert set(same.values()) == set(task.columns)
    pictures = torch.rand(4, 3, 32, 48)
    results, moved = task.results(expert(pictures)), task.results(expert(pictures.flip(-1).square()))
    for a, b in zip(results, moved, strict=True):
        same.update(a, a)
        other.update(a, b)
    first = task.columns[0]
    assert same.values()[first] == pytest.approx(1.0)
    assert (other.values()[first] or 0.0) < 1.0


def test_results_are_drawn_on_pictures_of_any_size(expert: TaskExpert) -> None:
    task = load_task(expert)
    (result,) = task.results(expert(torch.rand(1, 3, 32, 48)))
    image = np.full((32, 48, 3), 90, np.uint8)
    if task.name == "segmentation":
        result = np.zeros((32, 48), np.int16)
    picture = task.draw(image, result)
    assert (picture.shape, picture.dtype) == ((32, 48, 3), np.uint8)
    assert (image == 90).all(), "the image itself is not painted"


def test_results_are_arrays_and_lines(expert: TaskExpert) -> None:
    task = load_task(expert)
    (result,) = task.results(expert(torch.rand(1, 3, 32, 48)))
    coded = code_arrays("it", task.arrays(result))
    assert coded
    for each, values in zip(coded, task.arrays(result).values(), strict=True):
        np.testing.assert_allclose(each.values(), values, rtol=1e-3, atol=1e-6)
    line = task.describe(result)
    assert line
    assert "\n" not in line


def test_segmentation_is_measured_as_before() -> None:
    expert = random_compact_expert(("a", "b", "c"))
    task = load_task(expert)
    x, x_hat = torch.rand(1, 3, 32, 48), torch.rand(1, 3, 32, 48)
    assert torch.equal(task.distance(expert(x), expert(x_hat)), jensen_shannon(expert(x), expert(x_hat)))
    assert np.array_equal(task.results(expert(x))[0], expert.class_map(x)[0].numpy())


def test_a_file_may_bring_a_task(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from gosvae.tasks.maps import Depth\nclass Mine(Depth):\n    name = 'mine'\n", encoding="utf-8")
    task = load_task(TaskNetwork(f"{path}:Mine"))
    assert (task.name, task.info) == ("mine", TASK_INFO)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown task 'dept'; did you mean 'depth'"):
        load_task(TaskNetwork("dept"))


def test_bernoulli_divergence_is_that_of_the_definition() -> None:
    p, q = torch.tensor([0.2, 0.0, 1.0]), torch.tensor([0.7, 1.0, 1.0])

    def divergence(a: float, b: float) -> float:
        parts = ((a, b), (1 - a, 1 - b))
        return sum(0.5 * s * np.log(2 * s / (s + t)) for s, t in [*parts, *((t, s) for s, t in parts)] if s > 0)

    expected = [divergence(float(a), float(b)) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(bernoulli_divergence(p, q).numpy(), expected, atol=2e-5)


def _boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    array = np.array(rows, float)
    return Boxes(array[:, :4], array[:, 4], array[:, 5].astype(np.int64))


def test_duplicates_of_one_class_are_left_out() -> None:
    found = _boxes(
        (0, 0, 0.5, 0.5, 0.9, 0), (0, 0, 0.5, 0.48, 0.8, 0), (0, 0, 0.5, 0.48, 0.7, 1), (0, 0, 1, 1, 0.01, 2)
    )
    kept = without_duplicates(found.corners_N4, found.scores_N, found.classes_N)
    assert kept.scores_N.tolist() == [0.9, 0.7]


def test_the_ap_of_a_moved_box_depends_on_the_overlap() -> None:
    task = load_task(TaskNetwork("detection"))
    meter = task.meter()
    meter.update(_boxes((0, 0, 0.5, 0.5, 0.9, 0)), _boxes((0, 0, 0.5, 0.4, 0.9, 0)))  # they overlap by 0.8
    assert meter.values() == {"AP50": 1.0, "AP50:95": pytest.approx(0.7)}


def test_coco_measures_labelled_boxes() -> None:
    pytest.importorskip("faster_coco_eval", reason="needs gosvae[coco]")
    labels = [_boxes((0, 0, 0.5, 0.5, 1, 0), (0.5, 0.5, 1, 1, 1, 1)), _boxes((0, 0, 0.5, 0.5, 1, 0))]
    sizes = [(100, 100), (100, 100)]
    perfect = coco_average_precision(labels, labels, sizes)
    assert perfect == {name: pytest.approx(1.0) for name in ("mAP", "mAP50", "mAP75")}
    found = [_boxes((0, 0, 0.5, 0.5, 0.9, 0)), _boxes((0, 0, 0.5, 0.32, 0.8, 0))]  # one class missed, one box at 0.64
    values = coco_average_precision(labels, found, sizes)
    assert values["mAP50"] == pytest.approx(0.5)
    assert (values["mAP75"] or 0) < 0.5
    none = Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    assert coco_average_precision(labels, [none, none], sizes)["mAP"] == 0.0
    assert coco_average_precision([none], [none], sizes[:1])["mAP"] is None


def test_depth_below_zero_is_refused() -> None:
    meter = DepthMeter()
    with pytest.raises(ExpertError, match="nowhere above 0"):
        meter.update(np.full((4, 4), -1.0, np.float32), np.full((4, 4), -2.0, np.float32))


def test_depth_is_measured_as_in_the_literature() -> None:
    task: AnyTask = load_task(TaskNetwork("depth"))
    y = torch.full((1, 1, 4, 4), 2.0)
    assert float(task.distance(y, 3 * y)) == pytest.approx(0.5 * np.log(3) ** 2, rel=1e-5)
    meter = task.meter()
    meter.update(task.results(y)[0], task.results(1.2 * y)[0])
    assert meter.values() == {"delta 1.25": 1.0, "abs rel": pytest.approx(0.2, rel=1e-5)}


def test_several_experts_are_named_and_weighted() -> None:
    first, second, third = parse_experts(["a=seg.pt2", "b=folder/det.onnx:0.5", "hf:maker/model"])
    assert (first.name, first.spec, first.weight) == ("a", "seg.pt2", 1.0)
    assert (second.name, second.spec, second.weight) == ("b", "folder/det.onnx", 0.5)
    assert (third.name, third.spec, third.weight) == ("model", "hf:maker/model", 1.0)
    assert parse_experts(["mine.py:Net:3"], weighted=False)[0].spec == "mine.py:Net:3"
    with pytest.raises(ConfigError, match="two experts have the name 'net'"):
        parse_experts(["one/net.onnx", "two/net.onnx"])
    with pytest.raises(ConfigError, match="expected a weight above 0"):
        parse_experts(["net.onnx:0"])


def test_a_group_brings_distances_to_one_scale() -> None:
    group = ExpertGroup([("boxes", TaskNetwork("detection"), 1.0), ("depth", TaskNetwork("depth"), 3.0)])
    images = [np.random.default_rng(i).integers(0, 256, (32, 48, 3), np.uint8) for i in range(2)]
    scales = group.balance(images)
    assert list(scales) == ["boxes", "depth"]
    weighted = [factor * scales[name] for factor, name in zip(group.factors, scales, strict=True)]
    assert weighted == [pytest.approx(0.025), pytest.approx(0.075)]
    before = group.fingerprint()
    assert ExpertGroup([("boxes", group.experts()[0], 2.0), ("depth", group.experts()[1], 3.0)]).fingerprint() != before


def test_the_judges_of_a_training_weigh_the_distances_of_a_group() -> None:
    group = ExpertGroup([("boxes", TaskNetwork("detection"), 1.0), ("depth", TaskNetwork("depth"), 3.0)])
    group.balance([np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)])
    x, x_hat = torch.rand(2, 3, 32, 48), torch.rand(2, 3, 32, 48)
    distances = [task.distance(e(x), e(x_hat)) for task, e in zip(group.tasks, group.experts(), strict=True)]
    expected = sum(factor * float(each) for factor, each in zip(group.factors, distances, strict=True))
    terms = Judges(group, None)(x, x_hat, frozenset({"jsd"}))
    assert float(terms["jsd"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["imitation depth"]) == pytest.approx(float(distances[1]), rel=1e-5)
    one_of_two = Judges(group, None, experts_asked=1)
    draws = [float(one_of_two(x, x_hat, frozenset({"jsd"}), torch_generator(i))["jsd"]) for i in range(64)]
    assert min(draws) < expected < max(draws)


def test_a_group_refuses_an_expert_that_sees_nothing() -> None:
    blind = TaskNetwork("depth")
    nn.init.zeros_(blind.layer.weight)
    with pytest.raises(ExpertError, match="expert 'blind' answers the same on images and"):
        ExpertGroup([("blind", blind, 1.0)]).balance([np.zeros((32, 48, 3), np.uint8)])
