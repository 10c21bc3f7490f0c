import pytest
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading
from particle_os.recipe.passes.unit_names import known_units

RECIPE = """\
name: test
base-image: {base}
stages:
  - {{type: apt, packages: [linux-image-cloud-amd64, systemd-sysv, openssh-server]}}
{stages}
  - type: services
    {option}: [{unit}]
  - {{type: qemu}}
"""


def remarks(
    tmp_path, unit, stages="", base="mmdebstrap:trixie", code="unknown-unit", option="enable"
):
    recipe = tmp_path / "r.yml"
    stages = "\n".join(f"  - {stage}" for stage in stages.splitlines())
    recipe.write_text(RECIPE.format(unit=unit, stages=stages, base=base, option=option))
    try:
        notes, problems = loading.load(recipe).notes, ()
    except InvalidDocument as invalid:
        notes, problems = invalid.notes, invalid.problems
    return [
        (kind, p.message, p.hint)
        for kind, found in (("error", problems), ("note", notes))
        for p in found
        if p.code == code
    ]


@pytest.mark.parametrize(
    "unit",
    ["ssh", "ssh.service", "sshd.service", "getty@tty2.service", "fstrim.timer", "srv.mount",
     "display-manager"],
)  # fmt: skip
def test_units_of_debian_and_their_aliases_are_known(tmp_path, unit):
    assert remarks(tmp_path, unit) == []


def test_a_misspelt_unit_is_an_error_with_the_unit_of_a_package_of_the_recipe(tmp_path):
    ((kind, message, hint),) = remarks(tmp_path, "shs.service")
    assert kind == "error"
    assert "no package of Debian is known to have the unit 'shs.service'" in message
    assert "'ssh.service'" in hint


@pytest.mark.parametrize("unit", ["ctrl-alt-del.target", "entirely-my-own.service"])
def test_a_unit_that_is_like_no_other_is_only_a_note(tmp_path, unit):
    """The list lacks links such as ctrl-alt-del.target, which systemd has."""
    message = f"no package of Debian is known to have the unit '{unit}'"
    message += "; a stage 'files' before this one writes a unit of your own"
    assert remarks(tmp_path, unit) == [("note", message, None)]


@pytest.mark.parametrize(
    "stages",
    ["{type: run, script: x}", "{type: apt, debs: [x.deb]}",
     "{type: files, files: [{path: /etc, source: tree}]}",
     "{type: sources, repositories: [{name: a, uri: 'http://mirror.example.org', suites: [a],"
     " components: [main], keyring: /a.gpg}]}"],
)  # fmt: skip
def test_where_another_stage_may_bring_it_there_is_only_a_question(tmp_path, stages):
    (tmp_path / "x.deb").write_text("")
    (tmp_path / "tree").mkdir()
    ((kind, message, _),) = remarks(tmp_path, "sssh.service", stages)
    assert (kind, message) == ("note", "is the unit 'sssh.service' meant to be 'ssh.service'?")
    assert remarks(tmp_path, "entirely-my-own.service", stages) == []


def test_another_base_may_have_units_of_its_own(tmp_path):
    ((kind, _, _),) = remarks(tmp_path, "sssh.service", base="mmdebstrap:sid")
    assert kind == "note"


def test_units_that_the_recipe_writes_are_known(tmp_path):
    stages = """\
{type: files, files: [{path: /etc/systemd/system/hello-1.service, content: x}]}
{type: files, links: [{path: /etc/systemd/system/hello-2.service, to: x}]}
{type: services, timers: [{name: hello-3, on-calendar: daily, command: ["true"]}]}"""
    for number in (1, 2, 3):
        assert remarks(tmp_path, f"hello-{number}", stages) == []
    ((kind, _, hint),) = remarks(tmp_path, "helo-1.service", stages)
    assert (kind, hint) == ("error", "did you mean 'hello-1.service'?")


@pytest.mark.parametrize("option", ["user-enable", "user-disable", "user-mask"])
def test_units_of_users_are_other_units(tmp_path, option):
    """The system has an ssh.service, and users have an ssh-agent.service, of the same package."""
    assert remarks(tmp_path, "ssh-agent.service", option=option) == []
    ((_, message, _),) = remarks(tmp_path, "ssh.service", option=option)
    assert "the unit of users 'ssh.service'" in message
    ((kind, _, hint),) = remarks(tmp_path, "ssh-agnet.service", option=option)
    assert (kind, hint) == ("error", "did you mean 'ssh-agent.service'?")
    own = "{type: files, files: [{path: /etc/systemd/user/hello.service, content: x}]}"
    assert remarks(tmp_path, "hello.service", own, option=option) == []
    ((kind, _, _),) = remarks(tmp_path, "hello.service", own)
    assert kind == "note"


def test_a_unit_of_users_needs_its_package(tmp_path):
    ((_, message, _),) = missing(tmp_path, "podman.socket", option="user-enable")
    assert message == "no stage before installs 'podman', which has the unit 'podman.socket'"


def test_the_table_has_units_and_aliases():
    known = known_units()
    assert known.packages["nginx.service"] == ("nginx-common",)
    assert known.aliases["sshd.service"] == "ssh.service"
    assert len(known.packages) > 3000
    assert not known.aliases.keys() & known.packages.keys()


def missing(*arguments, **options):
    return remarks(*arguments, **options, code="missing-unit")


@pytest.mark.parametrize(
    ("unit", "package"),
    [("nginx", "nginx-common"), ("docker.service", "docker.io"), ("smbd", "samba")],
)
def test_a_unit_of_a_package_that_no_stage_installs_is_noted(tmp_path, unit, package):
    ((kind, message, _),) = missing(tmp_path, unit)
    assert kind == "note"
    assert message.startswith(f"no stage before installs '{package}', which has the unit '{unit}")
    assert message.endswith("'")
    stage = "{type: apt, packages: [postfix]}"
    ((_, message, _),) = missing(tmp_path, unit, stage)
    assert message.endswith(", unless another package brings it")


@pytest.mark.parametrize(
    "unit",
    ["ssh", "sshd.service", "getty@tty1", "fstrim.timer", "systemd-networkd", "apt-daily.timer",
     "systemd-timesyncd", "entirely-my-own"],
)  # fmt: skip
def test_a_unit_that_the_packages_of_the_recipe_may_bring_is_not_noted(tmp_path, unit):
    assert missing(tmp_path, unit) == []


@pytest.mark.parametrize(
    "stage",
    ["{type: apt, packages: [nginx]}", "{type: apt, packages: ['nginx-light=1.2']}",
     "{type: run, script: apt-get install nginx}", "{type: apt, packages: [task-web-server]}",
     "{type: files, links: [{path: /etc/systemd/system/nginx.service, to: /x}]}"],
)  # fmt: skip
def test_where_a_stage_may_bring_the_unit_there_is_no_note(tmp_path, stage):
    assert missing(tmp_path, "nginx", stage) == []
    assert missing(tmp_path, "nginx", base="mmdebstrap:sid") == []
