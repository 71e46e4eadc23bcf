"""Training: data, losses, one engine, one entry a stage. Imports ``live``; never imported by it."""
