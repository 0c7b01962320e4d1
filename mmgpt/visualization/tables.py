"""Tables for the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def percent_table(columns: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> Table:
    """Table of percentages, with a row for each name in ``counts``: number of questions, then a value per column.

    Args:
        columns: heading -> name -> percent; a missing name is shown as a dash.
        counts: name -> number of questions.
    """
    table = Table()
    table.add_column("")
    for heading in ("questions", *columns):
        table.add_column(heading, justify="right")
    for name, count in counts.items():
        cells = [f"{column[name]:.1f}" if name in column else "–" for column in columns.values()]
        table.add_row(name.replace("_", " "), str(count), *cells)
    return table


def print_tables(tables: Mapping[str, Table]) -> None:
    """Print tables under their titles, 100 characters wide when the output is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    for title, table in tables.items():
        console.print("", title, table, sep="\n", highlight=False, markup=False)
