import hashlib
import io
import queue
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import paramiko
import pytest
from particle_os.errors import DeadlineExceeded, InfrastructureError, VmError
from particle_os.vm.ssh import FORWARDED_WINDOW, WINDOW, Connection, HostKeyMismatch, KeyPair

from ...waiting import HANG_SECONDS, DeadlineWhen, moment, until


class Door(paramiko.ServerInterface):
    """A server that accepts one key and answers each command with the SHA-256 of its input."""

    def __init__(self, user_key):
        self._user_key = user_key
        self.listening = {}
        self.hang = threading.Event()

    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        right = username == "root" and key.get_base64() == self._user_key
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_port_forward_request(self, address, port):
        if port == 1:
            return False
        if port == 2:
            self.hang.wait(HANG_SECONDS)
        self.listening[address, port] = True
        return port

    def cancel_port_forward_request(self, address, port):
        del self.listening[address, port]

    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._answer, args=(channel, command), daemon=True).start()
        return True

    def _answer(self, channel, command):
        if command == b"sleep":
            return
        if command in (b"flood", b"flood errors"):
            channel.out_window_size = 1 << 40
            send = channel.send_stderr if command == b"flood errors" else channel.send
            with suppress(OSError, EOFError):
                while True:
                    send(bytes(1 << 15))
            return
        digest = hashlib.sha256()
        while data := channel.recv(65536):
            digest.update(data)
        channel.sendall(command + b" " + digest.hexdigest().encode())
        channel.send_exit_status(0)
        channel.close()


@dataclass
class Guests:
    """The clients of a server so far, and its side of each."""

    addresses: list
    transports: list
    doors: list

    def __len__(self):
        return len(self.addresses)


@contextmanager
def ssh_server(host_key, user_key, *, after=None):
    """Listens on a port of 127.0.0.1 `after` an event; yields the port and its clients so far."""
    guests, transports, doors = [], [], []
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))

    def serve():
        if after is not None:
            after.wait(HANG_SECONDS)
        listener.listen()
        while True:
            try:
                connection, guest = listener.accept()
            except OSError:
                return
            guests.append(guest)
            transport = paramiko.Transport(connection)
            transports.append(transport)
            transport.add_server_key(host_key)
            doors.append(Door(user_key))
            try:
                transport.start_server(server=doors[-1])
            except (paramiko.SSHException, EOFError, OSError):
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], Guests(guests, transports, doors)
    finally:
        listener.close()
        for door in doors:
            door.hang.set()
        for transport in transports:
            transport.close()


@pytest.fixture
def keys():
    return KeyPair()


@pytest.fixture
def host_key():
    return KeyPair().private


def test_the_announced_key_is_accepted_and_data_arrives(keys, host_key, soon):
    data = bytes(range(256)) * 5000
    with ssh_server(host_key, keys.private.get_base64()) as (port, _):
        connection = Connection(port, host_key, keys, soon)
        with connection.command("take", soon) as channel:
            digest = connection.send(channel, io.BytesIO(data), soon)
            channel.settimeout(HANG_SECONDS)
            answer = channel.makefile("rb").read().decode()
        assert channel.closed
        connection.close()
    assert digest == hashlib.sha256(data).hexdigest()
    assert answer == f"take {digest}"


def test_another_host_key_is_refused_without_a_second_try(keys, host_key, soon):
    other = KeyPair().private
    with ssh_server(other, keys.private.get_base64()) as (port, guests):
        with pytest.raises(HostKeyMismatch):
            Connection(port, host_key, keys, soon)
    assert len(guests) == 1


def test_another_kind_of_host_key_is_refused_without_a_second_try(keys, host_key, soon):
    other = paramiko.ECDSAKey.generate()
    with ssh_server(other, keys.private.get_base64()) as (port, guests):
        with pytest.raises(VmError):
            Connection(port, host_key, keys, soon)
    assert len(guests) == 1


def test_a_user_key_that_is_refused_is_not_tried_again(keys, host_key, soon):
    stranger = KeyPair()
    with ssh_server(host_key, stranger.private.get_base64()) as (port, guests):
        with pytest.raises(VmError, match="no SSH connection"):
            Connection(port, host_key, keys, soon)
    assert len(guests) == 1


def test_a_server_that_does_not_listen_yet_is_tried_again(keys, host_key, soon, monkeypatch):
    refused, connect = threading.Event(), socket.create_connection

    def visit(*arguments):
        try:
            return connect(*arguments)
        except ConnectionRefusedError:
            refused.set()
            raise

    monkeypatch.setattr(socket, "create_connection", visit)
    with ssh_server(host_key, keys.private.get_base64(), after=refused) as (port, _):
        Connection(port, host_key, keys, soon).close()
    assert refused.is_set()


def test_a_port_that_nobody_answers_is_given_up_at_the_deadline(keys, host_key):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(InfrastructureError):
            Connection(unused.getsockname()[1], host_key, keys, moment())


def test_a_server_that_says_nothing_is_given_up_at_the_deadline(keys, host_key):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InfrastructureError):
            Connection(silent.getsockname()[1], host_key, keys, moment())


def test_each_step_of_a_connection_ends_at_the_deadline(keys, host_key, monkeypatch):
    """paramiko waits much longer than a short deadline for a server that stops in between."""
    given, connect = {}, paramiko.SSHClient.connect

    def watched(*arguments, **options):
        given.update(options)
        connect(*arguments, **options)

    monkeypatch.setattr(paramiko.SSHClient, "connect", watched)
    with ssh_server(host_key, keys.private.get_base64()) as (port, _):
        Connection(port, host_key, keys, DeadlineWhen()).close()
    limits = [given.get(name) for name in ("timeout", "banner_timeout", "auth_timeout")]
    assert limits == [DeadlineWhen().remaining()] * 3


