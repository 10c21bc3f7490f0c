"""No message shows a value that its type marks as confidential, whatever else is wrong."""

import itertools
import json

import pytest
from click.testing import CliRunner
from particle_os.cli import cli
from particle_os.errors import InvalidDocument
from particle_os.recipe import loading

from tests.canary import canary_word

# In each stage, "@" is the place of a value that no message may show.
PLACES = {
    "password-hash": "  - type: users\n    users:\n      - {name: a, password-hash: @}\n",
    "password-secret": "  - type: users\n    users:\n      - {name: a, password-secret: @}\n",
    "password": "  - type: users\n    users:\n      - {name: a, password: @}\n",
    "older password_hash": "  - type: users\n    options:\n"
    "      users: [{name: a, password_hash: @}]\n",
    "authorized key": "  - type: users\n    users:\n      - {name: a, ssh-authorized-keys: [@]}\n",
    "authorized keys": "  - type: users\n    users:\n      - {name: a, ssh-authorized-keys: @}\n",
    "line of passwd": "  - type: users\n    users: [@]\n",
    "lines of passwd": "  - type: users\n    users: @\n",
    "debconf": "  - type: apt\n    debconf:\n"
    "      - {package: pp, question: pp/q, type: password, value: @}\n",
    "debconf of an unknown type": "  - type: apt\n    debconf:\n"
    "      - {package: pp, question: pp/q, type: passphrase, value: @}\n",
    "debconf without a type": "  - type: apt\n    debconf:\n"
    "      - {package: pp, question: pp/q, value: @}\n",
    "debconf with two types": "  - type: apt\n    debconf:\n"
    "      - {package: pp, question: pp/q, type: string, type: password, value: @}\n",
    "line of debconf": "  - type: apt\n    debconf: [@]\n",
    "lines of debconf": "  - type: apt\n    debconf: @\n",
    "secrets": "  - type: run\n    command: [a]\n    secrets: @\n",
    "secret": "  - type: run\n    command: [a]\n    secrets: [@]\n",
    "name of a secret": "  - type: run\n    command: [a]\n    secrets: [{name: @, env: A}]\n",
    "variable of a secret": "  - type: run\n    command: [a]\n    secrets: [{name: a, env: @}]\n",
    "file of a secret": "  - type: run\n    command: [a]\n    secrets: [{name: a, file: @}]\n",
    "mirror": "  - type: sources\n    repositories:\n"
    "      - {name: m, uris: ['http://me:@@m.example/debian'], suites: [trixie]}\n",
}
VALUES = {
    "word": "{}",
    "words": "'root passwd/root-password password {}'",
    "hash": "'$6$salt${}'",
    "quoted": '"\\t\'{}\\""',
    "too long": f"'{'x' * 5000}{{}}'",
    "tagged": "!{} x",
    "tagged with a handle": "!{}!x x",
    "mapping": "{{'a': '{}'}}",
    "list": "[{}, {}]",
    "private key": "'-----BEGIN OPENSSH PRIVATE KEY----- {}'",
    "URL": "'https://me:{}@m.example/'",
}
FAULTS = {
    "nothing": "name: x\nstages:\n%s  - type: qemu\n",
    "no disk": "name: x\nstages:\n%s",
    "unknown key": "name: x\nnaem: y\nstages:\n%s  - type: qemu\n",
    "unknown stage": "name: x\nstages:\n%s  - type: nonesuch\n",
    "unknown variable": "name: x\ndescription: ${nonesuch}\nstages:\n%s  - type: qemu\n",
    "no such file": "name: x\nstages:\n%s  - include: nonesuch.yml\n",
    "repeated key": "name: x\nname: y\nstages:\n%s  - type: qemu\n",
    "an anchor": "name: &a x\nstages:\n%s  - type: qemu\n",
}


