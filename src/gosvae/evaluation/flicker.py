"""Flicker of class maps: the share of pixels whose class changes from one frame to the next."""

from __future__ import annotations

from gosvae.evaluation.evaluation import ClassMapArray


class FlickerMeter:
    """Flicker of the maps that a receiver has, over any number of clips, beside the maps of the originals."""

    def __init__(self) -> None:
        self._before: tuple[ClassMapArray, ClassMapArray] | None = None
        self._changed = self._pixels = self._changed_at_rest = self._pixels_at_rest = 0

    def cut(self) -> None:
        """Begin a new clip: its first frame is compared with none."""
        self._before = None

    def update(self, class_map_HW: ClassMapArray, original_HW: ClassMapArray) -> None:
        """Count the next frame.

        Args:
            class_map_HW: map that the receiver has, (H, W).
            original_HW: the expert's map of the original, (H, W).
        """
        if self._before is not None:
            changed_HW = class_map_HW != self._before[0]
            rest_HW = original_HW == self._before[1]
            self._changed += int(changed_HW.sum())
            self._pixels += changed_HW.size
            self._changed_at_rest += int((changed_HW & rest_HW).sum())
            self._pixels_at_rest += int(rest_HW.sum())
        self._before = class_map_HW, original_HW

    @property
    def share(self) -> float | None:
        """Share of all pixels whose class changed, in [0, 1]; None with fewer than two frames in a row."""
        return self._changed / self._pixels if self._pixels else None

    @property
    def share_at_rest(self) -> float | None:
        """The same share among the pixels whose class stayed the same on the original; None if there are none."""
        return self._changed_at_rest / self._pixels_at_rest if self._pixels_at_rest else None
