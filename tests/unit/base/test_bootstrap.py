"""The host's part while a helper VM installs a base; the VM is played."""

from types import SimpleNamespace

from particle_agent.contract import wire
from particle_os.base import bootstrap

from ...waiting import plenty


def test_the_agent_is_answered_and_gets_no_network(tmp_path):
    """An agent waits at each stage until the host has set the network."""
    answers, heard, connected = [], [], []
    output = tmp_path / "base.tar"
    output.write_bytes(bytes(10))

    def run(stages, *, hostname, deadline, listen, architecture):
        for index in range(len(stages)):
            answers.append(listen(wire.StageStart(index=index)))
            assert listen(wire.OutputLine(text="a line")) is None
            assert listen(wire.StageEnd(index=index, seconds=1.0)) is None
        assert listen(wire.DiskWritten(size=4)) is None

    def take_disk_event(event, deadline):
        disk.written = event.size
        return disk

    disk = SimpleNamespace(path=output, written=None)
    agent = SimpleNamespace(extract=lambda *arguments: None, run=run)
    sandbox = SimpleNamespace(
        agent=agent, outputs={"output": disk}, take_disk_event=take_disk_event,
        connect_outside=lambda *arguments: connected.append(arguments),
    )  # fmt: skip
    bootstrap._install(sandbox, "trixie", "amd64", "sources", plenty(), heard.append)
    assert answers == [wire.Continue(), wire.Continue()]
    assert wire.OutputLine(text="a line") in heard
    assert connected == []
    assert output.read_bytes() == bytes(4)
