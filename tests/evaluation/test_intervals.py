"""Intervals of mIoU and agreement by resampling shots."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from small_world import BlockCodec, Brightness, RawCodec, Scenes, Shots, run

from gosvae.evaluation import CodecEntry, Evaluation, evaluate, load_evaluation, save_evaluation
from gosvae.evaluation.shots import ShotResamples, TaskCounts
from gosvae.evaluation.tables import markdown_table, terminal_table
from gosvae.metrics import ConfusionMatrix

ENTRIES = [CodecEntry("Block", BlockCodec(4)), CodecEntry("Raw", RawCodec())]


def on_shots(image_count: int, seed: int = 1) -> Evaluation:
    generator = np.random.default_rng(seed)
    return evaluate(ENTRIES, Shots([(16, 24)] * image_count), Brightness().freeze(), generator=generator)


def test_of_three_shots_the_interval_reaches_from_the_worst_to_the_best() -> None:
    # One of the 27 resamples is three times the worst shot and one three times the best: 3.7 % each, above 2.5 %.
    counts_S3m = np.array([[[correct], [100], [100]] for correct in (50, 80, 100)])
    resamples = ShotResamples(["a", "b", "c"], np.random.default_rng(3), count=20_000)
    assert resamples.mean_iou_interval(counts_S3m) == pytest.approx((50 / 150, 1.0))


def test_the_interval_is_that_of_confusion_matrices_summed_one_by_one() -> None:
    dice = np.random.default_rng(5)
    counts, matrices, labels = TaskCounts(4), {}, {}
    for index in range(12):
        shot = f"{index % 5}"
        original = dice.integers(0, 3, (6, 7))  # class 3 occurs in labels alone, and not in all shots
        truth = np.where(dice.random((6, 7)) < 0.2, 255, dice.integers(0, 4 if index % 5 == 2 else 3, (6, 7)))
        seen = np.where(dice.random((6, 7)) < 0.1 * index, dice.integers(0, 3, (6, 7)), original)
        counts.update(shot, seen, original, truth)
        matrices.setdefault(shot, ConfusionMatrix(4)).update(seen, original)
        labels.setdefault(shot, ConfusionMatrix(4)).update(seen, truth)
    values = counts.values(ShotResamples(counts.shots, np.random.default_rng(9)))
    weights = np.random.default_rng(9).multinomial(5, [0.2] * 5, size=1000)
    for of_shot, name in ((matrices, "agreement"), (labels, "miou")):
        resampled = []
        for row in weights:
            total = ConfusionMatrix(4)
            for times, matrix in zip(row, of_shot.values(), strict=True):
                for _ in range(times):
                    total.merge(matrix)
            miou = total.mean_iou()
            assert miou is not None
            resampled.append(miou.value)
        expected = np.percentile(resampled, [2.5, 97.5])
        assert (values[f"{name}_low"], values[f"{name}_high"]) == pytest.approx(tuple(expected))


def test_rows_have_intervals_around_their_values_and_the_same_with_the_same_seed() -> None:
    evaluation = on_shots(8)
    assert evaluation.provenance.shots == 4
    reference, block, _ = evaluation.rows
    assert (reference.agreement_low, reference.agreement_high) == (1.0, 1.0)
    assert block.agreement_low < block.agreement_miou < block.agreement_high
    assert block.miou_low < block.miou < block.miou_high

    def intervals(other: Evaluation) -> list[object]:
        return [{k: v for k, v in asdict(row).items() if k.endswith(("low", "high"))} for row in other.rows]

    assert intervals(on_shots(8)) == intervals(evaluation)
    assert intervals(on_shots(8, seed=2)) != intervals(evaluation)


def test_the_table_shows_intervals_and_says_how_they_were_made() -> None:
    evaluation = on_shots(8)
    block = evaluation.rows[1]
    for table in (markdown_table(evaluation), terminal_table(evaluation)):
        text = " ".join(table.split())
        assert f"{block.miou:.3f} [{block.miou_low:.3f}, {block.miou_high:.3f}]" in text
        assert f"{block.agreement_miou:.3f} [{block.agreement_low:.3f}, {block.agreement_high:.3f}]" in text
        assert "1.000 [" not in text  # the interval of the reference has no width
        assert "[low, high]: 95 % interval by resampling the 4 shots" in text


@pytest.mark.parametrize(("images", "told"), [(2, "of 1 shot, so"), (4, "of 2 shots, so")])
def test_images_of_too_few_shots_have_no_interval_and_the_table_says_so(images: int, told: str) -> None:
    evaluation = on_shots(images)
    assert all(
        row.miou_low is row.miou_high is row.agreement_low is row.agreement_high is None for row in evaluation.rows
    )
    table = " ".join(terminal_table(evaluation).split())
    assert f"all images are {told} that no interval can be given" in table
    assert "[" not in table


def test_without_labels_only_the_agreement_has_an_interval() -> None:
    row = run(ENTRIES, sizes=[(16, 24)] * 3, use_labels=False).rows[1]
    assert row.miou_low is row.miou_high is None
    assert row.agreement_low is not None


def test_intervals_come_back_from_the_file_and_files_without_them_are_read(tmp_path: Path) -> None:
    evaluation = on_shots(6)
    save_evaluation(evaluation, tmp_path)
    assert load_evaluation(tmp_path) == evaluation
    file = tmp_path / "evaluation.json"
    lines = file.read_text().splitlines(keepends=True)
    added = ("miou_low", "miou_high", "agreement_low", "agreement_high")
    older = [line for line in lines if not any(f'"{key}"' in line for key in added)]
    text = "".join(older).replace(',\n  "shots": 3', "")
    assert '"shots"' not in text
    file.write_text(text)
    old = load_evaluation(file)
    assert old.rows[1].miou_low is old.provenance.shots is None
    assert "interval" not in terminal_table(old)


def test_samples_of_a_data_set_without_shots_are_shots_of_their_own() -> None:
    assert len({Scenes([(16, 24)] * 3).shot(index) for index in range(3)}) == 3