def test_a_guest_that_takes_no_more_data_is_given_up_at_the_deadline(keys, host_key, soon):
    with ssh_server(host_key, keys.private.get_base64()) as (port, _):
        connection = Connection(port, host_key, keys, soon)
        with pytest.raises(DeadlineExceeded), connection.command("sleep", soon) as channel:
            endless = open("/dev/zero", "rb")  # noqa: PTH123, SIM115
            with endless:
                connection.send(channel, endless, moment())
        connection.close()


@pytest.mark.parametrize("command", ["flood", "flood errors"])
def test_a_guest_that_ignores_the_window_is_cut_off(keys, host_key, soon, command):
    with ssh_server(host_key, keys.private.get_base64()) as (port, _):
        connection = Connection(port, host_key, keys, soon)
        with connection.command(command, soon) as channel:
            until(lambda: channel.closed)
            assert len(channel.in_buffer) + len(channel.in_stderr_buffer) <= WINDOW + (1 << 16)
        with pytest.raises(VmError, match="accepts commands"):
            with connection.command("again", soon):
                pass


def test_aborting_ends_a_wait_in_another_thread(keys, host_key, soon):
    with ssh_server(host_key, keys.private.get_base64()) as (port, _):
        connection = Connection(port, host_key, keys, soon)
        with connection.command("sleep", soon) as channel:
            threading.Timer(0.2, connection.abort).start()
            channel.settimeout(HANG_SECONDS)
            assert channel.recv(100) == b""
        with pytest.raises(VmError, match="accepts commands"):
            with connection.command("again", soon):
                pass


def test_a_server_behind_a_port_that_closes_at_once_is_tried_again(keys, host_key, soon):
    """QEMU accepts a connection, and drops it while no server in the VM listens."""
    with ssh_server(host_key, keys.private.get_base64()) as (port, guests):
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            door.listen()
            dropped = []

            def forward():
                while len(dropped) < 3:
                    door.accept()[0].close()
                    dropped.append(1)
                visitor = door.accept()[0]
                inner = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=carry, args=(visitor, inner), daemon=True).start()
                carry(inner, visitor)

            def carry(source, sink):
                try:
                    while data := source.recv(65536):
                        sink.sendall(data)
                except OSError:
                    pass
                sink.close()

            threading.Thread(target=forward, daemon=True).start()
            Connection(door.getsockname()[1], host_key, keys, soon).close()
    assert len(dropped) == 3
    assert len(guests) == 1


def test_the_secret_is_what_sshd_takes_as_a_host_key(keys, tmp_path):
    armour = "-----{} OPENSSH PRIVATE KEY-----\n"
    place = tmp_path / "host_key"
    place.write_text(f"{armour.format('BEGIN')}{keys.secret}\n{armour.format('END')}")
    place.chmod(0o600)
    printed = subprocess.run(
        ["ssh-keygen", "-y", "-f", place], capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert printed.stdout.strip() == keys.public
    assert len(keys.secret) < 1000, "a line of a terminal ends at 4095 bytes"


def test_every_build_has_its_own_key():
    assert KeyPair().public != KeyPair().public
    assert KeyPair().public.startswith("ssh-ed25519 ")


@pytest.fixture
def forwarding(keys, host_key, soon):
    """A connection, and the server's side of it."""
    with ssh_server(host_key, keys.private.get_base64()) as (port, guests):
        connection = Connection(port, host_key, keys, soon)
        yield connection, guests
        connection.close()


def test_a_port_of_the_vm_leads_here_until_the_end(forwarding, soon):
    connection, guests = forwarding
    taken = queue.SimpleQueue()

    def take(channel):
        taken.put(channel)
        return True

    with connection.forwarded(3128, take, soon):
        (door,), (transport,) = guests.doors, guests.transports
        assert list(door.listening) == [("127.0.0.1", 3128)]
        its = transport.open_forwarded_tcpip_channel(("127.0.0.1", 9), ("127.0.0.1", 3128))
        ours = taken.get(timeout=HANG_SECONDS)
        for one, other in ((its, ours), (ours, its)):
            one.sendall(b"hello")
            other.settimeout(HANG_SECONDS)
            assert other.recv(5) == b"hello"
        # A guest can send no more than this before the host reads.
        assert ours.in_window_size == FORWARDED_WINDOW
    assert door.listening == {}
    with pytest.raises(paramiko.SSHException):
        transport.open_forwarded_tcpip_channel(("127.0.0.1", 9), ("127.0.0.1", 3128))


def test_a_guest_that_opens_too_many_connections_is_cut_off(forwarding, soon):
    connection, guests = forwarding
    with connection.forwarded(3128, lambda channel: False, soon):
        (transport,) = guests.transports
        with suppress(paramiko.SSHException, EOFError):
            transport.open_forwarded_tcpip_channel(("127.0.0.1", 9), ("127.0.0.1", 3128))
        until(lambda: not transport.is_active())
    with pytest.raises(VmError), connection.command("take", soon):
        pass


def test_a_vm_that_does_not_listen_is_an_error(forwarding, soon):
    with pytest.raises(VmError, match="does not listen on port 1"):
        with forwarding[0].forwarded(1, lambda channel: True, soon):
            pass


def test_a_vm_that_does_not_answer_is_given_up_at_the_deadline(forwarding):
    with pytest.raises(VmError, match="does not listen on port 2"):
        with forwarding[0].forwarded(2, lambda channel: True, moment()):
            pass
