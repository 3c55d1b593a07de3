"""The contenders, by name, in the order of the table."""

from __future__ import annotations

from benchmarks.contenders.base import Contender
from benchmarks.contenders.dlt import Dlt
from benchmarks.contenders.floor import Floor
from benchmarks.contenders.hinted import Hinted, HintedWeekly
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.plain import Plain
from benchmarks.contenders.sling import Sling
from benchmarks.contenders.without import KeysApart, WithoutBuckets

USUAL = ("ours", "plain", "floor", "dlt", "sling")
"""The contenders that take part unless the command line names others."""

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (Ours(), Plain(), Floor(), Dlt(), Sling(), Hinted(), HintedWeekly(), WithoutBuckets(), KeysApart())
}