def output_of(path, **options):
    """All output about a recipe."""
    try:
        notes, problems = loading.load(path, **options).notes, ()
    except InvalidDocument as invalid:
        notes, problems = invalid.notes, invalid.problems
    kept = (*notes, *problems)
    return "\n".join(f"{one}\n{one.annotation('error')}\n{one!r}" for one in kept)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_no_message_shows_a_confidential_value(tmp_path, place):
    path = tmp_path / "recipe.yml"
    shown = 0
    for value, fault in itertools.product(VALUES.values(), FAULTS.values()):
        canary = canary_word()
        written = value.format(*[canary] * 2)
        stage = PLACES[place].replace("'http://me:@@m", f"'http://me:{canary}@m")
        if place != "mirror":
            stage = stage.replace("@", written)
        path.write_text(fault % stage)
        text = output_of(path)
        assert canary not in text, text
        shown += bool(text)
    assert shown > len(VALUES)


@pytest.mark.parametrize("place", [name for name in PLACES if name != "mirror"])
@pytest.mark.parametrize("declared", ["{type: string}", "{type: integer, default: 5000}", "none"])
def test_a_variable_in_a_confidential_value_is_shown_nowhere(tmp_path, place, declared):
    path = tmp_path / "recipe.yml"
    stage = PLACES[place].replace("@", "'${pw}'")
    other = "  - {type: hostname, hostname: '${pw}'}\n"
    other += "  - {type: files, directories: [{path: '${pw}'}]}\n"
    for fault in FAULTS.values():
        canary = canary_word() + " !"
        if declared == "none":
            path.write_text(f"variables: {{pw: '{canary}'}}\n" + fault % (stage + other))
            text = output_of(path)
        else:
            path.write_text(f"variables: {{pw: {declared}}}\n" + fault % (stage + other))
            text = output_of(path, given={"pw": canary})
        assert text
        assert canary.split()[0] not in text, text


def test_an_ordinary_answer_and_its_variable_are_shown(tmp_path):
    path = tmp_path / "recipe.yml"
    stage = PLACES["debconf"].replace("password", "boolean").replace("@", "true")
    path.write_text(FAULTS["nothing"] % stage)
    assert "value: expected a text of one line, found true (put it in quotes)" in output_of(path)
    stage = PLACES["debconf"].replace("password", "string").replace("@", "'${z}'")
    stage += "  - {type: timezone, zone: '${z}'}\n"
    path.write_text("variables: {z: not-a-zone}\n" + FAULTS["nothing"] % stage)
    assert "not-a-zone" in output_of(path)


def test_what_is_too_large_is_reported_without_the_value_of_a_variable(tmp_path):
    canary = canary_word()
    # The limit on size takes effect before the pass that finds confidential variables.
    uses = "".join("  - {type: run, command: ['${big}']}\n" for _ in range(30))
    path = tmp_path / "recipe.yml"
    path.write_text(
        f"variables: {{pin: {{type: integer}}, big: {'x' * 60000}}}\nname: x\nstages:\n{uses}"
        "  - {type: users, users: [{name: a, password-hash: '${pin}'}]}\n"
    )
    text = output_of(path, given={"pin": canary})
    assert "too large" in text
    assert "expected an integer" in text
    assert canary not in text


@pytest.mark.parametrize("arguments", [
    ("validate",), ("validate", "--json"), ("validate", "--format", "github"),
    ("inspect",), ("inspect", "--json"), ("build", "--dry-run"), ("build", "--dry-run", "--json"),
])  # fmt: skip
@pytest.mark.parametrize("right", [True, False])
def test_no_command_shows_a_confidential_value(tmp_path, arguments, right):
    canaries = [canary_word() for _ in range(3)]
    path = tmp_path / "recipe.yml"
    path.write_text(
        "name: x\nvariables: {pw: {type: string}}\nstages:\n"
        "  - type: apt\n    packages: [linux-image-amd64, systemd-sysv]\n"
        f"    debconf: [{{package: pp, question: pp/q, type: password, value: {canaries[0]}}}]\n"
        f"  - type: users\n    users: [{{name: a, password-hash: '$6$x${canaries[1]}'}}]\n"
        "  - type: users\n    users: [{name: b, password-hash: '$6$x$a${pw}'}]\n"
        f"  - type: {'qemu' if right else 'quemu'}\n"
    )
    command, *options = arguments
    done = CliRunner().invoke(cli, [command, str(path), *options, "--set", f"pw={canaries[2]}"])
    assert done.exit_code == (0 if right else 2), done.output
    for canary in canaries:
        assert canary not in done.output


