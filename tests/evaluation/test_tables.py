from __future__ import annotations

from dataclasses import replace

from small_world import BlockCodec, Distance, RawCodec, curve_entries, run

from gosvae.evaluation import CodecEntry
from gosvae.evaluation.tables import markdown_table, terminal_table


def columns_of(markdown: str) -> dict[str, list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {title: [row[i] for row in rows[2:]] for i, title in enumerate(rows[0])}


def test_the_markdown_table_holds_the_numbers_of_the_rows() -> None:
    evaluation = run(curve_entries(), perceptual=Distance())
    table = markdown_table(evaluation)
    assert len({len(line) for line in table.splitlines() if line.startswith("|")}) == 1
    columns = columns_of(table)
    assert list(columns) == [
        "codec",
        "KiB",
        "bpp",
        "mIoU",
        "pixel accuracy",
        "agreement",
        "LPIPS (test)",
        "PSNR (dB)",
        "parameters",
    ]
    assert columns["codec"] == ["uncompressed", "Block 8", "Block 4", "Block 2", "Raw"]
    block = evaluation.rows[1]
    assert columns["KiB"][:2] == ["-", f"{block.total_bytes / 1024:.2f}"]
    assert columns["mIoU"][1] == f"{block.miou:.3f}"
    assert columns["agreement"][0] == "1.000"
    assert columns["PSNR (dB)"][-1] == "inf"
    assert columns["parameters"] == ["-", "-", "-", "-", "1.23 M"]


def test_columns_without_values_are_left_out() -> None:
    columns = columns_of(markdown_table(run([CodecEntry("Block", BlockCodec(8))], use_labels=False)))
    assert list(columns) == ["codec", "KiB", "bpp", "agreement", "PSNR (dB)"]


def test_the_caption_says_how_the_numbers_were_made() -> None:
    evaluation = run([CodecEntry("Raw", RawCodec())])
    caption = markdown_table(evaluation).split("\n\n")[1]
    assert caption.startswith("scenes, 2 images of 9x17 to 16x24 pixels; expert: brightness; KiB (1024 bytes)")
    assert "headers included" in caption
    assert f"{evaluation.reference.miou_classes} classes" in caption


def test_names_of_strangers_are_text_in_tables() -> None:
    name = "a|b <img src=x> [c](d) `e`\x1b[2J"
    evaluation = run([CodecEntry(name, RawCodec())])
    evaluation = replace(evaluation, provenance=replace(evaluation.provenance, dataset=name, expert=name))
    escaped = r"a\|b \<img src=x\> \[c\](d) \`e\`\\x1b\[2J"
    table, caption = markdown_table(evaluation).split("\n\n")
    assert f"| {escaped} |" in table
    assert caption.startswith(f"{escaped}, 2 images")
    assert f"expert: {escaped};" in caption
    assert "\x1b" not in terminal_table(evaluation)


def test_rows_over_budget_say_so() -> None:
    evaluation = run([CodecEntry("Block", BlockCodec(1), budget_bytes=25)], sizes=[(16, 24), (16, 32)])
    assert columns_of(markdown_table(evaluation))["codec"][1] == "Block (over budget on 1 of 2 images)"


def test_the_terminal_table_is_aligned_and_details_add_columns() -> None:
    header, rule, *lines = terminal_table(run(curve_entries()), details=True).split("\n\n")[0].splitlines()
    assert header.split("  ")[0] == "codec"
    assert all(title in header for title in ("payload KiB", "zero-order KiB", "encode (ms)", "decode (ms)"))
    assert set(rule) == {"-", " "}
    assert {len(line) for line in (header, rule, *lines)} == {len(rule)}
