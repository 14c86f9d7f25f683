"""The nets in numbers: nets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vggrepro.commands.options import AsJson, Device, TableFormat, complete_net, complete_preset, machine_of

if TYPE_CHECKING:
    from vggrepro.paper import Architecture
    from vggrepro.results.beyond import BeyondTable


def nets(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NET", autocompletion=complete_net, help="Show the layers of these nets."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time a training step: of NET, or of A and A-LRN (claim 1).")
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            autocompletion=complete_preset,
            help="The preset that gives the nets their sizes.",
        ),
    ] = "paper",
    classes: Annotated[
        int, typer.Option("--classes", min=1, help="Number of classes, the size of the last layer.")
    ] = 1000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images of a measured step.")] = 4,
    device: Device = "auto",
    format_: AsJson = TableFormat.table,
) -> None:
    """Show the nets in numbers: receptive fields, feature maps, parameters, multiply-adds.

    Without NET: a row for each net, and the small filters of Sect. 2.3. With NET: its layers.
    """
    from vggrepro import paper, recipe
    from vggrepro.report import terminal
    from vggrepro.report.markdown import beyond_markdown
    from vggrepro.report.records import json_text
    from vggrepro.results.nets import all_nets, layers_table, nets_table, stacks_table

    values = recipe.load(preset)
    known = all_nets(paper.Architecture("A", classes, *values.geometry))
    wanted = [net for name in dict.fromkeys(names or ()) for net in known if net.net == paper.check_net(name)]
    tables = [layers_table(net) for net in wanted] or [nets_table(known), stacks_table()]
    if measure:
        tables.append(_measured(wanted or [net for net in known if net.net in ("A", "A-LRN")], device, batch))
    if format_ is TableFormat.json:
        print(json_text({table.name: table.frame for table in tables}))
    elif terminal.wanted():
        terminal.show(terminal.sections(tables))
    else:
        print("\n\n".join(beyond_markdown(table, level=2) for table in tables))


def _measured(nets: list[Architecture], device: str, batch: int) -> BeyondTable:
    import dataclasses

    import pandas as pd

    from vggrepro.nets.measure import costs
    from vggrepro.results.nets import costs_table
    from vggrepro.system import devices

    machine = machine_of(device, "fp32", 0)
    found = pd.DataFrame(map(dataclasses.asdict, costs(nets, machine.device, batch)))
    return costs_table(found, f"{devices.describe(machine.device)}, {batch} images, fp32")
