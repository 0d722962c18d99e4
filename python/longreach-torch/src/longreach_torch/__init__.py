"""Lag-Relative Sparse Attention for transformers and PEFT, with the files of Longreach."""

from .attention import lrsa_attention, lrsa_mask, save_selection
from .cache import LrsaCache
from .data import Reader, collate
from .distill import Losses, distillation_loss, positions_of, teacher_logits
from .enable import LrsaHandle, disable_lrsa, enable_lrsa
from .files import from_longreach, read_record, save_longreach, write_record
from .keep import KeepCallback, KeepSchedule
from .settings import Lrsa

__all__ = [
    "KeepCallback",
    "KeepSchedule",
    "Losses",
    "Lrsa",
    "LrsaCache",
    "LrsaHandle",
    "Reader",
    "collate",
    "disable_lrsa",
    "distillation_loss",
    "enable_lrsa",
    "from_longreach",
    "lrsa_attention",
    "lrsa_mask",
    "positions_of",
    "read_record",
    "save_longreach",
    "save_selection",
    "teacher_logits",
    "write_record",
]
