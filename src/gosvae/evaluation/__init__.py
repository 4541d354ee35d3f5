"""Evaluation of codecs on images with an expert: numbers, tables, plots and pictures."""

from gosvae.evaluation.evaluation import Evaluation, KeptImage
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import load_evaluation, save_evaluation
from gosvae.evaluation.rows import ImageRow, Provenance, Row

__all__ = [
    "CodecEntry",
    "Evaluation",
    "ImageRow",
    "KeptImage",
    "Provenance",
    "Row",
    "evaluate",
    "load_evaluation",
    "save_evaluation",
]
