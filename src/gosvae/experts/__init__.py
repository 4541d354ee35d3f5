"""Perception models that stand at the receiver, frozen."""

from gosvae.experts.base import IGNORE_INDEX, Expert, ExpertInfo

__all__ = ["IGNORE_INDEX", "Expert", "ExpertInfo"]
