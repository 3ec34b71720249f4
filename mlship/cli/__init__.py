"""The command line: a command is a paragraph that parses, wires, calls one step and renders."""
