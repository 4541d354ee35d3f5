"""The claims section: every verdict follows from the seeds by the stated rule, and one seed alone says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.rows import Provenance, Row
from gosvae.reproduce import captions
from gosvae.reproduce.claims import claims_table
from gosvae.reproduce.paper import CITYSCAPES, paper_numbers
from gosvae.reproduce.plan import all_rows
from gosvae.reproduce.results import Result, group, miou_of
from gosvae.reproduce.spread import Spread, rank_correlation, variance_ratio, verdict
from gosvae.reproduce.tables import ablation_table

PROVENANCE = Provenance("d", 4, "2x2", ("a",), "e", "f", None, {}, None, "h", 1, "c", "2026-01-01")


def results_of(mious: Mapping[str, Sequence[float]], seeds: int = 3, trouble: str = "") -> dict[str, Result]:
    """Results of the plan's rows; `mious` are in per cent, one for each seed."""
    found = {}
    for plan in all_rows(seeds):
        name = plan.row_id.rpartition("-s")[0] if plan.curve else plan.plain_id
        values, paper = mious.get(name, ()), paper_numbers(plan.plain_id, "cityscapes")
        if plan.seed < len(values):
            value = values[plan.seed]
            row = Row(plan.row_id, name, 4, total_bytes=1024.0, miou=value / 100, pixel_accuracy=0.5, mse=value)
            both = (Row("uncompressed", "-", 4, miou=0.6), row)
            found[plan.row_id] = Result(plan, paper, None, Evaluation(PROVENANCE, both, ()), trouble=trouble)
        else:
            found[plan.row_id] = Result(plan, paper, None, None, "not run")
    return found


def lines_of(results: dict[str, Result]) -> dict[str, tuple[str, ...]]:
    """Lines of the section, without the claim itself."""
    table = claims_table(results, "cityscapes")
    assert table is not None
    return {line[0]: line[1:] for line in table.lines}


SCRATCH = "GOS-VAE from scratch above VQ-VAE (Tables I, II)"


def test_a_difference_is_judged_by_its_interval_over_the_seeds() -> None:
    lines = lines_of(results_of({"vqvae": (30.0, 34.0, 32.0), "gosvae-scratch": (40.0, 45.0, 41.5)}))
    differences = np.array([10.0, 11.0, 9.5])
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / math.sqrt(3)
    unit, difference, interval, seeds, kib, judged, paper = lines[SCRATCH]
    assert unit == "mIoU, points"
    assert difference == f"{differences.mean():+.2f} ± {differences.std(ddof=1):.2f}"
    assert interval == f"{differences.mean() - half:+.2f} to {differences.mean() + half:+.2f}"
    assert (seeds, kib, judged) == ("3", "1.00 against 1.00", "holds")
    assert paper == f"{57.342 - 53.040:+.2f}"


@pytest.mark.parametrize(
    ("ours", "judged"),
    [
        ((20.0, 24.5, 21.0), "does not hold"),
        ((29.0, 44.0, 30.0), "cannot say"),
        ((40.0, 44.0), "cannot say"),
        ((40.0,), "cannot say"),
        ((), "cannot say"),
    ],
)
def test_verdicts(ours: Sequence[float], judged: str) -> None:
    line = lines_of(results_of({"vqvae": (30.0, 34.0, 32.0), "gosvae-scratch": ours}))[SCRATCH]
    assert line[5] == judged
    assert line[3] == str(len(ours))
    assert (line[1] == "-") == (len(ours) < 2), "one seed alone shows no number"
    assert (line[2] == "-") == (len(ours) < 3)


def test_a_claim_of_less_holds_below_zero() -> None:
    lines = lines_of(results_of({"vqvae": (30.0, 34.0, 32.0), "gosvae-scratch": (40.0, 45.0, 41.5)}))
    assert lines["MSE of GOS-VAE above that of VQ-VAE (Table III)"][5] == "holds"
    assert verdict((-2.0, -1.0), larger=False) == "holds"
    assert verdict((1.0, 2.0), larger=False) == "does not hold"
    assert verdict((0.5, 2.0), middle=1.0) == "cannot say"
    assert verdict(None) == "cannot say"


