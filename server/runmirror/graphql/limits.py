"""What one GraphQL request may ask for; the numbers are MLflow's, except the length of the text."""

from collections.abc import Iterator

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

MAX_TOKENS = 2000  # the longest document of MLflow's pages has some 120
MAX_CHARACTERS = 100_000
MAX_DEPTH = 10
MAX_FIELDS = 1000
MAX_ROOT_FIELDS = 10
MAX_ALIASES = 10  # within one selection

_Fragments = dict[str, FragmentDefinitionNode]


def check_limits(document: DocumentNode) -> None:
    """Raise `GraphQLError` for a document that asks too much at once: deep, wide, or the same thing many times."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    fields = root_fields = 0
    waiting = [(node.selection_set, 1) for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    while waiting:
        selections, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise GraphQLError(f"The query is nested deeper than {MAX_DEPTH} levels.")
        level = list(_fields(selections, fragments))
        fields += len(level)
        root_fields += len(level) if depth == 1 else 0
        if fields > MAX_FIELDS:
            raise GraphQLError(f"The query selects more than {MAX_FIELDS} fields.")
        if root_fields > MAX_ROOT_FIELDS:
            raise GraphQLError(f"The query has more than {MAX_ROOT_FIELDS} root fields.")
        if sum(field.alias is not None for field in level) > MAX_ALIASES:
            raise GraphQLError(f"A selection of the query has more than {MAX_ALIASES} aliases.")
        waiting += [(field.selection_set, depth + 1) for field in level if field.selection_set]


def _fields(selections: SelectionSetNode, fragments: _Fragments) -> Iterator[FieldNode]:
    """The fields of one level, those of its fragments too, each fragment once."""
    spread: set[str] = set()
    waiting = list(selections.selections)
    while waiting:
        node = waiting.pop()
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, FragmentSpreadNode):
            name = node.name.value
            if name in fragments and name not in spread:
                spread.add(name)
                waiting += fragments[name].selection_set.selections
        elif isinstance(node, InlineFragmentNode):
            waiting += node.selection_set.selections
