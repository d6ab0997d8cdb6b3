"""Questions that a search can answer, one a file: `raymask tune NAME preset=... budget=...`."""
