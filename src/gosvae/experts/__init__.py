"""Frozen perception models of the receiver."""

from gosvae.experts.base import IGNORE_INDEX, Expert, ExpertInfo

__all__ = ["IGNORE_INDEX", "Expert", "ExpertInfo"]
