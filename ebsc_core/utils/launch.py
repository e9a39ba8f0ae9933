"""Start several processes of a run on this machine with torch's launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ebsc_core.utils.device import resolve_device
from ebsc_core.utils.errors import DeviceError
from ebsc_core.utils.launched import is_launched, local_process_count
from ebsc_core.utils.signals import SAVING


def launch(devices: str, device: str, arguments: Sequence[str]) -> int | None:
    """Start this program once per device and wait for all processes.

    Parameters
    ----------
    devices : str
        The number of devices, or ``all``; the CPU counts as one device.
    device : str
        The kind of device, as in :func:`ebsc_core.utils.device.resolve_device`.
    arguments : sequence of str
        The command-line arguments of Python.

    Returns
    -------
    int or None
        The first exit status that is not 0, or 0. None if nothing had to be started, because ``devices`` is
        1 or because a launcher started this process.

    Raises
    ------
    DeviceError
        If the machine has fewer devices.
    """
    wanted = count_devices(devices, device)
    started = local_process_count()
    if is_launched() and wanted != started:
        raise DeviceError(f"`devices` is {wanted} but {started} processes were started here; leave it out")
    if is_launched() or wanted == 1:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // wanted)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=wanted,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    _pass_on_requests_to_save()
    logging.disable()  # the processes print their errors; a report of the launcher would repeat them
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        index, failure = error.get_first_failure()
        if failure.exitcode < 0:  # a signal ended it before it could print an error
            raise DeviceError(
                f"process {index} of {wanted} was ended by {failure.signal_name()}; "
                "check that there is enough memory for all processes"
            ) from None
        return failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _pass_on_requests_to_save() -> None:
    """Pass SIGUSR1 on to the processes, which belong to other groups; on Linux only.

    They start with the signal blocked, and unblock it when they can handle it.
    """
    if SAVING is None or not Path("/proc/self/stat").exists():
        return
    request: signal.Signals = SAVING

    def pass_on(*_: Any) -> None:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                    os.kill(int(stat.parent.name), request)

    def wait() -> None:
        while True:
            signal.sigwait([request])
            pass_on()

    signal.signal(request, pass_on)  # another thread may get it
    signal.pthread_sigmask(signal.SIG_BLOCK, [request])
    threading.Thread(target=wait, daemon=True).start()


def count_devices(devices: str, device: str) -> int:
    """Return the number of devices that ``devices`` asks for.

    Raises
    ------
    DeviceError
        If ``devices`` is neither ``all`` nor a number from 1 to the number of devices of this kind.
    """
    kind = resolve_device(device).type
    here = torch.cuda.device_count() if kind == "cuda" else 1
    if devices == "all":
        return here
    if not devices.isdecimal() or not int(devices):
        raise DeviceError(f"`devices` {devices!r} is neither 'all' nor a number from 1 up")
    cores = os.cpu_count() or 1
    limit, what = (cores, "processor cores") if kind == "cpu" else (here, f"{kind.upper()} devices")
    if int(devices) > limit:
        raise DeviceError(f"`devices` is {devices} but this machine has {limit} {what}; lower it")
    return int(devices)