def test_rows_of_other_settings_say_nothing() -> None:
    good = {"vqvae": (30.0, 34.0, 32.0), "gosvae-scratch": (40.0, 45.0, 41.5)}
    assert lines_of(results_of(good, trouble="made with settings that differ"))[SCRATCH][3] == "0"


def test_the_steadier_start_has_the_smaller_spread_over_seeds() -> None:
    wide, narrow = (10.0, 30.0, 20.0), (30.0, 31.0, 32.0)
    points = {f"fig4-scratch-r{r}": wide for r in (8, 16, 32)} | {f"fig4-start-r{r}": narrow for r in (8, 16, 32)}
    lines = lines_of(results_of(points))
    (steady,) = [line for name, line in lines.items() if "steadier" in name]
    bound = stats.f.ppf([0.975, 0.025], 6, 6)
    assert steady[1] == "10.00"
    assert steady[2] == f"{10 / math.sqrt(bound[0]):.2f} to {10 / math.sqrt(bound[1]):.2f}"
    assert steady[5] == "holds"
    assert lines["pre-trained start above from scratch at high r (Fig. 4)"][1] == "+11.00 ± 9.54"
    two = lines_of(results_of({name: values[:2] for name, values in points.items()}, seeds=2))
    (steady,) = [line for name, line in two.items() if "steadier" in name]
    assert (steady[2], steady[3], steady[5]) == ("-", "2", "cannot say")
    assert variance_ratio([Spread((1.0, 1.0, 1.0))], [Spread((1.0, 1.0, 1.0))]) is None


def test_the_order_of_a_table_is_compared_with_the_papers() -> None:
    names = ("gosvae-ce", "gosvae-kld", "vqvae-kld", "vqvae-lpips", "gosvae-kld-lpips", "gosvae-scratch")
    same = {name: [CITYSCAPES[name].miou or 0.0] * 3 for name in names}
    lines = lines_of(results_of(same))
    assert lines["order of Table IV in mIoU, 6 of 6 rows"][1:4] == ("+1.00 ± 0.00", "+1.00 to +1.00", "3")
    assert lines["order of Table IV in accuracy, 6 of 6 rows"][3] == "0"  # our accuracies are all equal: no order
    fewer = lines_of(results_of({**same, "gosvae-ce": same["gosvae-ce"][:1]}))
    assert fewer["order of Table IV in mIoU, 5 of 6 rows"][3] == "3"
    one = lines_of(results_of({name: values[:1] for name, values in same.items()}))
    assert one["order of Table IV in mIoU, 6 of 6 rows"][1:6] == ("-", "-", "1", "-", "cannot say")
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]) is None
    assert rank_correlation([1.0, 3.0, 2.0], [10.0, 20.0, 30.0]) == pytest.approx(0.5)


def test_a_plan_without_the_rows_of_a_claim_has_no_section() -> None:
    results = results_of({})
    assert claims_table({"label-map": results["label-map"]}, "cityscapes") is None


def test_tables_show_mean_and_spread_of_the_seeds() -> None:
    results = results_of({"gosvae-ce": (30.0, 34.0, 32.0), "gosvae-kld": (10.0,)})
    rows = [result.plan for result in results.values() if "table4" in result.plan.experiments]
    lines = {line[0]: line[1:] for line in ablation_table(rows, results, []).lines}
    assert lines["GOS-VAE (CE)"][:4] == ("1.00 ± 0.00", "32.00 ± 2.00", "18.79", f"{32.0 - 18.785:+.2f}")
    assert lines["GOS-VAE (CE)"][-1] == "3"
    assert lines["GOS-VAE (KLD)"][1] == "10.00"
    assert "VQ-VAE (KLD) (not run)" in lines
    assert not any("seed" in name for name in lines)
    (told,) = captions.seeds(results, rows)
    assert "their standard deviation" in told
    assert captions.seeds(results, [row for row in rows if row.repeats is None]) == []
    late = {**results, "gosvae-ce": results["gosvae-ce-s1"]}
    assert group(late, results["gosvae-ce"].plan).spread(miou_of).mean is not None
