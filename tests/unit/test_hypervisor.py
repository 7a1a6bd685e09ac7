"""The connection to libvirt, against libvirt's own test driver and calls that never come back."""

from __future__ import annotations

import threading
import time

import pytest
from tests.waiting import eventually

from vmpack.errors import (
    AccessError,
    GuestBusyError,
    GuestGoneError,
    HypervisorError,
    HypervisorLostError,
    UnavailableError,
)
from vmpack.hypervisor import MOST_CALLS, Hypervisor, job_name, translated
from vmpack.libvirt_address import start_hint

libvirt = pytest.importorskip("libvirt", reason="libvirt's Python module is not installed")

URI = "test:///default"
UNKNOWN_UUID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def hypervisor():
    made = Hypervisor(URI)
    yield made
    made.close()


def is_closed(connection) -> bool:
    try:
        connection.isAlive()
    except libvirt.libvirtError:
        return True
    return False


def test_it_opens_when_first_needed_and_again_after_close(hypervisor):
    """An agent would never come back after libvirtd was restarted."""
    first = hypervisor.connection()
    assert hypervisor.connection() is first

    hypervisor.close()

    assert hypervisor.connection() is not first
    assert hypervisor.connection().isAlive()
    assert is_closed(first)


def test_a_vm_that_is_not_there_is_gone(hypervisor):
    """A VM that ends between two calls would look like a broken libvirt."""
    with pytest.raises(GuestGoneError) as caught:
        hypervisor.call("look", lambda _: hypervisor.domain(UNKNOWN_UUID))

    assert UNKNOWN_UUID in caught.value.message


def test_what_a_driver_lacks_is_an_error_that_names_the_attempt(hypervisor):
    """A person would read "not supported by the connection driver" and not know by whom or for what."""
    with pytest.raises(HypervisorError) as caught:
        hypervisor.call("read the memory of the host", lambda c: c.getMemoryStats(0, 0))

    assert caught.value.message.startswith("could not read the memory of the host: ")
    assert caught.value.hint


def test_a_refused_job_question_means_busy(hypervisor):
    """A VM that cannot be asked might be in the middle of a migration: it must be left alone."""

    class Refusing:
        def name(self) -> str:
            return "web"

        def jobStats(self) -> None:
            raise error("VIR_ERR_OPERATION_INVALID")

    assert job_name(Refusing()) == "busy"


def test_a_hypervisor_without_jobs_has_none(hypervisor):
    """Nothing could be done to its VMs."""
    assert hypervisor.call("ask", lambda c: job_name(c.lookupByName("test"))) is None


def error(code: str, domain: int = 10) -> Exception:
    """A libvirtError as libvirt would raise it."""
    made = libvirt.libvirtError("x")
    made.err = (getattr(libvirt, code), domain, "what libvirt says", 2, None, None, None, 0, 0)
    return made


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("VIR_ERR_NO_DOMAIN", GuestGoneError),
        ("VIR_ERR_OPERATION_TIMEOUT", GuestBusyError),
        ("VIR_ERR_RESOURCE_BUSY", GuestBusyError),
        ("VIR_ERR_ACCESS_DENIED", AccessError),
        ("VIR_ERR_AUTH_FAILED", AccessError),
        ("VIR_ERR_INVALID_CONN", HypervisorLostError),
        ("VIR_ERR_OPERATION_FAILED", HypervisorError),
    ],
)
def test_libvirts_codes_become_vmpacks_errors(code, kind):
    """The loop decides by these classes what to skip, what to retry and what to tell."""
    with pytest.raises(kind) as caught, translated("set the memory of web1"):
        raise error(code)

    assert type(caught.value) is kind
    assert caught.value.message == "could not set the memory of web1: what libvirt says"
    assert caught.value.hint


def test_an_error_of_the_transport_is_a_loss():
    """A dead libvirtd reports an internal error of its own; taken for a VM's fault nobody would reconnect."""
    with pytest.raises(HypervisorLostError), translated("look"):
        raise error("VIR_ERR_INTERNAL_ERROR", domain=libvirt.VIR_FROM_RPC)


def test_a_lost_connection_is_replaced_at_the_next_call(hypervisor):
    """One restart of libvirtd would end the packing until somebody restarts the agent."""
    first = hypervisor.connection()

    def fail(_):
        raise error("VIR_ERR_INVALID_CONN")

    with pytest.raises(HypervisorLostError):
        hypervisor.call("look", fail)

    assert hypervisor.call("look", lambda c: c) is not first


