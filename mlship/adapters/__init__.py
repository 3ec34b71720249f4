"""How the world is reached: one package for each port."""
