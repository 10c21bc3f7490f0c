"""The scripts that count the boots of an update, run in a directory with the files of a system."""

import shutil
import subprocess

import pytest
from particle_agent.contract.inspection import COUNTED_BOOTS
from particle_agent.ostree import boot_counting
from particle_agent.ostree.boot_counting import (
    COUNT_SCRIPT,
    FAILURE_SCRIPT,
    STATE,
    STATE_SCRIPT,
    SUCCESS_SCRIPT,
)
from particle_agent.ostree.boot_menu import BLOCK, BLOCK_BYTES, COUNTER, GENERATOR_TEXT
from particle_agent.ostree.image.automatic_updates import REJECTED

OLD, NEW = "a" * 64 + ".0", "b" * 64 + ".0"
# An editor of a block with a variable a line, which does what grub-editenv(1) does.
EDITOR = """\
#!/bin/sh
block=$1 order=$2
shift 2
case $order in
list) cat "$block" ;;
create) : >"$block" ;;
*)
	for each; do
		sed -i "/^${each%%=*}=/d" "$block"
		[ "$order" = unset ] || echo "$each" >>"$block"
	done
	;;
esac
"""


class System:
    """A system that runs the version OLD, with NEW deployed beside it."""

    def __init__(self, place):
        self.place = place
        self.block = place / BLOCK.lstrip("/")
        self.entries = place / "boot/loader/entries"
        for directory in (self.entries, self.block.parent, place / "programs"):
            directory.mkdir(parents=True, exist_ok=True)
        self.block.touch()
        self.booted = place / "run/ostree-booted"
        self.booted.parent.mkdir(exist_ok=True)
        self.booted.touch()
        self.program("boot-count", self.inside(COUNT_SCRIPT))
        self.program("boot-state", self.inside(STATE_SCRIPT))
        for number, name in enumerate((OLD, NEW)):
            deployment = place / f"sysroot/ostree/deploy/debian/deploy/{name}"
            (deployment / "usr/lib/particle-os").mkdir(parents=True)
            link = place / f"sysroot/ostree/boot.1/debian/k/{number}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(deployment)
        self.menu([0])
        self.program("grub-editenv", EDITOR)
        self.program("systemctl", f'#!/bin/sh\necho systemctl "$@" >>"{place}/orders"\n')
        self.runs(OLD)

    def runs(self, running, default=OLD):
        """Lets ostree(1) mark a version as the one that runs."""
        order = sorted((OLD, NEW), key=lambda name: name != default)
        lines = [f"{'*' if name == running else ' '} debian {name}" for name in order]
        shown = "\n".join(f"{line} (staged)\n    Version: 1" for line in lines)
        self.program(
            "ostree",
            f"#!/bin/sh\n[ \"$2\" != status ] || exec cat <<'end'\n{shown}\nend\n"
            f'echo ostree "$@" >>"{self.place}/orders"\n',
        )

    def program(self, name, text):
        program = self.place / "programs" / name
        program.write_text(text)
        program.chmod(0o755)

    def menu(self, numbers):
        """Writes OSTree's entries; the first number is that of the next boot."""
        shutil.rmtree(self.entries)
        self.entries.mkdir()
        for place, number in enumerate(numbers):
            text = f"title x\noptions quiet ostree=/ostree/boot.1/debian/k/{number} rw\nlinux /v\n"
            (self.entries / f"ostree-{len(numbers) - place}.conf").write_text(text)

    def counts(self, name, text):
        """Gives a version its number of boots."""
        place = self.place / f"sysroot/ostree/deploy/debian/deploy/{name}{COUNTED_BOOTS}"
        place.write_text(text)

    def inside(self, script):
        """A script with the paths of this system."""
        for path in (boot_counting.EDITOR, COUNTER, STATE):
            script = script.replace(path, f"{self.place}/programs/{path.rpartition('/')[2]}")
        for path in ("/boot/", "/sysroot", "/var/lib", "/run/"):
            script = script.replace(path, f"{self.place}{path}")
        return script

    def run(self, script, *arguments):
        """Runs a script on the files of this system; returns what it ordered."""
        orders = self.place / "orders"
        orders.write_text("")
        done = self.done(script, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return orders.read_text().splitlines()

    def done(self, script, *arguments):
        """The end of a script that ran on the files of this system."""
        environment = {"PATH": f"{self.place}/programs:/usr/bin:/bin"}
        argv = ["sh", "-c", self.inside(script), "sh", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True)

    def next_menu(self):
        """OSTree's new entries, with the update first, before it switches to them."""
        self.menu([1, 0])
        loader = self.place / "boot/loader.1"
        loader.mkdir()
        shutil.copytree(self.entries, loader / "entries")
        self.menu([0])
        return ["-o", str(loader / "grub.cfg")]

    @property
    def state(self):
        return dict(line.split("=") for line in self.block.read_text().splitlines())


@pytest.fixture
def system(tmp_path):
    return System(tmp_path)


def test_an_update_is_counted_as_it_asks(system):
    system.menu([1, 0])
    system.counts(NEW, "5\n")
    system.counts(OLD, "2\n")
    system.block.write_text("boot_success=1\nboot_fallback=1\n")
    assert system.run(COUNT_SCRIPT) == []
    assert system.state == {"boot_counter": "5", "boot_success": "0"}


@pytest.mark.parametrize("number", ["0\n", None, "x\n", "12\n", "", "-1\n", "$(reboot)\n"])
def test_an_update_that_asks_for_no_count_has_none(system, number):
    system.menu([1, 0])
    if number is not None:
        system.counts(NEW, number)
    system.block.write_text("boot_success=0\nboot_counter=2\nother=x\n")
    system.run(COUNT_SCRIPT)
    assert system.state == {"other": "x"}


@pytest.mark.parametrize("state", ["", "boot_success=1\n", "boot_success=0\nboot_counter=2\n"])
def test_a_restart_of_the_same_version_changes_no_count(system, state):
    system.menu([0, 1])
    system.counts(OLD, "3\n")
    system.block.write_text(state)
    system.run(COUNT_SCRIPT)
    assert system.block.read_text() == state


def test_a_return_by_hand_is_counted_too(system):
    """The older version can have become unable to start."""
    system.runs(NEW)
    system.menu([0, 1])
    system.counts(OLD, "3\n")
    system.run(COUNT_SCRIPT)
    assert system.state == {"boot_counter": "3", "boot_success": "0"}


def test_the_counter_is_set_before_the_menu_switches(system):
    """A machine that loses its power after the switch has no clean shutdown."""
    system.counts(NEW, "3\n")
    system.run(GENERATOR_TEXT, *system.next_menu())
    assert system.state == {"boot_counter": "3", "boot_success": "0"}


def test_a_menu_whose_update_cannot_be_counted_is_an_error(system):
    """OSTree then keeps the menu that it has."""
    system.program("grub-editenv", "#!/bin/sh\necho read-only >&2\nexit 1\n")
    done = system.done(GENERATOR_TEXT, *system.next_menu())
    assert (done.returncode, done.stderr) == (1, "read-only\n")


def test_a_build_counts_nothing_when_it_writes_the_menu(system):
    system.booted.unlink()
    system.counts(NEW, "3\n")
    system.run(GENERATOR_TEXT, *system.next_menu())
    assert system.state == {}


def test_a_success_does_not_end_the_count_of_the_version_that_comes_next(system):
    system.menu([1, 0])
    system.counts(NEW, "3\n")
    system.block.write_text("boot_success=0\nboot_counter=2\n")
    system.run(SUCCESS_SCRIPT)
    assert system.state == {"boot_counter": "3", "boot_success": "0"}


def test_success_ends_the_count(system):
    system.block.write_text("boot_success=0\nboot_counter=2\nother=x\n")
    assert system.run(SUCCESS_SCRIPT) == []
    assert system.state == {"other": "x", "boot_success": "1"}


def test_after_a_return_the_version_that_runs_is_the_default(system):
    system.block.write_text("boot_success=0\nboot_counter=0\nboot_fallback=1\n")
    system.runs(OLD, default=NEW)
    assert system.run(SUCCESS_SCRIPT) == ["ostree admin set-default 1"]
    assert system.state == {"boot_success": "1"}
    # Automatic updates do not try it again.
    rejected = system.place / REJECTED.lstrip("/")
    assert rejected.read_text() == f"{NEW.partition('.')[0]}\n"


def test_an_image_without_the_editor_does_not_count(system):
    (system.place / "programs/grub-editenv").unlink()
    system.menu([1, 0])
    system.counts(NEW, "3\n")
    for script in (COUNT_SCRIPT, FAILURE_SCRIPT):
        assert system.run(script) == []
    assert system.state == {}


def test_a_version_that_runs_is_not_rejected(system):
    """GRUB tried it once more, because the version before it cannot start either."""
    system.block.write_text("boot_success=0\nboot_counter=0\nboot_fallback=1\n")
    system.runs(NEW, default=NEW)
    system.menu([1, 0])
    assert system.run(SUCCESS_SCRIPT) == []
    assert system.state == {"boot_success": "1"}
    assert not (system.place / REJECTED.lstrip("/")).exists()


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="no grub-editenv")
@pytest.mark.parametrize("damage", [b"", b"# GRUB Environment Block\nboot_suc", b"\0" * 1024, None])
def test_a_damaged_block_is_made_anew(system, damage):
    """A machine may have lost its power while GRUB's own program wrote the block."""
    (system.place / "programs/grub-editenv").unlink()
    (system.place / "programs/grub-editenv").symlink_to(shutil.which("grub-editenv"))
    system.block.unlink()
    if damage is not None:
        system.block.write_bytes(damage)
    assert system.run(FAILURE_SCRIPT) == []
    system.menu([1, 0])
    system.counts(NEW, "5\n")
    system.run(COUNT_SCRIPT)
    assert len(system.block.read_bytes()) == BLOCK_BYTES
    shown = system.run(f"{STATE} list >{system.place}/orders")
    assert shown == ["boot_counter=5", "boot_success=0"]


