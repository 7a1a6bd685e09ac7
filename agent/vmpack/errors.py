"""Every error that vmpack shows to a person, in one tree.

Each carries a `message` (what is wrong) and a `hint` (what to do next), and the exit code that the
command line ends with. Modules raise the leaf that fits; only the command line prints them.
"""

from __future__ import annotations


class VmpackError(Exception):
    """Root of the tree: something failed in a way that vmpack understands."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(VmpackError):
    """A command was called with words that make no sense together."""

    exit_code = 2


class UnavailableError(VmpackError):
    """Something vmpack needs is not there: no libvirt, no agent, no QEMU."""

    exit_code = 69


class AgentBusyError(UnavailableError):
    """There is an agent, but it has no time for this request now; nobody else may do its work meanwhile."""

    exit_code = 75


class AlreadyRunningError(VmpackError):
    """Another agent has this host; two would fight over the same guests."""

    exit_code = 75


class AccessError(VmpackError):
    """The caller lacks the rights for this."""

    exit_code = 77


class ConfigError(VmpackError):
    """The configuration has a mistake; nothing of it was applied."""

    exit_code = 78


class BadDataError(VmpackError):
    """Data from outside (a journal, a state file, a request) does not have the form it must have."""


class HypervisorError(VmpackError):
    """libvirt refused or failed one call; the guest and the host are as they were."""


class HypervisorLostError(HypervisorError, UnavailableError):
    """The connection to libvirt is gone; the next interval opens a new one."""

    exit_code = 69


class GuestGoneError(HypervisorError):
    """The VM ended, or was never there."""


class GuestBusyError(HypervisorError):
    """Another job (a migration, a save, a snapshot) has the VM; try again when it is over."""

    exit_code = 75


class CloudError(VmpackError):
    """The cloud refused or failed one call; nothing was changed by it."""


class CloudLostError(CloudError, UnavailableError):
    """The cloud gave no answer that is understood; whether a write was done, nobody knows."""

    exit_code = 69


class CloudAccessError(CloudError, AccessError):
    """The cloud does not know this user, or does not let this user do it."""

    exit_code = 77


class CloudGoneError(CloudError):
    """The host or VM is not there (any more)."""


class CloudBusyError(CloudError):
    """It is locked, or the cloud is electing a leader; try again later."""

    exit_code = 75


class CloudChangedError(CloudError):
    """Somebody else changed it since it was looked at; nothing was written."""

    exit_code = 75
