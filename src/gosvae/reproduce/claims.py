"""Section of the report that says which claims of the paper hold here, from differences over several seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gosvae.evaluation.rows import Row
from gosvae.reproduce.paper import PaperNumbers, PaperSet, paper_numbers
from gosvae.reproduce.results import Result, accuracy_of, miou_of
from gosvae.reproduce.spread import FEWEST_SEEDS, Spread, rank_correlation, variance_ratio, verdict
from gosvae.reproduce.tables import DASH, Table, number

TITLE = "Which claims of the paper hold here"
HIGH_STRIDES = (8, 16, 32)
"""Values of r that count as high in the claims about Fig. 4."""
_START, _SCRATCH, _VQVAE = (tuple(f"fig4-{name}-r{r}" for r in HIGH_STRIDES) for name in ("start", "scratch", "vqvae"))


@dataclass(frozen=True)
class _Quantity:
    """Quantity of a row, ours and the paper's, with the digits after the point."""

    name: str
    ours: Callable[[Row], float | None]
    paper: Callable[[PaperNumbers], float | None]
    digits: int


_MIOU = _Quantity("mIoU, points", miou_of, lambda row: row.miou, 2)
_ACCURACY = _Quantity("accuracy, points", accuracy_of, lambda row: row.accuracy, 2)
_MSE = _Quantity("MSE", lambda row: row.mse, lambda row: row.mse, 4)
_FRECHET = _Quantity("Fréchet distance", lambda row: row.frechet_distance, lambda row: row.fid, 2)
_LPIPS = _Quantity("LPIPS", lambda row: row.lpips, lambda row: row.lpips, 3)


@dataclass(frozen=True)
class _Claim:
    """Claim that one system is above another, or below it.

    Attributes:
        text: claim, with the place where the paper makes it.
        ours, theirs: ids of the rows without their seeds; the mean of several rows is compared.
        larger: whether the claim is that `ours` has the larger value.
        papers: whether the paper makes the claim.
    """

    text: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    quantity: _Quantity = _MIOU
    larger: bool = True
    papers: bool = True


_CLAIMS = (
    _Claim("GOS-VAE from scratch above VQ-VAE (Tables I, II)", ("gosvae-scratch",), ("vqvae",)),
    _Claim("GOS-VAE with a pre-trained start above VQ-VAE (Tables I, II)", ("gosvae",), ("vqvae",)),
    _Claim("residual GOS-VAE above residual VQ-VAE (Tables I, II)", ("gosvae-residual",), ("vqvae-residual",)),
    _Claim("GOS-VAE with a pre-trained start above VQ-GAN (Tables I, II)", ("gosvae",), ("vqgan",)),
    _Claim("residual GOS-VAE above shallow GOS-VAE (Tables I, II)", ("gosvae-residual",), ("gosvae",)),
    _Claim("residual VQ-VAE above shallow VQ-VAE (Tables I, II)", ("vqvae-residual",), ("vqvae",)),
    _Claim("VQ-VAE above JPEG (Tables I, II)", ("vqvae",), ("jpeg",)),
    _Claim("VQ-VAE above Autoencoder (Tables I, II)", ("vqvae",), ("autoencoder",)),
    _Claim("GOS-VAE with a pre-trained start above JPEG (Tables I, II)", ("gosvae",), ("jpeg",)),
    _Claim("GOS-VAE with a pre-trained start above AVIF (not in the paper)", ("gosvae",), ("avif",), papers=False),
    _Claim("divergence (KLD) + LPIPS above KLD alone (Table IV)", ("gosvae-kld-lpips",), ("gosvae-kld",)),
    _Claim("JSD + LPIPS above LPIPS alone (Table IV)", ("gosvae-scratch",), ("vqvae-lpips",)),
    _Claim("JSD + LPIPS above KLD + LPIPS (Table IV)", ("gosvae-scratch",), ("gosvae-kld-lpips",)),
    _Claim("KLD above CE (Table IV)", ("gosvae-kld",), ("gosvae-ce",)),
    _Claim("Fréchet distance of GOS-VAE below that of VQ-VAE (Table III)", ("gosvae-scratch",), ("vqvae",), _FRECHET,
           larger=False),
    _Claim("LPIPS of GOS-VAE below that of VQ-VAE (Table III)", ("gosvae-scratch",), ("vqvae",), _LPIPS, larger=False),
    _Claim("MSE of GOS-VAE above that of VQ-VAE (Table III)", ("gosvae-scratch",), ("vqvae",), _MSE),
    _Claim("pre-trained start above from scratch at high r (Fig. 4)", _START, _SCRATCH),
    _Claim("pre-trained start above VQ-VAE at high r (Fig. 4)", _START, _VQVAE),
)  # fmt: skip