def test_the_block_is_written_in_its_place(system):
    """GRUB reads the blocks of the file without the journal of the file system."""
    text = "boot_success=0\nother=x\n"
    system.block.write_text(text.ljust(BLOCK_BYTES, "#"))
    system.program("dd", f'#!/bin/sh\necho "$@" >>"{system.place}/orders"\nexec /bin/dd "$@"\n')
    before = system.block.stat()
    (order,) = system.run(f"{STATE} boot_success=1 boot_counter=3 missing")
    assert order.endswith(f" of={system.block} bs={BLOCK_BYTES} conv=notrunc,fsync status=none")
    assert system.block.read_text().startswith("other=x\nboot_success=1\nboot_counter=3\n")
    after = system.block.stat()
    assert (after.st_ino, after.st_blocks) == (before.st_ino, before.st_blocks)
    assert list((system.place / "run").iterdir()) == [system.booted]


@pytest.mark.parametrize(
    ("state", "restarts"),
    [
        ("boot_success=0\nboot_counter=2\n", True),
        ("boot_success=0\nboot_counter=0\nboot_fallback=1\n", False),
        ("boot_success=1\n", False),
        ("", False),
    ],
)
def test_only_an_update_that_is_counted_restarts_the_machine(system, state, restarts):
    system.block.write_text(state)
    orders = system.run(FAILURE_SCRIPT)
    assert orders == (["systemctl --no-block reboot"] if restarts else [])
    assert system.block.read_text() == state


def test_a_version_without_a_count_still_counts_the_next_one(target):
    boot_counting.install(target, 0)
    assert target.read(COUNTED_BOOTS) == "0\n"
    assert target.mode("/usr/lib/particle-os/boot-count") == 0o755
    wants = "/usr/lib/systemd/system/multi-user.target.wants"
    for name in ("count", "success"):
        assert target.is_link(f"{wants}/particle-os-boot-{name}.service")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("quiet", "quiet panic=10"), ("panic=0 quiet", "panic=0 quiet")],
)
def test_a_panic_restarts_unless_the_recipe_says_otherwise(line, expected):
    assert boot_counting.arguments(line) == expected
