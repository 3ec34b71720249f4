"""The command line: each command parses options, calls one step and renders the result."""
