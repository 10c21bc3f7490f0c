"""The keys of a farm let its members in, and no others."""

import socket
import ssl
import stat
import subprocess
import threading

import pytest
from particle_os.errors import UsageError
from particle_os.fleet.farm import key_making

from ....waiting import HANG_SECONDS


@pytest.fixture
def farm(tmp_path):
    return key_making.make(tmp_path / "farm")


def context(found, purpose):
    """As Dask makes it: the certificate is checked, its name is not."""
    made = ssl.create_default_context(purpose, cafile=found.ca)
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(found.certificate, found.private)
    return made


def meet(server, client):
    """Lets a client with its keys call a server with its own; returns the error of either."""
    ours, theirs = socket.socketpair()
    errors = []

    def serve():
        try:
            with context(server, ssl.Purpose.CLIENT_AUTH).wrap_socket(ours, server_side=True) as s:
                s.sendall(b"x")
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with context(client, ssl.Purpose.SERVER_AUTH).wrap_socket(theirs) as connection:
            assert connection.recv(1) == b"x"
    except OSError as error:
        errors.append(error)
    thread.join(HANG_SECONDS)
    return errors


def test_members_accept_each_other_by_strict_rules(farm):
    assert meet(farm, farm) == []


def test_members_of_another_farm_are_refused(farm, tmp_path):
    other = key_making.make(tmp_path / "other")
    assert meet(farm, other) and meet(other, farm)


def test_the_private_key_is_for_its_user_alone_and_the_key_of_the_ca_is_not_kept(farm):
    assert stat.S_IMODE(farm.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(farm.directory.stat().st_mode) == 0o700
    assert sorted(path.name for path in farm.directory.iterdir()) == [
        "ca.pem", "cert.pem", "key.pem",
    ]  # fmt: skip
    done = subprocess.run(["openssl", "pkey", "-in", farm.private, "-check", "-noout"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "valid" in done.stdout + done.stderr


def test_keys_that_exist_are_never_replaced(farm):
    before = farm.private.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        key_making.make(farm.directory)
    assert farm.private.read_bytes() == before


def test_missing_keys_are_named_with_what_to_do(farm):
    farm.ca.unlink()
    with pytest.raises(UsageError, match=r"ca\.pem") as caught:
        farm.check()
    assert "farm keys" in caught.value.hint


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        key_making.make(tmp_path / "file")
