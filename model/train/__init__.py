"""Tunes encoders for long texts: trains new rows of a position table, or a student with rotary positions."""