@pytest.mark.parametrize("option", ["--mirror", "--base", "--apt-proxy"])
def test_no_option_shows_the_credentials_in_a_url(tmp_path, option):
    canary = canary_word()
    path = tmp_path / "recipe.yml"
    path.write_text(
        "name: x\nstages:\n  - type: apt\n    packages: [linux-image-amd64, systemd-sysv]\n"
        "  - type: qemu\n"
    )
    for url in (
        f"http://me:{canary}@m.example/x y", f"https://{canary}@m.example/x y",
        f"http:me:{canary}@m.example/x y", f"me:{canary}@m.example", f"me:{canary}@@m.example y",
        f"http://me:a'{canary}@m.example/x", f"http://me:a\"{canary}\"@m.example/x",
    ):  # fmt: skip
        done = CliRunner().invoke(cli, ["build", str(path), "--dry-run", option, url])
        assert done.exit_code == 2, done.output
        assert canary not in done.output


def test_a_value_without_its_variable_is_not_shown(tmp_path):
    canary = canary_word()
    for text in (f"={canary}", canary, f"pw:{canary}"):
        done = CliRunner().invoke(cli, ["validate", str(tmp_path / "r.yml"), "--set", text])
        assert done.exit_code == 2
        assert "expected NAME=VALUE" in done.output
        assert canary not in json.dumps(done.output)


@pytest.mark.parametrize("given", ["pw:@=x", "pw @=x"])
def test_a_value_before_the_sign_is_not_shown(tmp_path, given):
    canary = canary_word()
    path = tmp_path / "recipe.yml"
    path.write_text(FAULTS["nothing"] % "")
    options = ["--set", given.replace("@", canary)]
    for arguments in (options, options * 2):
        done = CliRunner().invoke(cli, ["validate", str(path), *arguments])
        assert done.exit_code == 2
        assert canary not in done.output


@pytest.mark.parametrize("url", ["me:@@host", "http:me:@@host", "http://me:'@'@host/x"])
def test_no_message_shows_the_credentials_of_a_base_image(tmp_path, url):
    canary = canary_word()
    path = tmp_path / "recipe.yml"
    base = json.dumps(url.replace("@", canary, 1))
    path.write_text(f"base-image: {base}\n" + FAULTS["nothing"] % "")
    text = output_of(path)
    assert "base-image" in text
    assert canary not in text


@pytest.mark.parametrize("answer", [
    "{type: string, type: password, package: aa, question: a/b, value: [@]}",
    "{type: string, type: password, package: aa, question: a/b, value: 'a\\n@'}",
    "{type: 'password @', package: aa, question: a/b, value: x}",
    "{type: password, package: 'A @', question: a/b, value: x}",
    "{type: password, package: aa, question: 'a b @', value: x}",
    "{type: password, package: aa, question: a/b, value: 'ab${@}'}",
    "{type: password, package: aa, question: a/b, value: 'ab${x@}'}",
    "{type: password, package: aa, question: a/b, value: 'ab${A @}'}",
])  # fmt: skip
@pytest.mark.parametrize("fault", FAULTS)
def test_no_message_shows_a_wrong_answer(tmp_path, answer, fault):
    canary = canary_word()
    path = tmp_path / "recipe.yml"
    path.write_text(
        FAULTS[fault] % f"  - {{type: apt, debconf: [{answer.replace('@', canary)}]}}\n"
    )
    text = output_of(path)
    assert "recipe.yml" in text
    assert canary not in text


@pytest.mark.parametrize("stage", [
    "{type: users, users: [{name: a, password-hash:$6$@}]}",
    "{type: users, users: [{name: a, password:@}]}",
    "{type: users, users: [{name: a, 'password @': x}]}",
    "{type: users, users: [{name: a, password:@, password:@}]}",
    "{type: users, users: [{a:@}, {password=@: x}]}",
    "{type: apt, debconf: [{package: aa, question: a/b, type: password, value:@}]}",
    "{type: run, command: [a], environment: {T:@}}",
    "{type: run, command: [a], environment: {T:@: 5}}",
    "{type: run, command: [a], secrets: [{name:@}]}",
    "{type:@}",
    "{include: nonesuch.yml, token:@}",
    "{type: users, users: ['@:x']}",
])  # fmt: skip
def test_no_message_shows_what_follows_a_key_without_a_blank(tmp_path, stage):
    canary = canary_word()
    path = tmp_path / "recipe.yml"
    path.write_text(FAULTS["nothing"] % f"  - {stage.replace('@', canary)}\n")
    text = output_of(path)
    assert "recipe.yml" in text
    assert canary not in text


