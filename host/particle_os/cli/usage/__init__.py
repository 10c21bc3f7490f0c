"""How commands are called: their order, groups of options, settings, completion, manual pages."""
