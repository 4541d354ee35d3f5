"""Parts of datasets: evenly spaced samples, or samples without their labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gosvae.datasets.base import Dataset, DatasetView, ObjectArray, Sample


@dataclass
class EvenlySpaced(Dataset):
    """Dataset of at most `count` samples of another one, evenly spaced over it."""

    dataset: Dataset
    count: int

    def __post_init__(self) -> None:
        self.name, self.class_names = self.dataset.name, self.dataset.class_names
        self.count = min(self.count, len(self.dataset))

    def __len__(self) -> int:
        return self.count

    def shot(self, index: int) -> str:
        return self.dataset.shot(self._place(index))

    def check(self, index: int) -> tuple[int, int] | None:
        return self.dataset.check(self._place(index))

    @property
    def object_names(self) -> tuple[str, ...]:
        return self.dataset.object_names

    @property
    def has_instances(self) -> bool:
        return self.dataset.has_instances

    def objects(self, index: int) -> ObjectArray:
        return self.dataset.objects(self._place(index))

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self._place(index)]

    def _place(self, index: int) -> int:
        """Return the index of a sample in the whole data set."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return index * len(self.dataset) // self.count


class WithoutLabels(DatasetView):
    """Dataset that leaves out the label maps of another one."""

    class_names = ()

    def __getitem__(self, index: int) -> Sample:
        return replace(self._dataset[index], labels_uint8_HW=None)
