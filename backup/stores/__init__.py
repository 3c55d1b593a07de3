"""Tables and containers behind one protocol, opened by their connection strings; drivers are imported only then."""

from __future__ import annotations

from backup.core.model import SideName
from backup.stores.base import Fence, Relational, Store, stamps_in
from backup.stores.codecs import CopyNote
from backup.stores.keeping import Accept, Keep
from backup.stores.listing import ForeignKey, Listed, PassedOver
from backup.stores.sibling import EntriesToMake, Groups, ImagesOfKeys, ImagesToWrite, LongText, Shape, Sibling
from backup.stores.values import (
    Drift,
    IndexPlan,
    Limits,
    NotRelayed,
    OnNewColumn,
    RangesNotDeleted,
    RelayedPart,
    Rules,
    Written,
)

__all__ = [
    "Accept",
    "CopyNote",
    "Drift",
    "EntriesToMake",
    "Fence",
    "ForeignKey",
    "Groups",
    "ImagesOfKeys",
    "ImagesToWrite",
    "IndexPlan",
    "Keep",
    "Limits",
    "Listed",
    "LongText",
    "NotRelayed",
    "OnNewColumn",
    "PassedOver",
    "RangesNotDeleted",
    "Relational",
    "RelayedPart",
    "Rules",
    "Shape",
    "Sibling",
    "SideName",
    "Store",
    "Written",
    "stamps_in",
]
