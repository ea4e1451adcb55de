"""Parses a row of a dataset into its `EditRequest`s; errors name the row number and the column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from overedit.editing.metrics import same_text
from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.data.catalog import Layout
from overedit.tasks.system.untrusted import shown_value

_ABSENT = object()
_BAD_CHARACTER = re.compile(r"[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # tab and line ends are accepted
_LONGEST_TEXT = 100_000  # characters; longer than any model's context
_LONGEST_CASE_ID = 256
_SHOWN_COLUMNS = 20  # columns listed in the message when one is missing
_ANSWER_KEYS = ("answer", "ground_truth")  # of a probe that is an object


class RowReader(NamedTuple):
    """A row with its source and number, for messages."""

    source: str
    number: int
    """1 for the dataset's first row."""
    row: Mapping[str, Any]
    inside: str = ""
    """Its path within the file's row, if it is a part of one, e.g. `requested_rewrite.0.`."""

    def get(self, column: str) -> Any:
        """The value of a column, where dots step into nested objects and lists; None if it is missing or null."""
        value = self._find(column)
        return None if value is _ABSENT else value

    def has(self, column: str) -> bool:
        """Whether the row has the column, null included."""
        return self._find(column) is not _ABSENT

    def _find(self, column: str) -> Any:
        if column in self.row:
            return self.row[column]
        value: Any = self.row
        for step in column.split("."):
            if isinstance(value, list | tuple) and step.isdecimal() and len(step) < 10 and int(step) < len(value):
                value = value[int(step)]
            elif isinstance(value, Mapping) and step in value:
                value = value[step]
            else:
                return _ABSENT
        return value

    def fault(self, column: str, what: str) -> ValueError:
        """Make the error for a bad value."""
        return ValueError(f"{self.source}, row {self.number}, column {shown_value(self.inside + column)}: {what}")

    def missing(self, columns: Sequence[str]) -> ValueError:
        """Make the error for a missing column."""
        wanted = " or ".join(repr(self.inside + column) for column in dict.fromkeys(columns))
        columns_there = [shown_value(str(column)) for column in self.row]
        more = ", ..." if len(columns_there) > _SHOWN_COLUMNS else ""
        there = (", ".join(columns_there[:_SHOWN_COLUMNS]) or "none") + more
        return ValueError(f"{self.source}, row {self.number}: lacks the column {wanted}; the columns there are {there}")

    def text(self, column: str, value: Any) -> str:
        """A value as text, without whitespace at its ends.

        Raises:
            ValueError: The value is not a text, is too long, or has a character that no tokenizer or table accepts.
        """
        if not isinstance(value, str):
            raise self.fault(column, f"expected a text, found {type(value).__name__} {shown_value(value)}")
        if len(value) > _LONGEST_TEXT:
            raise self.fault(column, f"a text of {len(value):,} characters; up to {_LONGEST_TEXT:,} are accepted")
        if bad := _BAD_CHARACTER.search(value):
            kind = "half a surrogate pair" if bad.group() >= "\ud800" else "a control character"
            raise self.fault(column, f"{kind} (U+{ord(bad.group()):04X}) at character {bad.start() + 1}")
        return value.strip()

    def texts(self, column: str) -> list[str]:
        """The non-empty texts of a column that contains one text, a (nested) list of texts, or null."""
        found: list[str] = []
        pending = [self.get(column)]
        while pending:
            value = pending.pop()
            if isinstance(value, list | tuple):
                pending += reversed(value)
            elif value is not None and (text := self.text(column, value)):
                found.append(text)
        return found


def to_requests(reader: RowReader, layouts: Sequence[Layout], case_prefix: str) -> list[EditRequest]:
    """Parse a row into `EditRequest`s: one, several where a case is several edits, or none where the layout allows it.

    The first layout whose prompt and target columns the row has is used. Whitespace at the ends of texts is removed. A
    `{}` in a prompt is replaced by the subject. Without a case column the case is named `<case_prefix>-<row number>`.

    Raises:
        ValueError: A column is missing, a required text is empty, or a value has the wrong type; the message names row
            and column.
    """
    layout = _layout_of(reader, layouts)
    for column in layout.required:
        if not reader.has(column):
            raise reader.missing([column])
    case_id = _case_id(reader, layout, case_prefix)
    portability = _probes(reader, layout.portability, "")
    if layout.edits is None:
        if layout.may_lack_target and reader.get(layout.target_new) is None:
            return []
        return [_request(reader, layout, case_id, portability)]
    edits = _edits(reader, layout)
    return [
        _request(edit, layout, f"{case_id}.{number}", portability if number == len(edits) else ())
        for number, edit in enumerate(edits, 1)
    ]


def _layout_of(reader: RowReader, layouts: Sequence[Layout]) -> Layout:
    possible = [layout for layout in layouts if reader.has(layout.edits or layout.prompt)]
    if not possible:
        raise reader.missing([layout.edits or layout.prompt for layout in layouts])
    for layout in possible:
        if layout.edits or layout.may_lack_target or reader.has(layout.target_new):
            return layout
    raise reader.missing([layout.target_new for layout in possible])


def _edits(reader: RowReader, layout: Layout) -> list[RowReader]:
    """The edits of a case, each as a separate row."""
    assert layout.edits is not None
    value = reader.get(layout.edits)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, Mapping) for item in value):
        raise reader.fault(layout.edits, f"expected a list of objects, one an edit, found {shown_value(value)}")
    edits = [RowReader(reader.source, reader.number, item, f"{layout.edits}.{i}.") for i, item in enumerate(value)]
    for edit in edits:
        for column in (layout.prompt, layout.target_new):
            if not edit.has(column):
                raise edit.missing([column])
    return edits


