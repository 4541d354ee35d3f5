"""Rows of the paper's tables and figures, as data: training, start and bytes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gosvae.codecs.registry import LABEL_MAP
from gosvae.errors import ConfigError, unknown_name

EXPERIMENTS = ("table1", "table2", "table3", "table4", "fig2", "fig3", "fig4")
"""Names of the tables and figures, in the order of the report; `all` takes those that the data set allows."""

STRIDES = (2, 4, 8, 16, 32)
"""Values of r in Fig. 4."""
SWEEP_SEEDS = (0, 1)
"""Seeds of Fig. 4, if the tables have no more."""

MainRole = Literal["paper", "added"]


@dataclass(frozen=True)
class Length:
    """Length of a training in the paper, for Cityscapes and ADE20K: epochs, or steps where it gives those."""

    epochs: tuple[int, int] | None = None
    steps: tuple[int, int] | None = None


FULL = Length(epochs=(500, 100))
MORE = Length(epochs=(100, 40))
VQGAN = Length(epochs=(272, 32))
GESCO = Length(epochs=(125, 15))
"""The paper says: 250,000 and 300,000 steps, "equivalent to approximately" so many epochs."""
GESCO_BATCH = (2, 1)
"""Number of images a step, from the paper's steps and epochs of GESCO: 1.5 on Cityscapes and 1.0 on ADE20K."""
GESCO_ON_ADE20K = ("model.edges=false", "model.guidance=2.5")
"""Settings of GESCO's publication for ADE20K, which has no instances."""


@dataclass(frozen=True)
class Trained:
    """Source of a codec that the row trains itself.

    Attributes:
        recipe: name of a recipe of the package.
        length: length of the training in the paper.
        changes: overrides `key=value` at every scale.
        init: id of the row whose codec it starts from.
        seed: seed of initial weights, order and augmentation.
        sweep: whether it is one of the many short trainings of Fig. 4.
        on_ade20k: further overrides on ADE20K, which come after those of the scale.
        batch: number of images in a batch at the paper's scale, for Cityscapes and ADE20K; None takes the scale's.
        labels: whether it is trained on labels, which no other row needs.
    """

    recipe: str
    length: Length
    changes: tuple[str, ...] = ()
    init: str | None = None
    seed: int = 0
    sweep: bool = False
    on_ade20k: tuple[str, ...] = ()
    batch: tuple[int, int] | None = None
    labels: bool = False


@dataclass(frozen=True)
class Borrowed:
    """Source of a codec that another row has trained, at another rate."""

    row: str


@dataclass(frozen=True)
class Named:
    """Source of a codec that needs no training, named as for `load_codec`."""

    codec: str


@dataclass(frozen=True)
class RowPlan:
    """One row of a table, or one point of Fig. 4.

    Attributes:
        row_id: unique name, also of its folder.
        title: name in the paper, with an addition where several rows have the same name.
        source: source of the codec.
        experiments: tables and figures that show it; none if it is there for other rows alone.
        match: id of the row whose file, image by image, is the budget.
        budget_kib: number of KiB that each image may take, if the budget is a number.
        role: `paper` if the paper has the row, else `added`.
        stride, curve: r and curve of a point of Fig. 4.
        note: clause for the table's caption.
        repeats: id of the row of seed 0 of which it is a repetition with another seed; None for all other rows.
        seed: seed of the row, or of the row whose bytes it takes.
    """

    row_id: str
    title: str
    source: Trained | Borrowed | Named
    experiments: tuple[str, ...]
    match: str | None = None
    budget_kib: float | None = None
    role: MainRole = "paper"
    stride: int | None = None
    curve: str | None = None
    note: str = ""
    repeats: str | None = None
    seed: int = 0
    needs: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", tuple(row for row in (self.start, self.match) if row is not None))

    @property
    def start(self) -> str | None:
        """Id of the row whose checkpoint it needs, to start from or as its own codec."""
        source = self.source
        return source.init if isinstance(source, Trained) else source.row if isinstance(source, Borrowed) else None

    @property
    def plain_id(self) -> str:
        """Id of the row without its seed."""
        return self.repeats or self.row_id


def rows_text(count: int) -> str:
    """Return a number of rows as text."""
    return f"{count} row" if count == 1 else f"{count} rows"


_RESIDUAL = (
    "name=gosvae-residual",
    "model.autoencoder={architecture: residual, stride: 4, width: 256, blocks: 1}",
    "model.quantizer={kind: vq, codebook_size: 12000, code_dim: 48, revive_below: 0.03}",
    # The squared norms of the codebook terms are sums over D = 48 channels.
    "stages.0.weights={lpips: 1.0, jsd: 1.0, codebook: 48.0, commitment: 12.0}",
)
_MAIN = ("table1", "table2", "fig2")
_VISUAL = (*_MAIN, "table3")
_AT = "gosvae"
"""Id of the row whose files are the budget of rows whose rate can be set."""


