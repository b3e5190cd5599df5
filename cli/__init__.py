"""The command line: one file a command; bodies import the tool and call it."""
