"""mutmut with decorated functions included: `python -m tests.mutation run` for `mutmut run`.

mutmut 3 leaves out every function with a decorator, since a decorator may do something when the
copies of the function are defined. Here these are the losses (`@register_loss` registers a name)
and properties: the very formulas to be tested. So the copies are made without the decorator, and
only the switch between them keeps it. No test; nothing of the package imports this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import libcst as cst
from mutmut.__main__ import cli
from mutmut.mutation import file_mutation

_arrange = file_mutation.function_trampoline_arrangement


class DecoratedToo(file_mutation.MutationVisitor):
    """mutmut's visitor, to which a decorated function is as good as any other."""

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            node = node.with_changes(decorators=())
        return super()._skip_node_and_children(node)


def copies_without_decorators(
    function: cst.FunctionDef,
    mutants: Iterable[file_mutation.Mutation],
    class_name: str | None,
) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[str]]:
    """Return mutmut's declarations, switch and copies, lookup and names; see mutmut."""
    plain = function.with_changes(decorators=())
    declared, (switch, *copies), lookup, names = _arrange(plain, mutants, class_name)
    switch = switch.with_changes(decorators=(*function.decorators, *switch.decorators))
    return declared, [switch, *copies], lookup, names


if __name__ == "__main__":
    file_mutation.MutationVisitor = DecoratedToo
    file_mutation.function_trampoline_arrangement = copies_without_decorators
    cli()
