"""Sleuth: local datastores from web-scale text, research agents over them, answers whose every citation is verified."""
