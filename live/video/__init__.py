"""Clips: video in and out by ffmpeg, the clip format, and the codecs of frames that follow one another."""
