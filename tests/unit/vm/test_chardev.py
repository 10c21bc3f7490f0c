import socket
import time

from particle_os.vm.chardev import Chardev


def test_what_comes_after_forgetting_is_kept():
    ours, theirs = socket.socketpair()
    channel = Chardev(ours)
    for said in (b"before", b"after"):
        theirs.sendall(said)
        until = time.monotonic() + 5
        while not channel.data and time.monotonic() < until:
            time.sleep(0.01)
        assert channel.data == said
        channel.forget()
    channel.close()
    theirs.close()