def test_a_call_without_an_answer_ends_at_its_deadline_and_hinders_no_other(hypervisor):
    """One stopped QEMU would stop the whole agent."""
    release = threading.Event()
    first = hypervisor.connection()
    try:
        with pytest.raises(GuestBusyError) as caught:
            hypervisor.call("look at web1", lambda _: release.wait(), deadline_s=0.05)

        assert "look at web1" in caught.value.message
        assert hypervisor.call("look", lambda c: c) is not first
        assert first.isAlive(), "the silent call still uses it"
    finally:
        release.set()
    eventually("the given up connection is closed", lambda: is_closed(first))


def test_calls_without_an_answer_are_counted_and_limited(hypervisor):
    """Threads, and libvirtd's workers, would pile up by one per interval, for ever."""
    release = threading.Event()
    started = threading.Semaphore(0)

    def hang(_):
        started.release()
        release.wait()

    try:
        for _ in range(MOST_CALLS):
            with pytest.raises(GuestBusyError):
                hypervisor.call("hang", hang, deadline_s=0.01)
        for _ in range(MOST_CALLS):
            assert started.acquire(timeout=10)
        with pytest.raises(GuestBusyError, match="earlier calls"):
            hypervisor.call("look", lambda c: c)
    finally:
        release.set()


def test_each_step_of_a_call_has_the_whole_deadline(hypervisor):
    """Work of many steps would be given up while it goes on, or a step that hangs be waited for too long."""
    release = threading.Event()
    looks = []

    def goes_on() -> float:
        looks.append(time.monotonic())
        if len(looks) == 5:
            release.set()
        return looks[-1]

    def work(_) -> bool:
        return release.wait(120)

    began_s = time.monotonic()
    assert hypervisor.call("go on", work, deadline_s=0.01, last_step_s=goes_on)

    release.clear()
    try:
        with pytest.raises(GuestBusyError):
            hypervisor.call("hang", work, deadline_s=0.01, last_step_s=lambda: began_s)
    finally:
        release.set()


def test_failures_in_a_call_reach_the_caller(hypervisor):
    """A programming mistake would show as "no answer" and be looked for in libvirt."""
    with pytest.raises(ZeroDivisionError):
        hypervisor.call("divide", lambda _: 1 // 0)


def test_events_are_noted_and_survive_a_reconnect(hypervisor):
    """A changed policy would be seen a minute late, or never again after a restart of libvirtd."""
    noted: list[str] = []
    came = threading.Event()

    def note(uuid: str) -> None:
        noted.append(uuid)
        came.set()

    hypervisor.watch("METADATA_CHANGE", note)
    for _ in range(2):
        came.clear()
        domain = hypervisor.connection().lookupByName("test")
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "t", None, None, 0)
        assert came.wait(30)
        assert noted[-1] == domain.UUIDString()
        hypervisor.close()


CAPABILITIES = "<capabilities><host><uuid>h1</uuid></host></capabilities>"


class NamedLibvirt(Hypervisor):
    """A Hypervisor whose libvirt answers with a given URI of its own."""

    def __init__(self, uri: str, answered_uri: str) -> None:
        super().__init__(uri)
        self.answered_uri = answered_uri

    def call(self, what, function, *, deadline_s=5.0):
        return CAPABILITIES, "QEMU", self.answered_uri


def test_identity_does_not_depend_on_the_spelling_of_the_address(tmp_path):
    """Two agents on one libvirt would fight over its guests."""
    (tmp_path / "link").symlink_to(tmp_path)
    system = NamedLibvirt("qemu:///system", "qemu:///system")
    by_socket = NamedLibvirt("qemu+unix:///system?socket=/run/s", "qemu+unix:///system?socket=/run/s")
    embedded = f"qemu:///embed?root={tmp_path}"
    linked = f"qemu:///embed?root={tmp_path}/link"

    assert system.identity() == by_socket.identity() == "qemu/system/h1"
    assert NamedLibvirt(embedded, embedded).identity() == NamedLibvirt(linked, linked).identity()
    assert NamedLibvirt(embedded, embedded).identity() != system.identity()
    assert NamedLibvirt("qemu:///session", "qemu:///session").identity() != system.identity()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("qemu+unix:///system?socket=/nonexistent/libvirt-sock", "/nonexistent/libvirt-sock"),
        ("nosuch:///x", "check the address"),
    ],
)
def test_no_libvirt_is_said_with_what_to_do(uri, words):
    """Who lost a lab's or a daemon's own socket must not be sent to install the system's libvirt."""
    with pytest.raises(UnavailableError) as caught:
        Hypervisor(uri).call("look", lambda c: c)

    assert uri in caught.value.message
    assert words in caught.value.hint and "install" not in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "words"),
    [("qemu:///system", "libvirt-daemon-system"), ("qemu:///session", "do not run as root")],
)
def test_without_a_libvirt_the_hint_says_what_to_install(uri, words):
    """The first thing that a newcomer without libvirt sees."""
    assert words in start_hint(uri)
