"""Commands, one file for each part of the work; they import what is heavy when they run."""
