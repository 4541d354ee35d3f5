"""The report: our numbers are the evaluations', the paper's are the paper's, and what is missing is said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_job import runner

from gosvae.evaluation.results import load_evaluation
from gosvae.evaluation.rows import FID_NETWORK
from gosvae.reproduce import captions, effort
from gosvae.reproduce.effort import shared
from gosvae.reproduce.figures import correlation, moving_mean, plot_training, training_curves
from gosvae.reproduce.grid import Window, small_objects
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import all_rows
from gosvae.reproduce.report import write_report
from gosvae.reproduce.results import Result, gather, group
from gosvae.reproduce.runner import Runner
from gosvae.reproduce.spread import Spread
from gosvae.reproduce.tables import compared, number, visual_table

ROWS = ("vqvae", "gosvae-scratch", "gosvae", "jpeg", "label-map", "gosvae-ce", "fig4-vqvae-r8-s0", "fig4-start-r8-s0")
EXPERIMENTS = ("table1", "table3", "table4", "fig2", "fig3", "fig4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, Path]:
    """A runner whose rows are done but for one that fails, and the folder of its report."""
    folder = tmp_path_factory.mktemp("reproduction")
    runs = runner(folder, "gosvae-ce:stages.0.learning_rate=1.0e+30", "stages.0.steps=8", rows=ROWS)
    summary = runs.run()
    assert list(summary.failed) == ["gosvae-ce"]
    page = write_report(runs, EXPERIMENTS, folder / "report", picture_count=2)
    assert page == folder / "report" / "report.html"
    return runs, page.parent


def lines_of(report: Path, heading: str) -> dict[str, list[str]]:
    """Lines of the Markdown table under a heading, by their first cell."""
    section = (report / "report.md").read_text().split(f"## {heading}")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in cells}


def test_table_1_has_ours_the_papers_and_the_difference(made: tuple[Runner, Path]) -> None:
    runs, report = made
    lines = lines_of(report, "Table I")
    row = load_evaluation(runs.folder_of("gosvae-scratch").path).rows[1]
    cells = lines["GOS-VAE (r=4), from scratch"]
    assert row.miou is not None
    assert row.total_kib is not None
    assert cells[:3] == [f"{row.total_kib:.2f}", "8.32", f"{row.total_kib - 8.321:+.2f}"]
    assert cells[4] == "0.70"
    assert cells[5:8] == [f"{100 * row.miou:.2f}", "57.34", f"{100 * row.miou - 57.342:+.2f}"]
    assert lines["GOS-VAE (r=4), pre-trained start"][-3] == "8 after 8"
    assert lines["Uncompressed (the expert on the originals)"][5] != "-"
    assert lines["Label map of the expert (bound)"][0] == f"{0.0 + _kib(runs, 'label-map'):.2f}"
    text = (report / "report.md").read_text()
    assert "Learned rows: optimiser steps 8; images a step 1; epochs 2.0; learning rate of AdamW 0.001" in text
    assert "Changes of the user, which this includes: model.autoencoder.width=8, " in text
    assert "revived for the first time" not in text  # these codebooks have no revival
    assert "A row with a pre-trained start has the steps of its VQ-VAE in addition (“8 after 8”)." in text
    assert "In the paper, JPEG has 11.5 KB" in text
    assert "at equal optimiser steps, not at equal minutes" in text


def _kib(runs: Runner, row_id: str) -> float:
    value = load_evaluation(runs.folder_of(row_id).path).rows[1].total_kib
    assert value is not None
    return value


def test_visual_and_ablation_tables(made: tuple[Runner, Path]) -> None:
    runs, report = made
    row = load_evaluation(runs.folder_of("vqvae").path).rows[1]
    assert row.mse is not None
    visual = lines_of(report, "Table III")
    assert visual["VQ-VAE (r=4)"][:3] == [f"{row.mse:.4f}", "0.0020", f"{row.mse - 0.002:+.4f}"]
    assert visual["VQ-VAE (r=4)"][3:6] == [f"{row.frechet_distance:.2f}", "25.27", "-"]  # it is not the FID
    assert "it is not the FID" in (report / "report.md").read_text()
    ablation = lines_of(report, "Table IV")
    assert ablation["GOS-VAE (CE) (failed)"][1:4] == ["-", "18.79", "-"]
    assert list(ablation)[-1] == "GOS-VAE (JSD + LPIPS)"  # as in the paper, the last


class Page(HTMLParser):
    """Which tags are open at the end, and every address that the page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_and_well_formed(made: tuple[Runner, Path]) -> None:
    text = (made[1] / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert len([address for address in page.addresses if address.startswith("data:image/")]) == 2
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert "url(" not in text
    assert {address[1:] for address in page.addresses if address[0] == "#"} <= set(re.findall(r'id="([^"]+)"', text))
    assert "failed: loss term" in text or "failed: gradient" in text


def test_figures_and_rows_lie_beside_the_markdown(made: tuple[Runner, Path]) -> None:
    runs, report = made
    text = (report / "report.md").read_text()
    for name in re.findall(r"\]\((fig\d\.\w+)\)", text):
        with Image.open(report / name) as image:
            assert image.width > 500
    assert len(re.findall(r"\]\(fig", text)) == 2
    assert "The training has too few logged steps with both terms." in text  # LPIPS has no weights here
    rows = {row["row"]: row for row in json.loads((report / "rows.json").read_text())}
    assert set(rows) == {row.row_id for row in runs.rows}
    assert rows["gosvae-ce"]["state"] == "failed"
    assert rows["gosvae-ce"]["measured"] is None
    assert rows["vqvae"]["paper"]["miou"] == 53.04
    assert rows["vqvae"]["record"]["steps"] == {"pixels": 8}


def test_pictures_are_kept_and_not_made_again(made: tuple[Runner, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    runs, report = made
    kept = list(runs.folder.glob("rows/*/pictures/*/0.png"))
    assert len(kept) == 4  # three learned rows and JPEG
    monkeypatch.setattr("gosvae.reproduce.pictures.evaluate", None)  # a call would fail
    before = (report / "fig2.webp").read_bytes()
    write_report(runs, ("fig2",), report, picture_count=2)
    assert (report / "fig2.webp").read_bytes() == before


def test_pictures_of_another_set_say_so(made: tuple[Runner, Path], tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    write_report(made[0], ("fig2",), tmp_path / "report", picture_data=str(tmp_path / "grey.png"), picture_count=1)
    assert "were trained on streets, not on images like these" in (tmp_path / "report" / "report.md").read_text()


def test_a_report_of_nothing_says_that_nothing_was_run(tmp_path: Path) -> None:
    write_report(runner(tmp_path, rows=ROWS), EXPERIMENTS, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "0 of 8 rows are done" in text
    assert text.count("Not made yet.") == 3
    assert lines_of(tmp_path / "report", "Table I")["VQ-VAE (r=4) (not run)"][1] == "7.45"


def test_rows_of_other_settings_are_shown_as_that(made: tuple[Runner, Path], tmp_path: Path) -> None:
    other = runner(made[0].folder, "stages.0.steps=9", rows=ROWS)
    write_report(other, ("table1",), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| VQ-VAE (r=4) (other settings) |" in text
    assert (
        "VQ-VAE (r=4); GOS-VAE (r=4), from scratch; GOS-VAE (r=4), pre-trained start; JPEG: made with settings" in text
    )


def test_captions_follow_the_settings(made: tuple[Runner, Path]) -> None:
    runs = made[0]
    world, rows = runs.world, [row for row in runs.rows if row.curve is None]
    results = gather(runs, rows)
    weights = effort.codebook_weights(world, results, [row for row in rows if "table4" in row.experiments])
    assert weights.endswith("terms, which are means over the channels here: 1 and 0.25.")
    records = {name: result.record for name, result in results.items()}
    start, tuned = records["vqvae"], records["gosvae"]
    assert start is not None
    assert tuned is not None
    longer = replace(results["vqvae"], record=replace(start, steps={"pixels": 12}, seed=3, precision="bf16"))
    (first, *_) = effort.training(world, {**results, "vqvae": longer}, rows)
    assert "optimiser steps 8 (VQ-VAE (r=4): 12); images a step 1; epochs 2.0 (VQ-VAE (r=4): 3.0)" in first
    assert (
        "seed 0 (VQ-VAE (r=4): 3); size of an image a crop of 32x32; precision 32 bits (VQ-VAE (r=4): bf16)." in first
    )
    assert "differ in their optimiser steps" in effort.equal_steps({**results, "vqvae": longer})
    plain = effort.training(World(replace(world.job, changes=())), results, rows)
    assert "In the number of epochs, a crop counts as an image." in plain
    assert plain[-1].startswith("Codes that are never used are revived for the first time after this number of steps: ")
    assert "173, which it does not reach" in plain[-1]
    assert captions.ablation(world, rows).startswith("All rows: shallow, r=4, K=16, from scratch.")
    assert not any("Changes of the user" in line for line in plain)


def test_the_seeds_that_count(made: tuple[Runner, Path]) -> None:
    plans = {row.row_id: row for row in all_rows(3)}
    first = gather(made[0], made[0].rows)["vqvae"]
    further = [replace(first, plan=plans[f"vqvae-s{seed}"]) for seed in (1, 2)]

    def seeds(*results: Result) -> list[int]:
        return list(group({result.plan.row_id: result for result in results}, first.plan).seeds)

    assert seeds(first, *further) == [0, 1, 2]
    assert seeds(first, further[0], replace(further[1], trouble="made with other settings")) == [0, 1]
    assert seeds(first, *(replace(one, plan=replace(one.plan, experiments=())) for one in further)) == [0]
    # Of rows that were measured in another way, those of one way are shown together, if there are no others.
    stand = [replace(one, trouble="one way", stands=True) for one in (first, *further)]
    assert seeds(*stand) == [0, 1, 2]
    assert seeds(*stand[:2], replace(stand[2], trouble="a third way")) == [0, 1]
    assert seeds(*stand[:2], further[1]) == [2]
    assert seeds(replace(first, trouble="made with other settings")) == [0]


def test_a_table_has_one_frechet_distance(made: tuple[Runner, Path]) -> None:
    results = gather(made[0], made[0].rows)
    evaluation = results["vqvae"].evaluation
    assert evaluation is not None
    row = replace(evaluation.rows[1], frechet_network=FID_NETWORK, frechet_distance=7.0)
    fid = replace(results["vqvae"], evaluation=replace(evaluation, rows=(evaluation.rows[0], row)))
    others = {name: replace(one, trouble="another way", stands=True) for name, one in results.items() if one.row}
    rows = [row for row in made[0].rows if "table3" in row.experiments]
    table = visual_table(rows, {**results, **others, "vqvae": fid}, [])
    assert ("FID", "ours") in table.columns
    place = table.columns.index(("FID", "ours"))
    assert {line[0]: line[place] for line in table.lines} == {
        "VQ-VAE (r=4)": "7.00",
        **{f"{results[name].plan.title} (measured in another way)": "-" for name in ("gosvae-scratch", "gosvae")},
        next(line[0] for line in table.lines if line[0].startswith("JPEG")): "-",
    }


def test_what_titles_share() -> None:
    assert shared({"a": "1", "b": "1", "c": "2", "d": "3", "e": "2"}) == "1 (c, e: 2; d: 3)"
    assert shared({"a": "1"}) == "1"
    assert shared({}) == ""


def test_numbers_as_text() -> None:
    assert compared((Spread((1.234,)), 2.0, 2)) == ("1.23", "2.00", "-0.77")
    assert compared((Spread((1.0, 2.0)), 2.0, 2)) == ("1.50 ± 0.71", "2.00", "-0.50")
    assert compared((Spread((1.0, float("inf"))), None, 1)) == ("inf", "-", "-")
    assert compared((Spread(()), 2.0, 1)) == ("-", "2.0", "-")
    assert number(float("inf"), 2) == "inf"


def test_correlation_of_curves() -> None:
    generator = np.random.default_rng(0)
    trend, noise = np.linspace(1, 0, 400), generator.normal(0, 0.3, (2, 400))
    found = correlation(trend + noise[0], 2 * trend + noise[1])
    assert found is not None
    assert found.window == 20
    assert found.raw == pytest.approx(np.corrcoef(trend + noise[0], 2 * trend + noise[1])[0, 1])
    assert found.raw < 0.9 < found.smoothed < 1
    assert correlation(trend[:2], trend[:2]) is None
    np.testing.assert_allclose(moving_mean(np.array([1.0, 2.0, 6.0]), 2), [1.5, 4.0])


def test_curves_come_from_steps_that_have_both(tmp_path: Path) -> None:
    log: list[dict[str, Any]] = [{"step": i, "jsd": 1 / i, "lpips": 2 / i} for i in range(1, 9)]
    step, jsd, lpips = training_curves([{"step": 0, "mse": 1.0}, *log])
    assert (list(step), jsd[0], lpips[0]) == (list(range(1, 9)), 1.0, 2.0)
    found = plot_training(log, tmp_path / "fig3.png", "title")
    assert found is not None
    assert found.raw == pytest.approx(1.0)
    assert plot_training(log[:1], tmp_path / "none.png", "title") is None
    assert not (tmp_path / "none.png").exists()


def test_small_objects_are_found_by_class_size_and_place() -> None:
    names = ("road", "sign", "car")
    class_map = np.zeros((128, 256), np.uint8)
    class_map[20:28, 30:38] = 1  # a sign
    class_map[60:70, 200:214] = 2  # a small car
    class_map[100, 100] = 1  # too small
    assert small_objects(class_map, names) == [Window(8, 18, 32, 32), Window(49, 191, 32, 32)]
    assert small_objects(np.zeros((128, 256), np.uint8), names) == []
    class_map[:, 128:] = 2  # now too large to be worth it
    assert small_objects(class_map, names) == [Window(8, 18, 32, 32)]
    assert not Window(0, 0, 8, 8).overlaps(Window(0, 8, 8, 8))
    assert Window(0, 0, 8, 8).overlaps(Window(7, 7, 8, 8))
