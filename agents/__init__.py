"""Research agents: policies, tools, roles, strategies, the graph, and the episodes that runs leave behind."""
