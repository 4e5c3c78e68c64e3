"""A real S3 server: Ceph's RADOS gateway over one monitor and one OSD in memory, on loopback.

Only daemons of one small cluster and their configuration belong here. It needs no manager daemon,
no service of the system and no root; pools of few placement groups and short intervals let it
start within two seconds. What is overwritten or deleted is freed within seconds.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

KEY, SECRET = "ceph-key", "ceph-secret"
REGION = "us-east-1"
_PATH = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin"
_PROGRAMS = {
    "ceph": "ceph-common",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
}
_CONFIG = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon_port}
mon_initial_members = a
public_network = 127.0.0.0/8
ms_bind_ipv6 = false
ms_mon_client_mode = crc
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {folder}
admin_socket =
log_file = {folder}/$name.log
paxos_propose_interval = 0.05
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_client_watch_timeout = 2
osd_default_notify_timeout = 1
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 2
debug_ms = 0/0
debug_osd = 0/0
debug_rgw = 1/1
[mon.a]
mon_data = {folder}/mon
[osd.0]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = {room}
[client.rgw.a]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_thread_pool_size = 64
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 2
rgw_gc_processor_max_time = 2
"""


def missing() -> str:
    """Why the server cannot be started here, or an empty text."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed (apt-get install {package})"
    return ""


@dataclass
class Ceph:
    """A running cluster with a gateway that can be killed and started again on its port.

    Attributes
    ----------
    folder : Path
        Its configuration, logs and the monitor's data.
    port : int
        Where the gateway listens.
    processes : dict
        What was started, by name: ``mon``, ``osd``, ``gateway``.
    """

    folder: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, object]:
        """What s3fs needs to talk to it."""
        return {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": self.url}}

    @property
    def environment(self) -> dict[str, str]:
        """The variables in which AWS's clients look for credentials, and nothing of this machine.

        ``AWS_ENDPOINT_URL`` is not among them: whoever talks to the server says where it is.
        """
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def make_bucket(self, name: str) -> str:
        """Make a bucket and give its URL."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"

    def make_user(self, name: str, key: str, secret: str) -> None:
        """Make a further user, who sees no bucket of the first one."""
        names = [f"--uid={name}", f"--display-name={name}"]
        self.run(
            "radosgw-admin", "user", "create", *names, f"--access-key={key}", f"--secret={secret}"
        )

    def start_gateway(self) -> None:
        """Start the gateway; it answers when this returns."""
        process = self.spawn("gateway", "radosgw", "-f", "-n", "client.rgw.a")
        for _ in range(1200):
            if process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/", timeout=5):
                    return
            except urllib.error.HTTPError:
                return  # an answer all the same
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"the gateway did not start: {self.said('gateway')}")

    def kill_gateway(self) -> None:
        """Kill the gateway alone: connections break, what it had answered for stays."""
        process = self.processes.pop("gateway", None)
        if process is not None:
            process.kill()
            process.wait(10)

    def stop(self) -> None:
        """End the processes that were started, and no others; nothing of theirs is to be kept."""
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.kill()
            process.wait(10)

    def spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a daemon, in the foreground of its own process."""
        with (self.folder / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                self._configured(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes[name] = process
        return process

    def run(self, *command: str) -> str:
        """Run a command of Ceph's to its end, and give what it printed."""
        done = subprocess.run(
            self._configured(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr[-500:]}")
        return done.stdout

    def said(self, name: str) -> str:
        """The end of what a daemon printed."""
        return (self.folder / f"{name}.out").read_text()[-500:]

    def _configured(self, program: str, *arguments: str) -> list[str]:
        found = shutil.which(program, path=_PATH)
        assert found is not None, missing()
        return [found, "-c", str(self.folder / "ceph.conf"), *arguments]


def start(folder: Path, room: int = 4 << 30) -> Ceph:
    """Start a cluster below ``folder``; the gateway answers when this returns.

    Parameters
    ----------
    folder : Path
        Made where it is missing; no other cluster's.
    room : int
        Bytes that the cluster holds at most, in memory.
    """
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    mon_port, port = _free_ports()
    fsid = str(uuid.uuid4())
    server = Ceph(folder, port)
    said = {"fsid": fsid, "mon_port": mon_port, "folder": folder, "port": port, "room": room}
    (folder / "ceph.conf").write_text(_CONFIG.format(**said))
    try:
        _start_monitor(server, fsid, mon_port)
        _start_osd(server)
        server.make_user("tests", KEY, SECRET)
        server.start_gateway()
    except BaseException:
        server.stop()
        raise
    return server


def _start_monitor(server: Ceph, fsid: str, port: int) -> None:
    monmap = str(server.folder / "monmap")
    address = f"[v2:127.0.0.1:{port}]"
    server.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
    server.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
    server.spawn("mon", "ceph-mon", "-f", "-i", "a")
    # Whoever took the port meanwhile would answer too: nothing is said to another's cluster.
    found = server.run("ceph", "--connect-timeout", "30", "fsid").strip()
    if found != fsid:
        raise RuntimeError(f"another cluster answers on port {port}: {server.said('mon')}")


def _start_osd(server: Ceph) -> None:
    name = str(uuid.uuid4())
    number = server.run("ceph", "osd", "new", name).strip()
    server.run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", name)
    server.spawn("osd", "ceph-osd", "-f", "-i", number)


def _free_ports() -> tuple[int, int]:
    """Two ports that nobody listens on now."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])
