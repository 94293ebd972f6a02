"""A policy as a writer of SQL: it reads a question and the schemas of some tables, and writes one SELECT over them.

What it writes is a stranger's: `retrieval.tables` runs it behind its guard or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from sleuth.agents.calling import Caller
from sleuth.agents.records import JsonSchema, Message, Policy, Sampling
from sleuth.agents.role import parse_object, strings
from sleuth.retrieval.tables import Table, WriteSQL

PROMPT = """Write one SELECT for DuckDB whose rows answer the question, with the names of what they are about. \
Write nothing where the tables cannot answer.
Example table: cities("name" VARCHAR, "country" VARCHAR, "people" BIGINT), 3 rows; country: France, Germany
Example question: How many people live in the cities of France?
Example reply: {"sql":"SELECT country, sum(people) AS people FROM cities WHERE country = 'France' GROUP BY country"}"""
MAX_TOKENS = 200
SAMPLES = 5
"""Values of a column that are shown."""


def described(table: Table) -> str:
    columns = ", ".join(f'"{name}" {kind}' for name, kind in table.columns.items())
    samples = "; ".join(f"{name}: {', '.join(values[:SAMPLES])}" for name, values in table.samples.items())
    return " ".join(f"{table.name}({columns}), {table.rows} rows; {samples}".split())


def user(question: str, tables: Sequence[Table]) -> str:
    return "\n".join([*(f"Table: {described(table)}" for table in tables), f"Question: {question}"])


def schema() -> JsonSchema:
    return {
        "type": "object",
        "properties": {"sql": {"type": "string"}},
        "required": ["sql"],
        "additionalProperties": False,
    }


def read(text: str) -> str:
    """The SELECT, or nothing where the reply holds none."""
    return next(iter(strings(parse_object(text).get("sql"))), "")


def writer(policy: Policy) -> WriteSQL:
    """The writer of SQL that a policy is, greedy."""
    call = Caller(policy)

    def write(question: str, tables: Sequence[Table]) -> str:
        messages = (Message("system", PROMPT), Message("user", user(question, tables)))
        (reply,) = call([(messages, Sampling(max_tokens=MAX_TOKENS), schema())])
        return read(reply.text)

    return write
