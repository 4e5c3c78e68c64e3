"""Connections to one SSH server: made, checked, lent to one call at a time, made anew once.

What the client raises becomes one line here; paramiko is loaded with the first connection.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tieredstore.errors import TieredStoreError, TierUnavailable, reason

if TYPE_CHECKING:
    import paramiko

T = TypeVar("T")
SftpClient = Any  # paramiko.SFTPClient, which has no types
_IDLE: Final = 8  # connections that are kept for the next call
_PATIENCE: Final = 3.0  # seconds in which a server that was there before may come back


@dataclass(frozen=True, slots=True)
class Server:
    """Which server, as whom, and what proves both.

    Attributes
    ----------
    host, port, user
        Where, and as whom.
    key : str or None
        Path of a private key; ``password`` is its passphrase then.
    password : str or None
        Never shown. Without it and ``key`` the SSH agent and the user's own keys are asked.
    known_hosts : str
        The file that the server's host key must stand in.
    accept_new : bool
        Whether the key of a server that the file does not know is written to it.
    timeout : float
        Seconds that connecting, or one answer, may take.
    """

    host: str
    port: int
    user: str
    key: str | None
    password: str | None = field(repr=False)
    known_hosts: str
    accept_new: bool
    timeout: float


class _Connection:
    def __init__(self, client: paramiko.SSHClient, timeout: float) -> None:
        self._client = client
        self.sftp: SftpClient = client.open_sftp()
        self.sftp.get_channel().settimeout(timeout)

    def alive(self) -> bool:
        transport = self._client.get_transport()
        channel = self.sftp.get_channel()
        return bool(transport and transport.is_active() and not channel.closed)

    def close(self) -> None:
        self._client.close()


def _is_break(error: Exception) -> bool:
    """Whether the connection is lost, even where its threads have not noticed yet."""
    from paramiko import SSHException

    return isinstance(error, EOFError | SSHException)


class Connections:
    """Lends connections to calls; each serves one thread at a time.

    Parameters
    ----------
    server : Server
        Whom to connect to.
    place : str
        How messages call the tier.
    """

    def __init__(self, server: Server, place: str) -> None:
        self._server = server
        self._place = place
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._process = os.getpid()
        self._met = False

    def run(self, path: str, call: Callable[[SftpClient], T]) -> T:
        """Call ``call`` with a connection; once more with a new one when the connection breaks.

        Parameters
        ----------
        path : str
            What the call is about, for messages.
        call : callable
            Gets a paramiko ``SFTPClient``; must come to the same when it is called again.

        Raises
        ------
        FileNotFoundError
            When the server says so.
        TierUnavailable
            In one line, for everything else that the client raises.
        """
        for attempt in range(2):
            connection = self._borrow()
            done = False
            try:
                result = call(connection.sftp)
                done = True
                return result
            except FileNotFoundError:
                done = True
                raise FileNotFoundError(errno.ENOENT, "No such file", path) from None
            except TieredStoreError:
                done = True
                raise
            except TimeoutError as error:
                text = f"{self._place}: no answer within {self._server.timeout:g} s: {path}"
                raise TierUnavailable(text, errno.ETIMEDOUT) from error
            except Exception as error:
                done = connection.alive() and not _is_break(error)
                if done:
                    raise self._failed(path, error) from error
                self.close()  # the others lead to the same server
                if attempt:
                    raise self._broken(path, error) from error
            finally:
                self._give_back(connection, usable=done)
        raise AssertionError

    def close(self) -> None:
        """End the connections that nobody uses right now."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _failed(self, path: str, error: Exception) -> TierUnavailable:
        code = error.errno if isinstance(error, OSError) else None
        if isinstance(error, OSError) and code is None:
            said = f"the server says {str(error)!r}"
        else:
            said = os.strerror(code) if code else reason(error)
        return TierUnavailable(f"{self._place}: {said}: {path}", code)

    def _broken(self, path: str, error: Exception) -> TierUnavailable:
        said = f" ({reason(error)})" if str(error) else ""
        return TierUnavailable(f"{self._place}: the connection broke twice{said}: {path}")

    # -- borrowed and made ----------------------------------------------------------------------

    def _borrow(self) -> _Connection:
        with self._lock:
            if self._process != os.getpid():  # forked: the connections are the parent's
                self._process, self._idle = os.getpid(), []
            while self._idle:
                connection = self._idle.pop()
                if connection.alive():
                    return connection
                connection.close()
        since = time.monotonic()
        while True:
            try:
                connection = self._connect()
            except Exception as error:
                late = time.monotonic() - since > _PATIENCE
                if late or not self._met or not _passes(error):
                    self._met = False
                    raise self._refused(error) from error
                time.sleep(0.2)
            else:
                self._met = True
                return connection

    def _give_back(self, connection: _Connection, *, usable: bool) -> None:
        with self._lock:
            if usable and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> _Connection:
        import paramiko

        log = logging.getLogger("paramiko")
        if not log.handlers:  # else Python prints, with a traceback, what is raised here too
            log.addHandler(logging.NullHandler())
        server = self._server
        client = paramiko.SSHClient()
        try:
            if os.path.exists(server.known_hosts):
                client.load_host_keys(server.known_hosts)
            client.set_missing_host_key_policy(self._policy())
            ask = server.key is None and server.password is None
            client.connect(
                server.host,
                server.port,
                server.user,
                password=None if server.key else server.password,
                key_filename=server.key,
                passphrase=server.password if server.key else None,
                allow_agent=ask,
                look_for_keys=ask,
                timeout=server.timeout,
                banner_timeout=server.timeout,
                auth_timeout=server.timeout,
                channel_timeout=server.timeout,
            )
            return _Connection(client, server.timeout)
        except BaseException:
            client.close()
            raise

    def _refused(self, error: Exception) -> TierUnavailable:
        import paramiko

        server, code = self._server, getattr(error, "errno", None)
        if isinstance(error, TieredStoreError):
            said = str(error)
        elif isinstance(error, paramiko.BadHostKeyException):
            said = (
                f"the server's host key is not the one in {server.known_hosts}; "
                f"find out why before you replace it there"
            )
        elif isinstance(error, paramiko.AuthenticationException):
            proof = f"the key {server.key}" if server.key else "what it was offered"
            said = f"the server does not let {server.user!r} in with {proof}"
        else:
            said = f"no connection: {reason(error)}"
        return TierUnavailable(f"{self._place}: {said}", code if isinstance(code, int) else None)

    def _policy(self) -> paramiko.MissingHostKeyPolicy:
        """Refuse servers that are not known, or write their key down where that was asked for."""
        import paramiko

        server = self._server

        class Policy(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
            def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
                del client
                if not server.accept_new:
                    raise TierUnavailable(
                        f"the server's host key ({key.get_name()} {key.fingerprint}) is not in "
                        f"{server.known_hosts}; add it there, or set accept_new = true"
                    )
                line = f"{hostname} {key.get_name()} {key.get_base64()}\n"
                os.makedirs(os.path.dirname(server.known_hosts), mode=0o700, exist_ok=True)
                with open(server.known_hosts, "a", encoding="ascii") as file:
                    file.write(line)

        return Policy()


def _passes(error: Exception) -> bool:
    """Whether what kept a connection from being made may be over soon."""
    import paramiko

    lasting = (TieredStoreError, paramiko.AuthenticationException, paramiko.BadHostKeyException)
    return not isinstance(error, lasting)
