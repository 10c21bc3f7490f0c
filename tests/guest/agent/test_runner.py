"""Which stages work ahead of their turn."""

from particle_agent.agent import runner


def test_only_stages_that_find_the_system_as_it_is_work_ahead(target):
    done = []

    class Noting:
        def __init__(self, name, only_configures):
            self.name, self.only_configures = name, only_configures

        def ahead(self, target):
            done.append(self.name)

    stages = [Noting("users", True), Noting("locale", True), Noting("files", False)]
    runner._do_ahead([*stages, Noting("late", True)], target)
    assert done == ["users", "locale"]
