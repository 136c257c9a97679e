"""What a method demands of its records; pipelines turn it into a schema that data are validated against."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class RecordRequirements:
    """Demands on every record.

    Attributes:
        names: record entries that must be there, besides id, patient_id and image.
        image_rank: 3 for [H, W, C], 4 for [D, H, W, C].
        image_channels: allowed numbers of channels.
        image_dtypes: allowed element types.
        mask_codes: highest label code allowed in masks (255, outside, is always allowed), or None if any is.
        labels: number of classes of `label`, or None if there is none.
    """

    names: tuple[str, ...] = ()
    image_rank: int = 3
    image_channels: tuple[int, ...] = (1, 3)
    image_dtypes: tuple[str, ...] = ("uint8",)
    mask_codes: int | None = None
    labels: int | None = None
