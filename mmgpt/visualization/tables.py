"""Tables for the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def percent_table(columns: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> Table:
    """A table of percentages: a line for each name in ``counts``, its number of questions, and its figure per column.

    ``columns`` maps a heading to name -> percent; a name that a column lacks is shown as a dash.
    """
    table = Table()
    table.add_column("")
    for heading in ("questions", *columns):
        table.add_column(heading, justify="right")
    for name, count in counts.items():
        cells = [_cell(column.get(name)) for column in columns.values()]
        table.add_row(name.replace("_", " "), str(count), *cells)
    return table


def print_tables(tables: Mapping[str, Table]) -> None:
    """Print tables under their titles; wide enough for their columns also where the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    for title, table in tables.items():
        console.print("", title, table, sep="\n", highlight=False, markup=False)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