_ORDERS = {
    "order of Tables I, II": (
        "jpeg", "autoencoder", "vqgan", "gesco-labels", "vqvae", "vqvae-residual", "gosvae-scratch", "gosvae",
        "gosvae-residual",
    ),
    "order of Table IV": (
        "gosvae-ce", "gosvae-kld", "vqvae-kld", "vqvae-lpips", "gosvae-kld-lpips", "gosvae-scratch",
    ),
}  # fmt: skip
"""Rows whose order is compared with the paper's."""


def claims_table(results: Mapping[str, Result], paper_set: PaperSet) -> Table | None:
    """Return a line for each claim whose rows are in the plan; None if there are no such claims.

    A claim is judged by the difference of each seed, of which the interval of Student's t at 95 % lies above or below
    zero; with fewer than `FEWEST_SEEDS` seeds nothing can be said.
    """
    lines = [line for claim in _CLAIMS if (line := _difference_line(claim, results, paper_set)) is not None]
    lines += [line for line in (_steadiness_line(results),) if line is not None]
    lines += _order_lines(results, paper_set)
    if not lines:
        return None
    columns = ("claim", "unit", "ours: difference", "95 % interval", "seeds", "KiB", "holds here", "paper: difference")
    added = tuple(line[0].endswith("(not in the paper)") for line in lines)
    return Table("claims", TITLE, tuple(("", name) for name in columns), tuple(lines), added, _NOTES)


def _by_seed(results: Mapping[str, Result], name: str, value_of: Callable[[Row], float | None]) -> dict[int, float]:
    """Return a quantity of a row by seed, of results that were made with the plan's settings."""
    found = {}
    for result in results.values():
        plan = result.plan
        same = plan.row_id == f"{name}-s{plan.seed}" if plan.curve else plan.plain_id == name
        counts = same and plan.experiments and not result.trouble
        value = value_of(result.row) if counts and result.row is not None else None
        if value is not None:
            found[plan.seed] = value
    return found


def _is_planned(results: Mapping[str, Result], name: str) -> bool:
    return name in results or f"{name}-s0" in results


def _means(
    results: Mapping[str, Result], names: Sequence[str], value_of: Callable[[Row], float | None]
) -> dict[int, float]:
    """Return the mean over several rows by seed, of the seeds that all of them have."""
    rows = [_by_seed(results, name, value_of) for name in names]
    return {seed: fmean(row[seed] for row in rows) for seed in sorted(set.intersection(*map(set, rows)))}


def _difference_line(claim: _Claim, results: Mapping[str, Result], paper_set: PaperSet) -> tuple[str, ...] | None:
    if not all(_is_planned(results, name) for name in (*claim.ours, *claim.theirs)):
        return None
    quantity = claim.quantity
    ours, theirs = (_means(results, names, quantity.ours) for names in (claim.ours, claim.theirs))
    spread = Spread(tuple(ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))))
    papers = [[quantity.paper(paper_numbers(n, paper_set)) for n in names] for names in (claim.ours, claim.theirs)]
    known = [[value for value in values if value is not None] for values in papers]
    is_other = quantity is _FRECHET and not any(_by_seed(results, name, lambda row: row.fid) for name in claim.ours)
    paper = fmean(known[0]) - fmean(known[1]) if claim.papers and all(known) and not is_other else None
    return _line(claim.text, quantity.name, spread, quantity.digits, verdict(spread.interval(), larger=claim.larger),
                 kib=_kib(claim, results), paper=number(paper, quantity.digits, sign=True))  # fmt: skip


