"""Documents of mlship in a container registry: how ledgers and stores of that kind reach it."""
