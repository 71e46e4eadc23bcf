"""The 24 Kodak photos: fetched once, checked by hash, used for evaluation only."""
