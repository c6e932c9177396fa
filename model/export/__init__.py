"""Turns a checkpoint into a model directory that longembed-server loads. README.md beside this file is the manual."""
