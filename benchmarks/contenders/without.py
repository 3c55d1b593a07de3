"""This product without one of its ways to do less: what that way saves. Takes part only when it is named."""

from __future__ import annotations

from benchmarks.contenders.ours import Ours
from benchmarks.jobs import Job, Work


class WithoutBuckets(Ours):
    """A chunk that differs is read whole."""

    name = "no-buckets"

    def prepare(self, job: Job) -> Work:
        from backup.stores.sql.buckets import SqlBuckets

        SqlBuckets.fingerprints = lambda *_: None  # type: ignore[method-assign] # of this process alone
        return super().prepare(job)


class KeysApart(Ours):
    """The bin has an entry for each record that is inserted."""

    name = "keys-apart"

    def prepare(self, job: Job) -> Work:
        from backup.recycle_bin import entries

        entries._FEWEST_TOGETHER = 1 << 62
        return super().prepare(job)
