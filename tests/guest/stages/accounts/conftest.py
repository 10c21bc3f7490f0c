import pytest


@pytest.fixture
def debian(target):
    target.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:\n")
    target.write("/etc/group", "root:x:0:\nsudo:x:27:\nadm:x:4:\nold:x:1000:\nstaff:x:50:\n")
    for program in ("/bin/bash", "/usr/bin/sudo", "/usr/bin/fish"):
        target.write(program, "")

    def useradd(command):
        name = command.argv[-1]
        home = f"/home/{name}"
        if "--home-dir" in command.argv:
            home = command.argv[command.argv.index("--home-dir") + 1]
        line = f"{name}:x:1001:1002::{home}:/bin/bash\n"
        target.write("/etc/passwd", target.read("/etc/passwd") + line)

    target.when("useradd", useradd)
    return target
