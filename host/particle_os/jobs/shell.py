"""An interactive shell in a helper VM, in the target after one of its stages."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import paramiko
from particle_agent.contract import wire

from particle_os.apt import proxy as apt_proxy
from particle_os.errors import InfrastructureError, UsageError, VmError
from particle_os.jobs import checkpoints
from particle_os.jobs.checkpoints import Checkpoint, Checkpoints
from particle_os.jobs.execution.helper_vms import resources
from particle_os.jobs.plan import Plan, stage_index
from particle_os.report.progress import Progress
from particle_os.sandbox.running import Sandbox, running_sandbox
from particle_os.system import terminal
from particle_os.system.deadline import Deadline
from particle_os.system.workspace import cache_directory, workspace
from particle_os.vm.accel import Acceleration

SESSION_SECONDS = 24 * 3600.0
# The longest time in which the VM may leave typed input unread.
ANSWER_SECONDS = 60.0
CHUNK, TYPED_LIMIT = 1 << 15, 1 << 16


def enter(
    plan: Plan,
    acceleration: Acceleration,
    progress: Progress,
    *,
    at: str | None,
    failed: bool,
    apt_indexes: bool,
) -> int:
    """Runs a root shell in the target, and returns the exit status of the shell.

    The target is in the state after the stage `at`, or, with `failed`, after the stage that failed;
    otherwise in the latest state that the cache has. With `apt_indexes`, apt first fetches its
    indexes there, which no state has. Changes are discarded. Raises UsageError when the cache does
    not have that state.
    """
    if plan.helper is None or plan.base is None:
        raise UsageError("nothing has been built yet", hint="Run 'particle-os build' first.")
    if not plan.helper.is_intact():
        raise InfrastructureError(
            f"the helper VM {plan.template.name} in the cache is damaged",
            hint="Run 'particle-os build' to make it again.",
        )
    progress.gate.learn(plan.secrets.values())
    deadline = Deadline.after(SESSION_SECONDS, "the shell")
    proxy = apt_proxy.find(plan.apt_proxy, os.environ, progress.note)
    with workspace() as work, Checkpoints(cache_directory() / "checkpoints") as kept:
        keys = plan.keys(plan.base, plan.helper)
        chain = _state(plan, keys, kept, at=at, failed=failed)
        progress.note(f"the target {_described(chain)}; changes are thrown away")
        with running_sandbox(
            plan.helper,
            acceleration,
            resources(plan),
            directory=work.path / "shell",
            output=work.path / "output",
            transcript=progress.console_log(work.path),
            deadline=deadline,
            note=progress.note,
            layers=[checkpoint.disk for checkpoint in chain],
            plain=plan.options.plain,
        ) as sandbox:
            sandbox.connect_outside(plan.options.network is None, deadline)
            if _has_terminal():
                progress.note(f"{terminal.ESCAPE_NAME} ends the VM, also one that hangs")
            # The progress display must leave the terminal to the shell.
            progress.close()
            wanted = wire.ShellOptions(apt_proxy=proxy.for_guest(), apt_indexes=apt_indexes)
            return _session(sandbox, deadline, wanted)


def _state(
    plan: Plan, keys: list[str], kept: Checkpoints, *, at: str | None, failed: bool
) -> list[Checkpoint]:
    if at is not None:
        keys = keys[: stage_index(plan.stages, at, "--at") + 2]
    chain = kept.longest(keys, max_age=float("inf"))
    if failed and chain and len(chain) < len(keys):
        chain = kept.longest(
            [*keys[: len(chain)], checkpoints.failed(keys[len(chain)])], max_age=float("inf")
        )
    if not chain:
        raise UsageError(
            "the cache has no state of this recipe", hint="Run 'particle-os build' first."
        )
    if failed and not chain[-1].key.endswith(checkpoints.FAILED):
        raise UsageError(
            "the cache has no failed stage: none has failed, or a later build passed it"
        )
    if at is not None and len(chain) < len(keys):
        raise UsageError(
            f"there is no checkpoint after stage {at}; the last one is {_described(chain)}",
            hint="Run 'particle-os build' first. The last stage leaves no checkpoint.",
        )
    if checkpoints.intact_prefix(chain) < len(chain):
        raise InfrastructureError(
            "a checkpoint of this recipe was damaged and is now removed",
            hint="Run 'particle-os build' to make it again.",
        )
    return chain


def _described(chain: Sequence[Checkpoint]) -> str:
    label = chain[-1].meta.label
    number = len(chain) - 1
    return f"after stage {number} ({label})" if number else "with nothing but the unpacked base"


def _session(sandbox: Sandbox, deadline: Deadline, options: wire.ShellOptions) -> int:
    is_terminal = _has_terminal()
    with ExitStack() as stack:
        shell = sandbox.agent.shell(deadline, options, terminal=is_terminal)
        channel = stack.enter_context(shell)
        if is_terminal:
            stack.enter_context(_raw_terminal(channel))
        if not _forward(channel, deadline, terminal.ESCAPE if is_terminal else None):
            terminal.reset(sys.stdout.fileno())
            return 0
        if not channel.exit_status_ready():
            raise VmError("the VM ended before the shell did")
        return channel.recv_exit_status()


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def _raw_terminal(channel: paramiko.Channel) -> Iterator[None]:
    """Passes every key to the VM, and every change of the window's size."""

    def resize(*_: object) -> None:
        size = shutil.get_terminal_size()
        channel.resize_pty(size.columns, size.lines)

    resize()
    old = signal.signal(signal.SIGWINCH, resize)
    try:
        with terminal.raw(sys.stdin.fileno()):
            yield
    finally:
        signal.signal(signal.SIGWINCH, old)


def _forward(channel: paramiko.Channel, deadline: Deadline, escape: bytes | None) -> bool:
    """Copies bytes between the standard streams and the channel until the command ends.

    Returns False as soon as the user types `escape`, even if the VM takes nothing and says nothing.
    Raises DeadlineExceeded, also for a VM that leaves input unread for `ANSWER_SECONDS`.
    """
    source, typed, ended = sys.stdin.fileno(), b"", False
    answer = deadline
    while not channel.exit_status_ready() or channel.recv_ready() or channel.recv_stderr_ready():
        deadline.remaining()
        # A terminal is always read, because of the escape; a file waits for the VM.
        reads = not ended and (escape is not None or not typed)
        ready, _, _ = select.select([channel, source] if reads else [channel], [], [], 0.2)
        _show_output(channel)
        if source in ready:
            data = os.read(source, CHUNK)
            keys, escaped, _ = data.partition(escape) if escape else (data, b"", b"")
            if escaped:
                return False
            if not typed:
                answer = deadline.sooner(ANSWER_SECONDS, "a sign that the VM takes input")
            typed, ended = (typed + keys)[:TYPED_LIMIT], not data
            if ended and not typed:
                channel.shutdown_write()
        if typed and channel.send_ready():
            typed = typed[channel.send(typed) :]
            answer = deadline.sooner(ANSWER_SECONDS, "a sign that the VM takes input")
            if ended and not typed:
                channel.shutdown_write()
        elif typed:
            answer.remaining()
        if channel.closed:
            return True
    return True


def _show_output(channel: paramiko.Channel) -> None:
    for place, take, sign in (
        (1, channel.recv, channel.recv_ready),
        (2, channel.recv_stderr, channel.recv_stderr_ready),
    ):
        while sign():
            data = take(CHUNK)
            while data:
                data = data[os.write(place, data) :]
