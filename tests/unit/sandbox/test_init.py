"""The init of the helper VM: the order of its steps, which no running VM shows."""

from importlib.resources import files

INIT = (files("particle_os.sandbox") / "guest/init.sh").read_text()


def test_no_key_is_written_before_the_kernel_uses_the_bytes_of_the_host():
    """Machines that run from one saved memory would share random numbers otherwise."""
    begin = INIT.index("# KEY booted|restored|noticed")
    seeds = [INIT.index(words, begin) for words in ('echo "seed $4 ', 'seed "$4" ')]
    written = INIT.index("echo", INIT.index("umask 077", begin))
    assert begin < min(seeds)
    assert max(seeds) < written
    assert INIT.index('wait "$notice"', begin) < min(seeds)
    for key in ("$5", "$6", "$7"):
        assert INIT.index(key, begin) > written
    # Each way to the seed ends the machine when it fails.
    between = INIT[begin:written]
    assert between.count("|| fail") == 3