def _gesco(*changes: str, labels: bool = False) -> Trained:
    return Trained("gesco", GESCO, changes, on_ade20k=GESCO_ON_ADE20K, batch=GESCO_BATCH, labels=labels)


def _main_rows() -> list[RowPlan]:
    """Return the rows of Tables I to III; each row comes after the row that it starts from."""
    return [
        RowPlan("vqvae", "VQ-VAE (r=4)", Trained("vqvae", FULL), _VISUAL, note="shallow, Eq. 4"),
        RowPlan(
            "gosvae-scratch",
            "GOS-VAE (r=4), from scratch",
            Trained("gosvae-scratch", FULL),
            (*_VISUAL, "table4", "fig3"),
            note="shallow, Eq. 5",
        ),
        RowPlan(
            "gosvae",
            "GOS-VAE (r=4), pre-trained start",
            Trained("gosvae-finetune", MORE, ("name=gosvae",), init="vqvae"),
            _VISUAL,
            note="shallow, Eq. 5 from the VQ-VAE of this table",
        ),
        RowPlan("autoencoder", "Autoencoder", Trained("autoencoder", FULL), _MAIN, match=_AT),
        RowPlan(
            "autoencoder-paper-rate",
            "Autoencoder at the paper's 12.8 KiB",
            Borrowed("autoencoder"),
            ("table1",),
            budget_kib=12.833,
            role="added",
        ),
        RowPlan("vqvae-residual", "VQ-VAE (r=4), residual", Trained("vqvae-residual", FULL), _MAIN, note="Eq. 4"),
        RowPlan(
            "gosvae-residual",
            "GOS-VAE (r=4), residual, pre-trained start",
            Trained("gosvae-finetune", MORE, _RESIDUAL, init="vqvae-residual"),
            _MAIN,
            note="Eq. 5 from the residual VQ-VAE of this table",
        ),
        RowPlan("vqgan", "VQ-GAN (r=4)", Trained("vqgan", VQGAN), _VISUAL),
        RowPlan("gesco-labels", "GESCO", _gesco("map=labels", labels=True), _VISUAL, note="labels of the data set"),
        RowPlan("gesco", "GESCO with the expert's map", _gesco(), _VISUAL, role="added", note="no labels"),
    ]


def _classical_rows() -> list[RowPlan]:
    tables = ("table1", "table2", "table3")
    rows = [RowPlan("jpeg", "JPEG", Named("jpeg"), (*tables, "fig2"), match=_AT)]
    for codec, title in (("webp", "WebP"), ("avif", "AVIF"), ("jpegxl", "JPEG XL")):
        shown = (*tables, "fig2") if codec == "avif" else tables
        rows.append(RowPlan(codec, title, Named(codec), shown, match=_AT, role="added"))
    for codec, title in (("jpeg-half", "JPEG at half the size"), ("jpeg-quarter", "JPEG at a quarter of the size")):
        rows.append(RowPlan(codec, title, Named(codec), tables, match=_AT, role="added"))
    rows.append(
        RowPlan("label-map", "Label map of the expert (bound)", Named(LABEL_MAP), ("table1", "table2"), role="added")
    )
    return rows


def _ablation_rows() -> list[RowPlan]:
    """Return the rows of Table IV without the last, which is `gosvae-scratch`."""
    titles = {
        "gosvae-ce": ("GOS-VAE (CE)", "Eq. 6"),
        "gosvae-kld": ("GOS-VAE (KLD)", "Eq. 6 with the divergence"),
        "vqvae-kld": ("VQ-VAE (KLD)", "Eq. 7"),
        "vqvae-lpips": ("VQ-VAE (LPIPS)", "Eq. 8"),
        "gosvae-kld-lpips": ("GOS-VAE (KLD + LPIPS)", "Eq. 5 with the divergence"),
    }
    return [RowPlan(name, title, Trained(name, FULL), ("table4",), note=note) for name, (title, note) in titles.items()]


CURVES = ("VQ-VAE", "GOS-VAE from scratch", "GOS-VAE, pre-trained start")
"""Names of the curves of Fig. 4."""


