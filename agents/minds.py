"""What policies do for knowledge bases, by the names that a sources file gives them; a policy is opened when named."""

from __future__ import annotations

from sleuth.retrieval.rubric import Judge
from sleuth.retrieval.sources import Minds
from sleuth.retrieval.tables import WriteSQL


def minds() -> Minds:
    """Judges and writers of SQL that are policies, named as ``--policy`` names them."""
    return Minds(_judge, _writer)


def _judge(spec: str) -> Judge:
    from sleuth.agents import rubric
    from sleuth.agents.policy import open_policy

    return rubric.judge(open_policy(spec))


def _writer(spec: str) -> WriteSQL:
    from sleuth.agents import sql
    from sleuth.agents.policy import open_policy

    return sql.writer(open_policy(spec))
