"""Where the parts of a specification stand in the text they came from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from archdsl.lang.decode import decode
from archdsl.lang.source import SourceText, Span
from archdsl.lang.trees import Choice, Document, Section, Statement, Word
from archdsl.lang.trees import Variant as VariantTree


@dataclass(frozen=True)
class Origins:
    """Where the parts of a specification stand in the text they came from."""

    document: Document

    @property
    def source(self) -> SourceText:
        return self.document.source

    def span(self, word: Word | Choice) -> Span:
        # A closing quote or brace that the parser thought up stands behind the text.
        return Span(self.source, word.start, min(word.end, len(self.source.text)))

    @cached_property
    def sections(self) -> dict[str, Section]:
        """The sections under the paths that `ArchSpec.sections` gives them."""
        found: dict[str, Section] = {}
        number = 0
        for item in self.document.items:
            if type(item) is Section:
                path = item.kind.text
                if path == "stage":
                    number += 1
                    path = f"stages.{item.name.text if item.name else f'stage{number}'}"
                found[path] = item
        return found

    @cached_property
    def _statements(self) -> dict[tuple[str | None, str], list[Statement]]:
        found: dict[tuple[str | None, str], list[Statement]] = {}
        for item in self.document.items:
            if type(item) is Statement:
                found.setdefault((None, item.keyword.text), []).append(item)
            elif type(item) is VariantTree:
                for statement in item.statements:
                    found.setdefault((item.name.text, statement.keyword.text), []).append(statement)
        return found

    def block(self, path: str, index: int) -> Word | None:
        """The block string number `index` of the section that `ArchSpec.sections` calls `path`."""
        section = self.sections.get(path)
        word = section.blocks[index] if section else None
        return word if type(word) is Word else None

    def field(self, path: str, index: int, name: str | None) -> Span | None:
        """The span of a block's field, or of the whole block where the field is not written."""
        word = self.block(path, index)
        if word is None:
            return None
        place = decode(word.text).places.get(name or "")
        return self.span(word).part(*place) if place else self.span(word)

    def variant(self, name: str | None) -> Span | None:
        """The span of a variant's name."""
        for item in self.document.items:
            if type(item) is VariantTree and item.name.text == name:
                return self.span(item.name)
        return None

    def statements(self, keyword: str, variant: str | None = None) -> list[Statement]:
        """The statements `keyword` of the file, or of one of its variants."""
        return self._statements.get((variant, keyword), [])

    def setting(
        self, keyword: str, key: str, variant: str | None = None, index: int = 0
    ) -> Span | None:
        """The span of `key=value` in the statement number `index` of that keyword."""
        statements = self.statements(keyword, variant)
        for setting in statements[index].settings if index < len(statements) else ():
            if setting.name == key:
                return Span(self.source, setting.key.start, setting.value.end)
        return None
