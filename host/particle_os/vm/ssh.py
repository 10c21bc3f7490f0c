"""SSH to the helper VM with paramiko: a pinned host key, a fresh user key, and deadlines."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import paramiko
import tenacity
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from particle_os.errors import VmError
from particle_os.system.deadline import Deadline

# Every failure reaches the user as a ParticleError; paramiko's log messages would only confuse.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

RETRY_SECONDS = 0.02
CHUNK = 1 << 18
# Bytes that the guest may send before the host has read them: of a command, of a connection.
WINDOW, FORWARDED_WINDOW = 1 << 24, 1 << 18
CANCEL_SECONDS = 30.0
# The messages with data of a channel: SSH_MSG_CHANNEL_DATA and _EXTENDED_DATA.
DATA = (94, 95)
# Under emulation, the guest's AES instructions are faster than its ChaCha20.
CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr")


class KeyPair:
    """The key of one build, which exists only in memory.

    `public` is the line for authorized_keys(5). `secret` is the private key in OpenSSH's format, as
    base64 without header and footer.
    """

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ).decode("ascii")
        self.private = paramiko.Ed25519Key.from_private_key(io.StringIO(text))
        self.secret = "".join(text.splitlines()[1:-1])
        self.public = f"ssh-ed25519 {self.private.get_base64()}"


class _OnlyThisKey(paramiko.MissingHostKeyPolicy):
    """Refuses every unknown host key; paramiko accepts the pinned key without this policy."""

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        raise HostKeyMismatch(f"the VM's SSH server has an unknown host key: {key.fingerprint}")


class HostKeyMismatch(VmError):
    """The server on the forwarded port is not our VM."""


class Connection:
    """A connection to the VM. Any thread may call `abort`, which ends every wait."""

    def __init__(
        self, port: int, host_key: paramiko.PKey, keys: KeyPair, deadline: Deadline
    ) -> None:
        """Connects to 127.0.0.1:`port`, which must show `host_key`. Raises VmError."""
        self._client = paramiko.SSHClient()
        self._client.get_host_keys().add(f"[127.0.0.1]:{port}", "ssh-ed25519", host_key)
        self._client.set_missing_host_key_policy(_OnlyThisKey())
        try:
            for attempt in tenacity.Retrying(
                stop=tenacity.stop_after_delay(deadline.remaining()),
                wait=tenacity.wait_fixed(RETRY_SECONDS),
                retry=tenacity.retry_if_exception(_worth_a_retry),
                reraise=True,
            ):
                with attempt:
                    self._connect(port, keys, deadline)
        except paramiko.BadHostKeyException as error:
            raise HostKeyMismatch("the host key of the VM's SSH server is wrong") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise VmError(f"no SSH connection to the VM: {error}") from error

    def _connect(self, port: int, keys: KeyPair, deadline: Deadline) -> None:
        # QEMU accepts the connection before the VM does: without a greeting, no server listens yet.
        connection = socket.create_connection(("127.0.0.1", port), deadline.remaining())
        try:
            if not connection.recv(1, socket.MSG_PEEK):
                raise EOFError("no SSH server listens yet")
        except BaseException:
            connection.close()
            raise
        self._client.connect(
            "127.0.0.1",
            port,
            sock=connection,
            username="root",
            pkey=keys.private,
            timeout=deadline.remaining(),
            banner_timeout=deadline.remaining(),
            auth_timeout=deadline.remaining(),
            allow_agent=False,
            look_for_keys=False,
            transport_factory=_Transport,
        )

    @contextmanager
    def command(
        self, argv: str, deadline: Deadline, *, terminal: bool = False
    ) -> Iterator[paramiko.Channel]:
        """Runs a command and yields its channel. The command must be our text, never a recipe's."""
        transport = self._client.get_transport()
        try:
            if transport is None:
                raise paramiko.SSHException("closed")
            channel = transport.open_session(window_size=WINDOW, timeout=deadline.remaining())
            if terminal:
                channel.get_pty(os.environ.get("TERM", "vt100"))
            channel.exec_command(argv)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise VmError(f"the VM no longer accepts commands: {error}") from error
        with channel:
            yield channel

    def send(
        self,
        channel: paramiko.Channel,
        stream: IO[bytes],
        deadline: Deadline,
        more_follows: bool = False,
    ) -> str:
        """Sends a stream to a command's standard input; returns the SHA-256 of the sent bytes.

        Closes the command's input, unless `more_follows` is true.
        """
        digest = hashlib.sha256()
        try:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                channel.settimeout(deadline.remaining())
                channel.sendall(chunk)
            if not more_follows:
                channel.shutdown_write()
        except TimeoutError:
            deadline.remaining()
            raise VmError("the VM accepts no more data") from None
        except OSError as error:
            raise VmError(f"the VM closed the connection: {error}") from error
        return digest.hexdigest()

    @contextmanager
    def forwarded(
        self, port: int, take: Callable[[paramiko.Channel], bool], deadline: Deadline
    ) -> Iterator[None]:
        """Lets the VM listen on `port` of its 127.0.0.1 until the context ends.

        `take` gets each connection and must not wait; when it returns False, the VM asks for too
        much, and the connection to it ends. Raises VmError when the VM does not listen.
        """

        def accept(channel: paramiko.Channel, *_: object) -> None:
            if not take(channel):
                self.abort()

        transport = self._client.get_transport()
        try:
            if transport is None:
                raise paramiko.SSHException("closed")
            with self._answering(deadline):
                transport.request_port_forward("127.0.0.1", port, accept)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise VmError(f"the VM does not listen on port {port}: {error}") from error
        try:
            yield
        finally:
            with self._answering(Deadline.after(CANCEL_SECONDS, "closing a port of the VM")):
                transport.cancel_port_forward("127.0.0.1", port)

    @contextmanager
    def _answering(self, deadline: Deadline) -> Iterator[None]:
        """Ends the connection if the VM has not answered by the deadline; paramiko has none."""
        timer = threading.Timer(deadline.remaining(), self.abort)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def abort(self) -> None:
        self._client.close()

    close = abort


Feed = Callable[[paramiko.Channel, paramiko.Message], None]


def _within_window(feed: Feed) -> Feed:
    """A handler of received data that ends the connection when the data exceeds the window."""

    def checked(channel: paramiko.Channel, message: paramiko.Message) -> None:
        feed(channel, message)
        unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        if unread > channel.in_window_size:
            raise paramiko.SSHException("the VM sends more than the window allows")

    return checked


class _Transport(paramiko.Transport):
    """paramiko's transport with ciphers that are fast in emulation, and with enforced windows.

    The guest opens the connections of a forwarded port, so that each has a small window. paramiko
    itself stores whatever arrives (RFC 4254, section 5.2 forbids a peer to exceed the window).
    """

    def __init__(self, sock: Any, /, **options: Any) -> None:
        super().__init__(sock, default_window_size=FORWARDED_WINDOW, **options)
        self.get_security_options().ciphers = CIPHERS
        handlers: dict[int, Feed] = vars(paramiko.Transport)["_channel_handler_table"]
        enforced = {kind: _within_window(handlers[kind]) for kind in DATA}
        self._channel_handler_table = handlers | enforced


def _worth_a_retry(error: BaseException) -> bool:
    """Whether a repeated attempt may succeed: sshd may start late, but a wrong key stays wrong."""
    final = (
        paramiko.BadHostKeyException,
        paramiko.AuthenticationException,
        paramiko.ssh_exception.IncompatiblePeer,
    )
    if isinstance(error, final):
        return False
    return isinstance(error, paramiko.SSHException | OSError | EOFError)
