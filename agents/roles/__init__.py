"""The roles of the built-in strategies; each file holds one role's prompt, schema and parser side by side."""

from sleuth.agents.role import Role
from sleuth.agents.roles.answerer import ANSWERER
from sleuth.agents.roles.planner import PLANNER
from sleuth.agents.roles.reflector import REFLECTOR
from sleuth.agents.roles.rewriter import REWRITER
from sleuth.agents.roles.searcher import SEARCHER

ROLES: dict[str, Role] = {role.name: role for role in (PLANNER, REWRITER, SEARCHER, REFLECTOR, ANSWERER)}
