"""The load generator: processes that send requests when they are due, and measure."""
