"""``accelerate launch`` on two hosts: network namespaces with a cable, if the system lets us make them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

PATIENCE = 300
ADDRESSES = ("10.77.0.1", "10.77.0.2")
CABLES = ("ebsc0", "ebsc1")
# The first host is a network of its own and waits; the second is another, which this one's root has made.
WIRING = f"""
set -e
ip link set lo up
unshare --net sleep {PATIENCE} &
echo $!
sleep 0.5
ip link add {CABLES[0]} type veth peer name {CABLES[1]}
ip link set {CABLES[1]} netns $!
ip addr add {ADDRESSES[0]}/24 dev {CABLES[0]}
ip link set {CABLES[0]} up
nsenter -t $! -n ip link set lo up
nsenter -t $! -n ip addr add {ADDRESSES[1]}/24 dev {CABLES[1]}
nsenter -t $! -n ip link set {CABLES[1]} up
echo ready
wait
"""
RUN = ("run", "--limit", "60", "--epochs", "0", "--backbone", "pca", "--set", "backbone.components=8", "-q")


# It is torchrun that it calls, with what docs/scale.md gives it.
LAUNCHER = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)


class Host(NamedTuple):
    """How to start a command on one, and by which network it is to talk."""

    enter: tuple[str, ...] = ()
    interface: str = "lo"


class Hosts(NamedTuple):
    """Two hosts, where they meet, and why they are one machine if they are."""

    both: tuple[Host, Host]
    address: str
    port: str
    reason: str = ""


def one_machine(reason: str) -> Hosts:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Hosts((Host(), Host()), "127.0.0.1", str(probe.getsockname()[1]), reason)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        yield one_machine("there is no unshare, nsenter or ip")
        return
    wiring = subprocess.Popen(
        ["unshare", "--net", "--map-root-user", "sh", "-c", WIRING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert wiring.stdout
    try:
        second, ready = wiring.stdout.readline().strip(), wiring.stdout.readline().strip()
        if ready == "ready":
            enter = ("nsenter", "--user", "--net", "--preserve-credentials", "-t")
            first = Host((*enter, str(wiring.pid)), CABLES[0])
            yield Hosts((first, Host((*enter, second), CABLES[1])), ADDRESSES[0], "29500")
        else:
            yield one_machine("the system makes no network namespaces for us")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(wiring.pid, signal.SIGTERM)
        wiring.communicate()


@pytest.mark.slow
def test_accelerate_launch_makes_one_run_of_two_hosts(hosts: Hosts, tmp_path: Path) -> None:
    """As docs/scale.md says: the same command on each but for the host's number."""
    started = []
    for number, host in enumerate(hosts.both):
        (tmp_path / str(number)).mkdir()
        place = ("--num_machines", "2", "--num_processes", "2", "--machine_rank", str(number))
        meeting = ("--main_process_ip", hosts.address, "--main_process_port", hosts.port)
        launcher = (*LAUNCHER, *place, *meeting)
        started.append(
            subprocess.Popen(
                [*host.enter, *launcher, "-m", "ebsc_cli", *RUN, "--out", "run"],
                cwd=tmp_path / str(number),
                env=os.environ | {"GLOO_SOCKET_IFNAME": host.interface, "COLUMNS": "250"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=PATIENCE) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    assert [out.count("run directory: run") for out, _ in said] == [1, 0]
    assert [len(list((tmp_path / number).iterdir())) for number in "01"] == [1, 0]
    if hosts.reason:
        pytest.skip(f"two processes of one machine did it: {hosts.reason}")
