"""How virtual machines of Java run that live for seconds."""

from typing import Final

QUICK: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
"""Options of `java`: threads that compile what runs long take most of the time of a short life."""
