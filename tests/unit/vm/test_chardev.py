import socket

from particle_os.vm.chardev import Chardev

from ...waiting import until


def test_what_comes_after_forgetting_is_kept():
    ours, theirs = socket.socketpair()
    channel = Chardev(ours)
    for said in (b"before", b"after"):
        theirs.sendall(said)
        assert until(lambda: channel.data) == said
        channel.forget()
    channel.close()
    theirs.close()
