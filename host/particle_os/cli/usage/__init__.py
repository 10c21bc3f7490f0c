"""The order of commands, groups of options, settings, completion, and manual pages."""
