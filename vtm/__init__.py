"""VTM, the VVC reference software, as an anchor: runs binaries that the user built."""
