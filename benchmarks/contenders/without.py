"""This product without one of its ways to save work, to show what it saves. Takes part only by name."""

from __future__ import annotations

from benchmarks.contenders.ours import Ours
from benchmarks.jobs import Job, Work


class WithoutBuckets(Ours):
    """Reads all stamps of a chunk that differs."""

    name = "no-buckets"

    def prepare(self, job: Job) -> Work:
        from backup.stores.sql.buckets import SqlBuckets

        SqlBuckets.fingerprints = lambda *_: None  # type: ignore[method-assign] # only in this process
        return super().prepare(job)


class KeysApart(Ours):
    """Writes an entry to the bin for each inserted record."""

    name = "keys-apart"

    def prepare(self, job: Job) -> Work:
        from backup.recycle_bin import entries

        entries._FEWEST_TOGETHER = 1 << 62
        return super().prepare(job)
