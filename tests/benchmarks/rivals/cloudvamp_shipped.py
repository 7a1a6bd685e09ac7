"""CloudVAMP's rule as shipped (see vmpack/replay/cloudvamp_fixed.py), with the filter of
cvem/cvem/Monitor.py:240.

A VM that reports no free memory (80000 KiB or less of MemFree + Buffers + Cached) counts as unmonitored: it
is not served and its state is forgotten, so that it starves for as long as it needs memory.

Worked by hand: a VM of 4 GiB with a balloon of 1 GiB and 40000 KiB free: cloudvamp-fixed gives it half of the
rest, this one nothing, however long it lasts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmpack.replay.cloudvamp_fixed import CloudVampFixed
from vmpack.replay.facts import DrawFacts
from vmpack.replay.policy import Bytes, Policy, Seen


class CloudVampShipped(CloudVampFixed):
    """Serves those that have something left."""

    name = "cloudvamp-shipped"

    def monitored(self, seen: Seen, free_kib: Bytes) -> NDArray[np.bool_]:
        """Those with free memory."""
        return super().monitored(seen, free_kib) & (free_kib > 0)


POLICIES: dict[str, Callable[[DrawFacts], Policy]] = {CloudVampShipped.name: CloudVampShipped}