def _kib(claim: _Claim, results: Mapping[str, Result]) -> str:
    """Return the mean KiB of the two sides."""
    sides = [list(_means(results, names, lambda row: row.total_kib).values()) for names in (claim.ours, claim.theirs)]
    return f"{fmean(sides[0]):.2f} against {fmean(sides[1]):.2f}" if all(sides) else DASH


def _line(
    text: str,
    unit: str,
    spread: Spread,
    digits: int,
    judged: str,
    *,
    kib: str = DASH,
    paper: str = DASH,
    largest: float = math.inf,
) -> tuple[str, ...]:
    """Return the cells of a line; one seed alone shows no number. No value of the quantity is beyond ± `largest`."""
    count, deviation, interval = len(spread.values), spread.deviation, spread.interval()
    if interval is not None:
        interval = max(interval[0], -largest), min(interval[1], largest)
    shown = DASH if deviation is None else f"{number(spread.mean, digits, sign=True)} ± {deviation:.{digits}f}"
    return (text, unit, shown, _range(interval, digits), str(count), kib, judged, paper)


def _range(interval: tuple[float, float] | None, digits: int) -> str:
    return DASH if interval is None else " to ".join(number(end, digits, sign=True) for end in interval)


def _steadiness_line(results: Mapping[str, Result]) -> tuple[str, ...] | None:
    """Return the line that compares the spreads over seeds of a start from scratch and of a pre-trained one."""
    if not all(_is_planned(results, name) for name in (*_SCRATCH, *_START)):
        return None

    def spreads(names: Iterable[str]) -> list[Spread]:
        return [Spread(tuple(_by_seed(results, name, miou_of).values())) for name in names]

    scratch, start = spreads(_SCRATCH), spreads(_START)
    found = variance_ratio(scratch, start)
    ratio, interval = (None, None) if found is None else found
    count = min(len(spread.values) for spread in (*scratch, *start))
    held = "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
    text = "pre-trained start steadier at high r: spread over seeds from scratch, divided by its own (Fig. 4)"
    judged = verdict(interval, middle=1.0)
    return (text, "ratio", number(ratio, 2), held, str(count), DASH, judged, "above 1, without a number")


def _order_lines(results: Mapping[str, Result], paper_set: PaperSet) -> list[tuple[str, ...]]:
    """Return Spearman's rank correlations of our rows with the paper's, one for each seed that all rows have."""
    lines = []
    for text, whole in _ORDERS.items():
        names = [name for name in whole if _is_planned(results, name)]
        if len(names) < 3:
            continue
        for quantity in (_MIOU, _ACCURACY):
            papers = {n: value for n in names if (value := quantity.paper(paper_numbers(n, paper_set))) is not None}
            ours = {name: _by_seed(results, name, quantity.ours) for name in papers}
            enough = {name: of_seeds for name, of_seeds in ours.items() if len(of_seeds) >= FEWEST_SEEDS}
            if len(enough) < 3:  # then no seed count is enough, and all rows with a result are shown
                enough = {name: of_seeds for name, of_seeds in ours.items() if of_seeds}
            seeds = sorted(set.intersection(*map(set, enough.values()))) if enough else []
            theirs = [papers[name] for name in enough]
            found = [rank_correlation([enough[name][seed] for name in enough], theirs) for seed in seeds]
            spread = Spread(tuple(value for value in found if value is not None))
            label = f"{text} in {quantity.name.partition(',')[0]}, {len(enough)} of {len(papers)} rows"
            line = _line(label, "Spearman", spread, 2, verdict(spread.interval()), paper="1.00", largest=1.0)
            lines.append(line)
    return lines


_NOTES = (
    "A difference is that of two rows with the same seed: the table has its mean over the seeds, its standard "
    "deviation as a sample, and the interval of Student's t at 95 % (of the F distribution for the ratio of spreads). "
    "A claim “holds” if the interval lies on the claim's side of zero (of one for the ratio), and “does not hold” if "
    f"it lies on the other side; else, and with fewer than {FEWEST_SEEDS} seeds, the data “cannot say”. One seed alone "
    "shows no number. Each line is judged by itself: at 95 %, chance alone decides about one of twenty lines.",
    "Spearman's rank correlation of our rows with the paper's is 1 for the same order, and “holds” says that it is "
    "above 0. KiB are means of the compared rows, ours first.",
)
