"""How good predictions are, and what of a release is better or worse than the champion."""