@pytest.mark.parametrize("variables", [
    "{pw:@}", "{pw:@: }", "{pw=@: {type: string}}", "{pw: {type:@}}", "{pw: {default:@}}",
])  # fmt: skip
def test_no_message_shows_what_follows_a_variable_without_a_blank(tmp_path, variables):
    canary = canary_word()
    path = tmp_path / "recipe.yml"
    declared = f"variables: {variables.replace('@', canary)}\n"
    path.write_text(declared + FAULTS["nothing"] % "  - {type: hostname, hostname: '${pw}'}\n")
    text = output_of(path)
    assert "recipe.yml" in text
    assert canary not in text


@pytest.mark.parametrize("tagged", ["!@", "!@ x", "!@!x x", "!<@> x", "!!@ x"])
def test_no_message_shows_a_tag(tmp_path, tagged):
    path = tmp_path / "recipe.yml"
    for place in ("description: {}\n", "  - {{type: hostname, hostname: {}}}\n"):
        canary = canary_word()
        written = place.format(tagged.replace("@", canary))
        top, stage = ("", written) if written.startswith(" ") else (written, "")
        path.write_text(top + FAULTS["nothing"] % stage)
        text = output_of(path)
        assert "[bad-tag]" in text or "[yaml]" in text
        assert canary not in text


def test_an_unknown_key_is_named(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(FAULTS["nothing"] % "  - {type: users, users: [{name: a, password:x}]}\n")
    assert "unknown key 'password:…' (did you mean 'password'?)" in output_of(path)
    path.write_text(f"{'k' * 60}: x\n" + FAULTS["nothing"] % "")
    assert f"unknown key '{'k' * 40}…'" in output_of(path)


# In each recipe, "@" is the place of a path.
PATHS = {
    "keys of a user": "  - type: users\n    users:\n"
    "      - {name: a, ssh-authorized-keys-file: @}\n",
    "source": "  - type: files\n    files: [{path: /a, source: @}]\n",
    "include": "  - include: @\n",
    "debs": "  - type: apt\n    debs: [@]\n",
    "secret": "  - type: run\n    command: [a]\n    secrets: [{name: t, file: @}]\n",
}
PASTED = {
    "OpenSSH": '"-----BEGIN OPENSSH PRIVATE KEY-----\\n{}\\n-----END OPENSSH PRIVATE KEY-----"',
    "folded": "'-----BEGIN PRIVATE KEY----- {} -----END PRIVATE KEY-----'",
    "absolute": "'/-----BEGIN PRIVATE KEY----- {}'",
    "age": "AGE-SECRET-KEY-{}",
    "body": "b3BlbnNzaC1rZXkt{}",
    "lines": '"abc\\n{}\\nabc"',
    "long": f"'{'x' * 260}{{}}'",
}


@pytest.mark.parametrize("place", PATHS)
@pytest.mark.parametrize("pasted", PASTED)
@pytest.mark.parametrize("fault", ["nothing", "unknown key"])
def test_no_message_shows_a_key_in_place_of_a_path(tmp_path, place, pasted, fault):
    canary = canary_word()
    path = tmp_path / "recipe.yml"
    path.write_text(FAULTS[fault] % PATHS[place].replace("@", PASTED[pasted].format(canary)))
    text = output_of(path)
    assert canary not in text, text
    done = CliRunner().invoke(cli, ["build", str(path), "--dry-run"])
    assert canary not in done.output, done.output


def test_a_key_in_place_of_a_path_is_named(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(FAULTS["nothing"] % PATHS["source"].replace("@", "AGE-SECRET-KEY-1X"))
    assert "a private key: No such file or directory" in output_of(path)
    path.write_text(FAULTS["nothing"] % PATHS["source"].replace("@", "a-file"))
    assert "a-file: No such file or directory" in output_of(path)
