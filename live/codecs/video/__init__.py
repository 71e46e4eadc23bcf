"""Codecs of clips: intra frames by a codec of pictures, predicted frames by what was decoded before."""
