"""Files that others wrote, at their worst: exit code 2, one message that names what is wrong, nothing left behind."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from overedit.editing.storage.checksums import unsealed
from tests.support.command_line import ROWS, Run

Make = Callable[[Path], object]


def refused(overedit: Run, home: Path, *arguments: str) -> str:
    """The message with which a command ends; the folder is as it was."""
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
    code, out, err = overedit(*arguments)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    assert len(err) < 2_000
    assert not set(err) & {"\x1b", "\x00", "\x9b", "\u202e", "\ud800"}, "nothing that does something to a terminal"
    assert {path: path.lstat().st_mtime_ns for path in home.rglob("*")} == before, "nothing half-written stays behind"
    return err


def parquet(columns: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def rows(**more: Any) -> bytes:
    return json.dumps([ROWS[0], ROWS[1] | more]).encode()


WHOLE = parquet({"prompt": ["a"] * 500, "target_new": ["b"] * 500})
DOUBLED = b'[{"prompt": "a", "target_new": "b"}, {"prompt": "a", "prompt": "c", "target_new": "b"}]'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (rows(prompt=["a"]), "row 2, column 'prompt': expected a text, found list ['a']"),
        (rows(prompt=7), "row 2, column 'prompt': expected a text, found int 7"),
        (rows(target_new={"a": {"b": {"c": {"d": 1}}}}), "row 2, column 'target_new': expected a text, found dict"),
        (rows(prompt="a\ud800b"), "column 'prompt': half a surrogate pair (U+D800) at character 2"),
        (rows(prompt="a\x1b[2J"), "column 'prompt': a control character (U+001B) at character 2"),
        (rows(prompt="x" * 2_000_000), "a text of 2,000,000 characters; up to 100,000 are accepted"),
        (rows(case_id="x" * 1_000_000), "row 2, column 'case_id': up to 256 characters"),
        (rows(case_id=10**4000), "row 2, column 'case_id': up to 256 characters, or 64 bits, are accepted"),
        (rows(case_id=0), "row 2: case id '0' is row 1's already"),
        (rows(**{"\x1b[2J": 1, "prompt": None}), "row 2, column 'prompt': empty"),
        (b'[{"\\u001b[2J": 1}]', "lacks the column 'prompt'; the columns there are '\\x1b[2J'"),
        (b'[{"prompt": "a", "target_new": NaN}]', "NaN is no JSON value"),
        (b'[{"prompt": "a", "target_new": -Infinity}]', "-Infinity is no JSON value"),
        (b'{"prompt": "a", "target_new": "b"}\n{"prompt": NaN}', "in line 2"),
        (b'[{"prompt": 1e999, "target_new": "b"}]', "expected a text, found float inf"),
        (b"[" + b"9" * 5000 + b"]", "not readable JSON: Exceeds the limit"),
        (DOUBLED, "row 2: the key 'prompt' occurs twice"),
        (b'[{"prompt": "a", "target_new": "b", "locality": [{"x": "a", "x": 1}]}]', "row 1: the key 'x' occurs twice"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000, "nested too deep"),
        (rows(locality=eval("[" * 80 + "1" + "]" * 80)), "expected a text, found int 1"),
        (b"\x1f\x8b\x08\x00" + bytes(99), "neither JSON, JSONL nor Parquet: byte 2"),
        (b"\x80\x04\x95\x00\x00", "neither JSON, JSONL nor Parquet: byte 1"),
        ("[]".encode("utf-16"), "neither JSON, JSONL nor Parquet"),
        (b"\x00" * 50, "not JSON"),
        (WHOLE[: len(WHOLE) // 2], "not a whole Parquet file"),
        (WHOLE[:-20] + bytes(20), "not a whole Parquet file"),
        (parquet({"prompt": [["a"]], "target_new": ["b"]}), "row 1, column 'prompt': expected a text, found list"),
        (parquet({"prompt": [{"a": 1}], "target_new": ["b"]}), "row 1, column 'prompt': expected a text, found dict"),
        (parquet({"prompt": [b"\xff"], "target_new": ["b"]}), "expected a text, found bytes"),
        (parquet({"prompt": pa.nulls(1), "target_new": ["b"]}), "column 'prompt': empty"),
        (parquet({"prompt": pa.array([], pa.string())}), "holds no rows"),
    ],
)  # fmt: skip
def test_a_dataset(overedit: Run, files: dict[str, str], content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(content)
    message = refused(overedit, tmp_path, "edit", "--model", files["model"], "--method", "ft_m", "--requests",
                      "rows.json", "--out", "out", "--set", "site=1.down_proj")  # fmt: skip
    assert "rows.json" in message
    assert words in message


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 43)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "is a folder; name a file"),
        (os.mkfifo, "is a pipe; name a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device; name a file"),
        (lambda path: path.symlink_to("gone"), "is a link that leads nowhere"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (sparse, "bytes; at most"),
        (lambda path: None, "does not exist"),
    ],
)
@pytest.mark.parametrize("name", ["rows.json", "c.yaml"])
def test_what_is_no_ordinary_file(
    overedit: Run, files: dict[str, str], make: Make, words: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).unlink()
    make(tmp_path / name)
    message = refused(overedit, tmp_path, "run", "c.yaml")
    assert name in message
    assert words in message


def test_a_link_to_a_file_is_one(overedit: Run, files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("[]")
    (tmp_path / "rows.json").unlink()
    (tmp_path / "rows.json").symlink_to("there.json")
    assert "rows.json holds no rows" in refused(overedit, tmp_path, "run", "c.yaml")


@pytest.mark.parametrize("name", ["", "a\x1b[2Jb", "x" * 300, "a\0b"])
def test_a_name_that_cannot_be(overedit: Run, files: dict[str, str], name: str, tmp_path: Path) -> None:
    refused(overedit, tmp_path, "run", name)
    refused(overedit, tmp_path, "edit", "--model", files["model"], "--method", "ft_m", "--requests", name, "--out", "o")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission(overedit: Run, files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "rows.json").chmod(0)
    assert "cannot be read: Permission denied" in refused(overedit, tmp_path, "run", "c.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases are not accepted"),
        ("name: r\nname: s\n", "the key 'name' occurs twice"),
        ("order_seeds: [99999999999999999999]", "a number of 67 bits, at most 64 are accepted"),
        ("methods: [{method: ft_m, method: rome}]\n", "the key 'method' occurs twice"),
        ("a: " + "[" * 5000, "at most 20 levels are accepted"),
        ("a: 2001-99-99", "a value that cannot be (month must be in 1..12)"),
        ("a: " + "9" * 5000, "a value that cannot be (Exceeds the limit"),
        ("turn_size: 0x" + "f" * 6000, "a value that cannot be (a number of 24,000 bits"),
        ("a: !!timestamp x", "a value that cannot be"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("name: \x1b[2J", "is not YAML: unacceptable character"),
        ('name: "\\e[2J"', "name: not a run's name; accepted: 1 to 64 letters"),
        ("? [1]\n: 2\n", "unhashable key"),
        ("1: 2\n", "Keys should be strings"),
        ("name: " + "x" * 500_000, "given: 'xxx"),
        ("edit_counts: [" + "x, " * 5000 + "x]", "and 4,9"),
        ("#" * 1_100_000, "bytes; at most 1,048,576 are read"),
        ("methods: [{method: [ft_m]}]", "methods.0.method: unknown"),
        ("order_seeds: [9999999999999999999]", "order_seeds.0: Input should be less than 9223372036854775808"),
        ("name: ../../up", "name: not a run's name; accepted: 1 to 64 letters"),
        ("name: a/b", "the first a letter or a digit, e.g. a-b (given: 'a/b')"),
        ("turn_size: .nan", "turn_size: "),
        ("turn_size: .inf", "turn_size: "),
    ],
)
def test_a_configuration(overedit: Run, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    message = refused(overedit, tmp_path, "run", "c.yaml")
    assert "c.yaml" in message
    assert words in message


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("a: &a [1]", "give key=value"),
        ("methods=[&a x, *a]", "aliases are not accepted"),
        ("a." * 5000 + "a=1", "the key has 5001 parts; at most 20 are accepted"),
        ("methods.²=1", "² is not a place in a list of 1"),
        ("methods." + "9" * 5000 + "=1", "is not a place in a list of 1"),
        ("turn_size=" + "9" * 5000, "a value that cannot be"),
        ("name=" + "x" * 500_000, "given: 'xxx"),
        ('home="\\ud800"', "home: a text with U+D800"),
        ('dataset.path="a\\0b"', "dataset.path: a text with U+0000"),
        ("x\x1b[2J=1", "x\\u001b[2J: there is no such key"),
    ],
)
def test_a_setting(overedit: Run, files: dict[str, str], setting: str, words: str, tmp_path: Path) -> None:
    assert words in refused(overedit, tmp_path, "run", "c.yaml", "--set", setting)


@pytest.fixture
def model(files: dict[str, str], tmp_path: Path) -> Path:
    """A model folder of the test's own, which the configuration names."""
    shutil.copytree(files["model"], tmp_path / "model")
    content = yaml.safe_load((tmp_path / "c.yaml").read_text()) | {"model": "./model"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "model"


def change(model: Path, **values: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


CODE = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda model: change(model, model_type="theirs", auto_map=CODE), "asks to run code of its own (auto_map in"),
        (lambda model: change(model, model_type=["llama"], auto_map=CODE), "asks to run code of its own (auto_map in"),
        (lambda model: change(model, model_type="theirs"), "config.json"),
        (lambda model: change(model, hidden_size="many"), "config.json"),
        (lambda model: change(model, num_attention_heads=0), "config.json"),
        (lambda model: change(model, hidden_size=-1), "config.json"),
        (lambda model: (model / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda model: (model / "config.json").write_text("[" * 99_999), "config.json is not JSON"),
        (lambda model: (model / "config.json").write_text("[1]"), "config.json holds no JSON object but [1]"),
        (lambda model: (model / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is not JSON"),
        (
            lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"),
            "a pickle, which is not read",
        ),
    ],
)
def test_a_model(overedit: Run, model: Path, damage: Make, words: str, tmp_path: Path) -> None:
    (model / "theirs.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    damage(model)
    assert words in refused(overedit, tmp_path, "run", "c.yaml")


def test_code_beside_a_known_architecture_is_not_run(overedit: Run, model: Path, tmp_path: Path) -> None:
    (model / "theirs.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    change(model, auto_map=CODE)
    assert "limit: 21" in refused(overedit, tmp_path, "run", "c.yaml", "--set", "dataset.limit=21")


PICKLE = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02ls\x94\x85\x94R\x94."


@pytest.fixture
def checkpoint(overedit: Run, files: dict[str, str], tmp_path: Path) -> Path:
    code, out, err = overedit("edit", "--model", files["model"], "--method", "ft_m", "--requests", "rows.json",
                              "--out", "k", "--set", "site=1.down_proj", "--set", "num_edits=1")  # fmt: skip
    assert code == 0, (out, err)
    return tmp_path / "k"


def record(checkpoint: Path, **values: Any) -> None:
    path = checkpoint / "checkpoint.json"
    plain = json.loads(unsealed(path.read_bytes()))
    path.write_text(json.dumps(plain | values))


def rewrite(checkpoint: Path, name: str, shape: tuple[int, ...], dtype: str = "float32") -> None:
    """A checkpoint that is whole, of tensors that are not the model's."""
    import torch
    from safetensors.torch import save_file

    from overedit.editing.trajectory.records import TensorRecord

    tensor = torch.zeros(shape, dtype=getattr(torch, dtype))
    save_file({name: tensor}, checkpoint / "weights.safetensors")
    record(checkpoint, tensors={name: TensorRecord.of(tensor).model_dump()})


RIGHT_NAME = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda k: (k / "weights.safetensors").write_bytes(PICKLE), "weights.safetensors cannot be read"),
        (lambda k: (k / "weights.safetensors").rename(k / "weights.bin"), "weights.safetensors cannot be read: it is"),
        (lambda k: ((k / "weights.safetensors").unlink(), os.mkfifo(k / "weights.safetensors")), "not a file"),
        (lambda k: (k / "weights.safetensors").write_bytes(b"\xff" * 100), "weights.safetensors cannot be read"),
        (lambda k: ((k / "checkpoint.json").unlink(), os.mkfifo(k / "checkpoint.json")), "not a file"),
        (lambda k: sparse(k / "checkpoint.json"), "checkpoint.json has more than"),
        (lambda k: (k / "checkpoint.json").write_text("[" * 99_999), "not a whole checkpoint"),
        (lambda k: (k / "checkpoint.json").write_bytes(PICKLE), "not a whole checkpoint"),
        (lambda k: record(k, edit_count="x\x1b[2J" * 9999), "edit_count: Input should be a valid integer"),
        (lambda k: record(k, tensors=[]), "tensors: Input should be an object"),
        (lambda k: record(k, tensors={"w\x1b[2J": {}}), "not a whole checkpoint"),
        (lambda k: record(k, more=1), "more: Extra inputs are not permitted"),
        (lambda k: record(k, tensors={}), "checksums"),
        (lambda k: rewrite(k, "model.other", (2, 2)), "the model has no parameter 'model.other'"),
        (lambda k: rewrite(k, RIGHT_NAME, (2, 2)), "the parameter is (32, 48), the update (2, 2)"),
        (lambda k: rewrite(k, RIGHT_NAME, (32, 48), "int8"), "holds tensors of int8; one of float32"),
        (lambda k: record(k, model="../../nowhere"), "there is no folder ../../nowhere"),
        (lambda k: record(k, model_digest="0"), "does not have the weights"),
    ],
)  # fmt: skip
def test_a_checkpoint(overedit: Run, checkpoint: Path, damage: Make, words: str, tmp_path: Path) -> None:
    damage(checkpoint)
    assert words in refused(overedit, tmp_path, "export", "k", "exported")


@pytest.mark.parametrize("verb", ["report", "prune"])
@pytest.mark.parametrize("name", ["../../up", "/etc/passwd", "a\x1b[2J", ""])
def test_a_run_of_another_folder(overedit: Run, verb: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "warehouse").mkdir()
    assert "is not a run's name; accepted: 1 to 64 letters" in refused(overedit, tmp_path, verb, name)


def test_verify_and_prune_from_the_command_line(overedit: Run, checkpoint: Path, tmp_path: Path) -> None:
    code, out, _ = overedit("verify", "k")
    assert (code, "everything is as it was written" in out) == (0, True)
    (checkpoint / "weights.safetensors").write_bytes(b"x")
    code, out, _ = overedit("verify", "k")
    assert code == 1
    assert "damaged: k: k/weights.safetensors cannot be read" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("damaged"))
    assert "holds neither checkpoints nor rows" in refused(overedit, tmp_path, "verify")
    assert "there is no run 'k'" in refused(overedit, tmp_path, "prune", "k", "--dry-run")
