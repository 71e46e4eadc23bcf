"""Testing: measuring autoencoders, codecs and their peers. Imports ``live``; never imported by it."""
