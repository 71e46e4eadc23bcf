"""Commands around the library: importing reference checkpoints, and the shell scripts beside this file."""