def _request(reader: RowReader, layout: Layout, case_id: str, portability: tuple[Probe, ...]) -> EditRequest:
    target_new = _required(reader, layout.target_new)
    prompt = _required(reader, layout.prompt)
    subject = next(iter(reader.texts(layout.subject)), None) if layout.subject else None
    if subject and "{}" in prompt:
        prompt = prompt.replace("{}", subject, 1)
    truths = (text for column in layout.target_true for text in reader.texts(column))
    return EditRequest(
        case_id=case_id,
        prompt=prompt,
        subject=_verbatim(subject, prompt),
        target_new=target_new,
        target_true=next((text for text in truths if not same_text(text, target_new)), None),
        rephrase_prompts=_all_texts(reader, layout.rephrase),
        persona_prompts=_all_texts(reader, layout.persona),
        text_prompts=_all_texts(reader, layout.text),
        references=_all_texts(reader, layout.references),
        locality=_probes(reader, layout.locality, layout.locality_suffix),
        portability=portability,
    )


def _all_texts(reader: RowReader, columns: Sequence[str]) -> tuple[str, ...]:
    """The distinct texts of several columns."""
    return tuple(dict.fromkeys(text for column in columns for text in reader.texts(column)))


def _required(reader: RowReader, column: str) -> str:
    value = reader.get(column)
    text = reader.text(column, value) if value is not None else ""
    if not text:
        raise reader.fault(column, "empty; every edit needs a text there")
    return text


def _case_id(reader: RowReader, layout: Layout, prefix: str) -> str:
    value = reader.get(layout.case_id) if layout.case_id else None
    if value is None or value == "":
        return f"{prefix}-{reader.number}"
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise reader.fault(str(layout.case_id), f"expected a text or a whole number, found {shown_value(value)}")
    if (isinstance(value, str) and len(value) > _LONGEST_CASE_ID) or (isinstance(value, int) and abs(value) >= 1 << 64):
        what = f"up to {_LONGEST_CASE_ID} characters, or 64 bits, are accepted; found {shown_value(value)}"
        raise reader.fault(str(layout.case_id), what)
    return reader.text(str(layout.case_id), str(value))


def _verbatim(subject: str | None, prompt: str) -> str | None:
    """The subject as the prompt spells it; as the row spells it where the prompt does not contain it."""
    if not subject or subject in prompt:
        return subject or None
    found = re.search(re.escape(subject), prompt, re.IGNORECASE)
    return found.group(0) if found else subject


def _probes(reader: RowReader, columns: Sequence[tuple[str, str | None]], suffix: str) -> tuple[Probe, ...]:
    probes: list[Probe] = []
    for prompts, answers in columns:
        value = reader.get(prompts)
        objects = _probe_objects(value)
        if objects is not None:
            probes += [_probe_of(reader, prompts, item) for item in objects]
            continue
        texts = reader.texts(prompts)
        golds = _answers(reader, prompts, answers, texts, alone=isinstance(value, str))
        probes += [Probe(prompt=_ended(text, suffix), answer=gold) for text, gold in zip(texts, golds, strict=True)]
    return tuple(dict.fromkeys(probes))


def _ended(text: str, suffix: str) -> str:
    return text if text.endswith(suffix) else text + suffix


def _answers(
    reader: RowReader, prompts: str, answers: str | None, texts: Sequence[str], *, alone: bool
) -> Sequence[str | None]:
    """One answer per prompt: a single text answers all; for a single prompt, the first of a list of spellings."""
    value = reader.get(answers) if answers else None
    if value is None or not texts:
        return [None] * len(texts)
    assert answers is not None
    if isinstance(value, str) or alone:
        return [next(iter(reader.texts(answers)), None)] * len(texts)
    if not isinstance(value, list | tuple):
        raise reader.fault(answers, f"expected a text or a list, found {type(value).__name__} {shown_value(value)}")
    if len(value) != len(texts):
        raise reader.fault(answers, f"{len(value)} answers for the {len(texts)} prompts in {prompts!r}")
    nested = [reader._replace(row={answers: answer}) for answer in value]
    return [next(iter(item.texts(answers)), None) for item in nested]


def _probe_objects(value: Any) -> list[Mapping[str, Any]] | None:
    """The probes of a column of objects (a single one, a list, or named groups); None for texts."""
    if isinstance(value, Mapping) and "prompt" in value:
        return [value]
    if isinstance(value, Mapping):
        value = [
            probe for group in value.values() if group for probe in (group if isinstance(group, list) else [group])
        ]
    elif not isinstance(value, list | tuple) or not any(isinstance(item, Mapping) for item in value):
        return None
    return [item if isinstance(item, Mapping) else {"prompt": item} for item in value]


def _probe_of(reader: RowReader, column: str, item: Mapping[str, Any]) -> Probe:
    inner = reader._replace(row={f"{column}.{key}": value for key, value in item.items()})
    key = next((key for key in _ANSWER_KEYS if item.get(key) is not None), _ANSWER_KEYS[0])
    answer = next(iter(inner.texts(f"{column}.{key}")), None)
    if f"{column}.prompt" not in inner.row:
        raise inner.missing([f"{column}.prompt"])
    return Probe(prompt=_required(inner, f"{column}.prompt"), answer=answer)