def _sweep_rows(seeds: Iterable[int]) -> list[RowPlan]:
    """Return the points of Fig. 4: three methods at five strides with several seeds.

    A pre-trained start is the VQ-VAE of the same stride and seed.
    """
    rows = []
    methods = (("vqvae", "vqvae", FULL), ("scratch", "gosvae-scratch", FULL), ("start", "gosvae-finetune", MORE))
    for seed in seeds:
        for stride in STRIDES:
            tail = f"r{stride}-s{seed}"
            for curve, (short, recipe, length) in zip(CURVES, methods, strict=True):
                changes = (f"model.autoencoder.stride={stride}",)
                init = f"fig4-vqvae-{tail}" if short == "start" else None
                source = Trained(recipe, length, changes, init=init, seed=seed, sweep=True)
                title = f"{curve}, r={stride}, seed {seed}"
                rows.append(
                    RowPlan(f"fig4-{short}-{tail}", title, source, ("fig4",), stride=stride, curve=curve, seed=seed)
                )
    return rows


_REPEATED_CODECS = ("jpeg", "avif")
"""Codecs without a training that are measured at the bytes of GOS-VAE of every seed."""
_SHOWN_ONCE = ("fig2", "fig3")


def _with_seeds(rows: Iterable[RowPlan], seeds: int) -> list[RowPlan]:
    """Return the rows of the tables, each followed by its repetitions with seeds 1 to `seeds` - 1.

    A repetition shares nothing but the data with the row of another seed: what it starts from and whose bytes it takes
    has its own seed.
    """
    rows, found = list(rows), list[RowPlan]()
    repeated = {row.row_id for row in rows if isinstance(row.source, Trained) or row.row_id in _REPEATED_CODECS}
    for row in rows:
        found.append(row)
        for seed in range(1, seeds if row.row_id in repeated else 1):
            source = row.source
            if isinstance(source, Trained):
                source = replace(source, seed=seed, init=None if source.init is None else f"{source.init}-s{seed}")
            found.append(
                replace(
                    row,
                    row_id=f"{row.row_id}-s{seed}",
                    title=f"{row.title}, seed {seed}",
                    source=source,
                    experiments=tuple(name for name in row.experiments if name not in _SHOWN_ONCE),
                    match=None if row.match is None else f"{row.match}-s{seed}",
                    repeats=row.row_id,
                    seed=seed,
                )
            )
    return found


def all_rows(seeds: int = 1) -> tuple[RowPlan, ...]:
    """Return all rows in the order in which they are made: each comes after those it needs.

    Args:
        seeds: number of seeds of the learned rows of the tables; Fig. 4 has at least those of `SWEEP_SEEDS`.
    """
    tables = _with_seeds([*_main_rows(), *_classical_rows(), *_ablation_rows()], seeds)
    return (*tables, *_sweep_rows(range(max(seeds, len(SWEEP_SEEDS)))))


def rows_of(
    experiments: Iterable[str],
    only: Sequence[str] = (),
    seeds: int = 1,
    *,
    left_out: Sequence[str] = (),
    shown_only: bool = False,
    share: Callable[[Sequence[RowPlan]], Sequence[RowPlan]] = tuple,
) -> tuple[RowPlan, ...]:
    """Return the rows of tables and figures and those they need, in the order in which they are made.

    A row of a further seed that only points of Fig. 4 need comes right before these, and no table shows it.

    Args:
        only: ids of rows, in place of all rows of the experiments; a row comes with its repetitions.
        seeds: number of seeds, as for `all_rows`.
        left_out: ids of rows that are not made, with their repetitions, unless another row needs them.
        shown_only: whether `only` chooses among the rows of the experiments alone.
        share: function that returns the rows that can be made, of which some may borrow the codec of an earlier one.
            It gets the rows of all seeds of Fig. 4 at least, so that a row is the same whatever is asked for.

    Raises:
        ConfigError: an unknown experiment or row.
    """
    asked = {row.row_id for row in all_rows(seeds)}
    rows = {row.row_id: row for row in share(all_rows(max(seeds, len(SWEEP_SEEDS))))}
    chosen = set(experiments)
    for name in chosen:
        if name not in EXPERIMENTS:
            raise ConfigError(unknown_name("table or figure", name, EXPERIMENTS))
    for row_id in (*only, *left_out):
        if row_id not in asked:
            raise ConfigError(unknown_name("row", row_id, asked))
    wanted = []
    for row in rows.values():
        names = {row.row_id, row.plain_id}
        is_named, is_shown = not only or bool(names & set(only)), bool(chosen & set(row.experiments))
        is_wanted = is_named and (is_shown or (only and not shown_only)) and not names & set(left_out)
        if is_wanted and row.row_id in asked:
            wanted.append(row.row_id)
    needed: set[str] = set()
    while wanted:
        row_id = wanted.pop()
        if row_id not in needed:
            needed.add(row_id)
            wanted += rows[row_id].needs
    found = [row if row.row_id in asked else replace(row, experiments=()) for row in rows.values()]
    found.sort(key=lambda row: row.curve is not None or not row.experiments)
    return tuple(row for row in found if row.row_id in needed)
