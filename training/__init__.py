"""Training the agents' policy from tasks and episodes."""
