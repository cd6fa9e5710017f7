"""What a model says of preference pairs before any training: which chosen answers are at risk."""

from squeeze.scan.ches import Ches, ches, ches_scores
from squeeze.scan.distance import edit_distance
from squeeze.scan.rows import ScanRow, scan

__all__ = ["Ches", "ScanRow", "ches", "ches_scores", "edit_distance", "scan"]
