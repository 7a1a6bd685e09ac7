"""An agent whose view of libvirt, or whose hand on it, is altered by a program of the tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.real.agent_process import QUICK, AgentProcess

ORDERS = "VMPACK_TEST_ORDERS"


class PatchedAgent(AgentProcess):
    """Runs a module of the tests in the place of `vmpack.cli.main`, and hands it orders in a file."""

    def __init__(self, module: str, folder: Path, uri: str, *options: str, config: str = QUICK) -> None:
        self._orders = folder / "orders.json"
        self.order({})
        super().__init__(folder, uri, *options, config=config, module=module, **{ORDERS: str(self._orders)})

    def order(self, orders: dict[str, Any]) -> None:
        """What the module does from now on."""
        written = self._orders.with_suffix(".new")
        written.write_text(json.dumps(orders))
        written.replace(self._orders)


def orders() -> dict[str, Any]:
    """What the test ordered; called in the agent's process."""
    return dict(json.loads(Path(os.environ[ORDERS]).read_text()))
