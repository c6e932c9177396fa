"""Tunes encoders for long texts: new rows for a position table, or a rotary student."""
