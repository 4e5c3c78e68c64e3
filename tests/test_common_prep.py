"""What training repos rely on: folders, --force, and the volume that outlives a pod."""

import io
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets_prep import (
    DataPrep,
    OptionError,
    PrepareOptions,
    add_num_proc_arg,
    find_dataset,
    get_common_parser,
    prepare,
    token_type,
)
from tieredstore import TieredStoreError, open_store

FILES = ("train.bin", "val.bin", "meta.pkl")
TEXT = "".join(f"line {n}: to be or not to be, that is question {n % 7}\n" for n in range(400))


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a RunPod volume, the repo's folder being the working directory."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "repo").mkdir()
    (tmp_path / "input.txt").write_text(TEXT)
    monkeypatch.setenv("TIEREDSTORE_RUNPOD_VOLUME", str(tmp_path / "volume"))
    monkeypatch.delenv("TIEREDSTORE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path / "repo")
    return tmp_path


@pytest.fixture
def volume(machine: Path) -> Path:
    return machine / "volume" / "data"


@pytest.fixture
def data(machine: Path) -> Path:
    return machine / "repo" / "data"


def options(machine: Path, **further: object) -> PrepareOptions:
    usual = {"tokenizer": "char", "source": str(machine / "input.txt")}
    return PrepareOptions(**{**usual, **further})  # type: ignore[arg-type]


def write_all(prep: DataPrep, mark: int = 0) -> None:
    prep.write_binary_file(np.arange(90, dtype=np.uint16) + mark, "train")
    prep.write_binary_file(np.arange(10, dtype=np.uint16) + mark, "val")
    prep.save_meta(vocab_size=1000, tokenizer="gpt2")


def by_hand(folder: Path, fill: bytes = b"\1\0") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.bin").write_bytes(fill * 90)
    (folder / "val.bin").write_bytes(fill * 10)
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 50257, "tokenizer": "gpt2"}))


def content(folder: Path) -> dict[str, bytes]:
    return {file: (folder / file).read_bytes() for file in FILES}


class TestDatasetSubfolders:
    def test_files_lie_in_a_folder_named_after_the_dataset(self, tmp_path: Path) -> None:
        prep = DataPrep(tmp_path / "out", "mine")
        assert prep.data_dir == tmp_path / "out" / "mine"
        assert prep.data_dir.is_dir()

    def test_without_a_name_the_files_lie_in_the_folder_itself(self, tmp_path: Path) -> None:
        prep = DataPrep(str(tmp_path / "mine"))
        assert prep.data_dir == tmp_path / "mine"
        write_all(prep)
        assert prep.check_existing_files()
        assert (tmp_path / "volume/data/mine/train.bin").is_file()

    def test_a_folder_named_like_the_dataset_is_the_same_place_as_the_stores(
        self, data: Path, volume: Path
    ) -> None:
        prep = DataPrep(data / "mine", "mine")
        assert prep.data_dir == data / "mine" / "mine"
        write_all(prep)
        located = open_store().locate("mine", FILES)
        assert [w.state for w in located] == ["whole", "whole"]
        assert located[0].head == located[1].head
        assert not (data / "mine" / ".tieredstore").exists()

    def test_each_file_can_be_read_at_once_in_both_places(self, data: Path, volume: Path) -> None:
        prep = DataPrep(data / "mine", "mine")
        prep.write_binary_file(np.arange(90, dtype=np.uint16), "train")
        for folder in (prep.data_dir, volume / "mine"):
            found = np.fromfile(folder / "train.bin", dtype="<u2")
            assert found.tolist() == list(range(90))
        assert not prep.check_existing_files()
        assert open_store().locate("mine", FILES)[1].state == "pending"

    def test_files_written_by_hand_are_accepted(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        assert not prep.check_existing_files()
        by_hand(prep.data_dir)
        assert prep.check_existing_files()
        assert prep.get_existing_token_counts() == (90, 10)
        by_hand(prep.data_dir, b"\1\0\2\0")  # and may be written again
        assert prep.check_existing_files()
        assert prep.get_existing_token_counts() == (180, 20)

    def test_files_rewritten_by_hand_are_not_restored_over(self, data: Path, volume: Path) -> None:
        by_hand(volume / "mine")
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files()  # restored, and given a manifest
        by_hand(prep.data_dir, b"\1\0\2\0")
        mine = content(prep.data_dir)
        assert prep.check_existing_files()
        assert prep.get_existing_token_counts() == (180, 20)
        assert content(prep.data_dir) == mine != content(volume / "mine")

    def test_a_file_that_lost_its_end_is_restored(self, data: Path, volume: Path) -> None:
        by_hand(volume / "mine")
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files()
        stat = (prep.data_dir / "train.bin").stat()
        os.truncate(prep.data_dir / "train.bin", 10)
        before = stat.st_mtime_ns - 10**10  # as after a crash: no write, and less in the file
        os.utime(prep.data_dir / "train.bin", ns=(before, before))
        for file in ("val.bin", "meta.pkl"):
            os.utime(prep.data_dir / file, ns=(before, before))
        assert prep.check_existing_files()
        assert content(prep.data_dir) == content(volume / "mine")

    @pytest.mark.parametrize("name", ["../out", "/tmp", "a//b", "", "."])
    def test_a_name_that_leads_elsewhere_is_refused(self, data: Path, name: str) -> None:
        with pytest.raises(OptionError, match="expected a relative name"):
            DataPrep(data / "sub", name)
        assert not data.exists()

    def test_a_file_written_by_hand_beside_those_put_in_makes_it_whole(
        self, data: Path, volume: Path
    ) -> None:
        prep = DataPrep(data, "mine")
        prep.write_binary_file(np.arange(90, dtype=np.uint16), "train")
        prep.write_binary_file(np.arange(10, dtype=np.uint16), "val")
        (prep.data_dir / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 5}))
        assert prep.check_existing_files()
        assert prep.get_existing_token_counts() == (90, 10)
        assert content(volume / "mine") == content(prep.data_dir)

    def test_data_in_the_old_place_is_brought_where_it_belongs(self, data: Path) -> None:
        by_hand(data / "mine")
        (data / "mine" / "prepare.py").write_text("pass")
        prep = DataPrep(data / "mine", "mine")
        assert prep.check_existing_files()
        assert content(prep.data_dir) == content(data / "mine")
        assert (data / "mine" / "prepare.py").is_file()

    def test_find_dataset_takes_the_new_place_then_the_old_one(self, data: Path) -> None:
        by_hand(data / "mine")
        assert find_dataset("mine", root=data) == data / "mine"
        by_hand(data / "mine" / "mine")
        assert find_dataset("mine", root=data) == data / "mine" / "mine"

    def test_find_dataset_restores_and_then_prepares(self, data: Path, volume: Path) -> None:
        by_hand(volume / "mine")
        assert find_dataset("mine") == data / "mine" / "mine"
        assert content(data / "mine" / "mine") == content(volume / "mine")
        folder = find_dataset("pydoc_topics")
        assert folder == data / "pydoc_topics" / "pydoc_topics"
        assert token_type(folder) == "<u2"
        with pytest.raises(ValueError, match="no dataset 'nowhere'"):
            find_dataset("nowhere")


class TestForceParameter:
    def test_the_common_options(self, capsys: pytest.CaptureFixture[str]) -> None:
        parser = get_common_parser("Prepare mine.")
        add_num_proc_arg(parser, default=3)
        args = parser.parse_args([])
        assert (args.subset, args.force, args.num_proc) == (1.0, False, 3)
        args = parser.parse_args(["--subset", "0.1", "--force", "--num_proc", "2"])
        assert (args.subset, args.force, args.num_proc) == (0.1, True, 2)
        with pytest.raises(SystemExit):
            parser.parse_args(["--help"])
        assert "Force re-preparation even if files already exist" in capsys.readouterr().out

    def test_a_second_run_is_a_hit_and_force_prepares_again(
        self, machine: Path, data: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = prepare("shakespeare", options(machine))
        before = open_store().locate("shakespeare")[0].head
        capsys.readouterr()
        second = prepare("shakespeare", options(machine))
        said = capsys.readouterr().out
        assert (first.action, second.action) == ("prepared", "hit")
        assert "✅ All required files found locally\n" in said
        train, val = first.train_tokens, first.val_tokens
        assert f"📁 Using existing files - Train: {train:,} tokens, Val: {val:,} tokens\n" in said
        forced = prepare("shakespeare", options(machine, force=True))
        assert forced.action == "prepared"
        heads = [w.head for w in open_store().locate("shakespeare")]
        assert before.generation != heads[0].generation == heads[1].generation

    def test_force_replaces_files_by_hand_and_their_copy_on_the_volume(
        self, machine: Path, data: Path, volume: Path
    ) -> None:
        by_hand(data / "shakespeare" / "shakespeare")
        by_hand(volume / "shakespeare")
        done = prepare("shakespeare", options(machine, force=True))
        assert done.train_tokens == int(len(TEXT) * 0.9)
        assert content(volume / "shakespeare") == content(done.path)
        assert (done.path / "train.bin").stat().st_size == 2 * done.train_tokens

    def test_a_reader_of_one_generation_is_not_disturbed_by_force(self, machine: Path) -> None:
        prepare("shakespeare", options(machine))
        with open_store().restore("shakespeare", FILES) as held:
            prepare("shakespeare", options(machine, force=True, tokenizer="byte"))
            with held.open("train.bin") as train, held.open("meta.pkl") as meta:
                assert len(train.read()) == 2 * int(len(TEXT) * 0.9)
                assert pickle.load(meta)["tokenizer"] == "char"

    def test_another_subset_prepares_again_and_leaves_the_volume_alone(
        self, machine: Path, volume: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prepare("shakespeare", options(machine))
        full = content(volume / "shakespeare")
        capsys.readouterr()
        small = prepare("shakespeare", options(machine, subset=0.1))
        said = capsys.readouterr()
        assert small.action == "prepared"
        assert small.train_tokens == int(int(len(TEXT) * 0.9) * 0.1)
        assert "subset: 1.0 there, 0.1 asked for" in said.out
        assert "RunPod storage keeps what it has" in said.err
        assert "also saved" not in said.out
        assert content(volume / "shakespeare") == full
        assert prepare("shakespeare", options(machine, subset=0.1)).action == "hit"
        assert prepare("shakespeare", options(machine)).action == "restored"
        forced = prepare("shakespeare", options(machine, subset=0.1, force=True))
        assert content(volume / "shakespeare") == content(forced.path) != full

    @pytest.mark.parametrize("subset", [0, -0.1, 1.1, float("nan"), float("inf")])
    def test_a_subset_outside_is_refused_by_prepare(self, subset: float) -> None:
        with pytest.raises(OptionError, match="expected more than 0 and at most 1"):
            PrepareOptions(subset=subset)

    def test_validate_subset_clamps(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        given = (-1, 0, 0.25, 1, 7)
        assert [prep.validate_subset(s) for s in given] == [0, 0, 0.25, 1, 1]

    def test_an_unknown_recipe_serves_the_usual_options_only(
        self, data: Path, machine: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        by_hand(data / "pydoc_topics" / "pydoc_topics")
        usual = prepare("pydoc_topics")
        assert (usual.action, usual.train_tokens, usual.val_tokens) == ("hit", 90, 10)
        assert "its recipe is unknown" in capsys.readouterr().out
        assert prepare("pydoc_topics").action == "hit"  # it has a manifest now
        assert "its recipe is unknown" in capsys.readouterr().out
        other = prepare("pydoc_topics", PrepareOptions(tokenizer="byte"))
        assert other.action == "prepared"
        assert "recipe unknown, and other than the usual options" in capsys.readouterr().out
        assert token_type(other.path) == "|u1"

    def test_a_data_prep_used_twice_writes_both_times(self, data: Path, volume: Path) -> None:
        prep = DataPrep(data, "mine")
        write_all(prep)
        first = content(prep.data_dir)
        write_all(prep, mark=5)
        assert prep.check_existing_files()
        assert content(prep.data_dir) == content(volume / "mine") != first


class TestRunPodPreparationChecking:
    def test_local_files_come_first(
        self, data: Path, volume: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prep = DataPrep(data, "mine")
        by_hand(prep.data_dir, b"\1\0")
        by_hand(volume / "mine", b"\2\0")
        assert prep.check_existing_files() is True
        assert capsys.readouterr().out == "✅ All required files found locally\n"
        assert (prep.data_dir / "train.bin").read_bytes() == b"\1\0" * 90

    def test_what_is_missing_is_restored_from_the_volume(
        self, data: Path, volume: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        by_hand(volume / "mine")
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files() is True
        said = capsys.readouterr().out.splitlines()
        assert f"📁 Found all files in RunPod storage: {volume / 'mine'}" in said
        for file in FILES:
            assert f"📥 Copied {file} from RunPod storage to local" in said
        restored = "✅ All required files restored from RunPod storage to"
        assert said[-1] == f"{restored} {prep.data_dir}"
        assert content(prep.data_dir) == content(volume / "mine")
        assert prep.get_existing_token_counts() == (90, 10)

    def test_restored_all_or_none(
        self, data: Path, volume: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        by_hand(volume / "mine")
        (volume / "mine" / "val.bin").unlink()
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files() is False
        assert list(prep.data_dir.iterdir()) == []
        assert "Copied" not in capsys.readouterr().out
        assert prep.get_existing_token_counts() is None

    def test_custom_required_files(self, data: Path, volume: Path) -> None:
        by_hand(volume / "mine")
        (volume / "mine" / "meta.pkl").unlink()
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files() is False
        assert prep.check_existing_files(["train.bin", "val.bin"]) is True
        assert prep.get_existing_token_counts() == (90, 10)

    def test_custom_required_files_make_it_whole_too(self, data: Path, volume: Path) -> None:
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files(["train.bin"]) is False
        prep.write_binary_file(np.arange(90, dtype=np.uint16), "train")
        assert prep.check_existing_files(["train.bin"]) is True
        shutil.rmtree(prep.data_dir)
        assert DataPrep(data, "mine").check_existing_files(["train.bin"]) is True

    def test_byte_level_counts(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        by_hand(prep.data_dir)
        meta = {"vocab_size": 256, "tokenizer": "byte", "byte_level": True}
        (prep.data_dir / "meta.pkl").write_bytes(pickle.dumps(meta))
        assert prep.get_existing_token_counts() == (180, 20)

    def test_a_malicious_meta_from_the_volume_is_not_loaded(
        self, data: Path, volume: Path, tmp_path: Path
    ) -> None:
        class Evil:
            def __reduce__(self) -> tuple[object, ...]:
                return open, (str(tmp_path / "owned"), "w")

        by_hand(volume / "mine")
        (volume / "mine" / "meta.pkl").write_bytes(pickle.dumps(Evil()))
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files()
        with pytest.raises(ValueError, match="expected plain data only"):
            prep.get_existing_token_counts()
        assert not (tmp_path / "owned").exists()

    def test_no_volume_is_no_error(self, data: Path, machine: Path) -> None:
        (machine / "volume").rmdir()
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files() is False
        write_all(prep)
        assert prep.check_existing_files() is True


class TestRunPodStorage:
    def test_each_file_goes_to_the_volume_and_both_are_one_generation(
        self, data: Path, volume: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prep = DataPrep(data, "mine")
        write_all(prep)
        prep.print_completion("mine", 90, 10)
        said = capsys.readouterr().out.splitlines()
        for file in FILES:
            assert f"📁 Copied {file} to RunPod storage: {volume / 'mine' / file}" in said
        assert said[-4:] == [
            "✅ Preparation complete for mine",
            "train has 90 tokens",
            "val has 10 tokens",
            f"📁 Files also saved to RunPod storage: {volume / 'mine'}",
        ]
        assert content(volume / "mine") == content(prep.data_dir)

    def test_the_next_pod_restores(self, data: Path, volume: Path) -> None:
        write_all(DataPrep(data, "mine"))
        kept = content(data / "mine")
        shutil.rmtree(data)
        prep = DataPrep(data, "mine")
        assert prep.check_existing_files()
        assert content(prep.data_dir) == kept
        assert prep.get_existing_token_counts() == (90, 10)

    def test_a_pod_that_died_half_way_leaves_nothing_that_looks_whole(
        self, data: Path, volume: Path
    ) -> None:
        dead = DataPrep(data, "mine")
        dead.write_binary_file(np.arange(90, dtype=np.uint16), "train")
        dead.write_binary_file(np.arange(10, dtype=np.uint16), "val")
        shutil.rmtree(data)
        prep = DataPrep(data, "mine")
        assert not prep.check_existing_files()
        write_all(prep, mark=3)
        assert content(volume / "mine") == content(prep.data_dir)
        assert all(
            v.ok
            for v in open_store(
                {"tier": [{"name": "volume", "backend": "local", "path": str(volume)}]}
            ).verify("mine")
        )

    def test_a_prepared_dataset_is_promoted_restored_and_verified(
        self, machine: Path, data: Path, volume: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        done = prepare("shakespeare", options(machine))
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "🔄 Starting Shakespeare dataset preparation (subset: 1.0)"
        assert f"📁 Files also saved to RunPod storage: {volume / 'shakespeare'}" == said[-1]
        kept = content(done.path)
        shutil.rmtree(done.path)
        again = prepare("shakespeare", options(machine))
        assert again.action == "restored"
        assert content(again.path) == kept
        assert all(v.ok for v in open_store().verify("shakespeare"))

    def test_the_recipe_says_what_meta_says(self, machine: Path) -> None:
        done = prepare("shakespeare", options(machine, subset=0.5))
        recipe = open_store().locate("shakespeare")[1].recipe
        assert recipe.preparer == "shakespeare"
        assert recipe.options == {"subset": 0.5, "tokenizer": "char"}
        meta = pickle.loads((done.path / "meta.pkl").read_bytes())
        assert recipe.facts["vocab_size"] == meta["vocab_size"] == len(set(TEXT))
        assert "".join(meta["itos"].values()) == recipe.facts["symbols"]
        assert recipe.facts["train_tokens"] == done.train_tokens

    def test_a_volume_that_cannot_be_written_keeps_nobody_from_working(
        self, data: Path, machine: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (machine / "volume" / "data").write_text("a file where a folder should be")
        prep = DataPrep(data, "mine")
        write_all(prep)
        assert prep.check_existing_files()
        prep.print_completion("mine", 90, 10)
        said = capsys.readouterr()
        assert "Not saved to RunPod storage" in said.err
        assert "also saved" not in said.out

    def test_what_another_recipe_made_is_kept_on_the_volume(
        self, machine: Path, data: Path, volume: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prepare("shakespeare", options(machine))
        kept = content(volume / "shakespeare")
        prep = DataPrep(data / "shakespeare", "shakespeare")
        write_all(prep)
        assert prep.check_existing_files()
        assert prep.get_existing_token_counts() == (90, 10)
        assert content(volume / "shakespeare") == kept
        assert "RunPod storage keeps what it has" in capsys.readouterr().err

    def test_a_full_or_broken_first_tier_is_said(self, machine: Path) -> None:
        (machine / "repo" / "data").write_text("a file")
        with pytest.raises((TieredStoreError, OSError)):
            prepare("pydoc_topics")


class Rows:
    """Rows of a dataset as a Hugging Face dataset gives them: sliced to columns."""

    def __init__(self, rows: list[list[int]], lengths: list[int] | None = None) -> None:
        self._rows = rows
        self._lengths = lengths or [len(r) for r in rows]
        self.column_names = ["ids", "len"]
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: slice) -> dict[str, object]:
        self.asked.append(len(self._rows[key]))
        return {"ids": self._rows[key], "len": self._lengths[key]}


class TestWriting:
    def test_a_dataset_is_written_in_batches(self, data: Path) -> None:
        rows = Rows([[n, n + 1, 50256] for n in range(100)] + [[]])
        prep = DataPrep(data, "mine")
        assert prep.write_binary_file(rows, "train", batch_size=8) == 300
        assert max(rows.asked) <= 8
        found = np.fromfile(prep.data_dir / "train.bin", dtype="<u2")
        assert found.tolist() == [i for n in range(100) for i in (n, n + 1, 50256)]

    def test_lengths_that_disagree_are_refused(self, data: Path) -> None:
        with pytest.raises(OptionError, match="lengths add up to 7"):
            DataPrep(data, "mine").write_binary_file(Rows([[1, 2]], [7]), "train")

    def test_types(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        prep.write_binary_file(np.array([1, 70000]), "train")
        prep.write_binary_file(np.array([1, 2]), "val")
        prep.save_meta(vocab_size=100_000, tokenizer="other")
        assert token_type(prep.data_dir) == "<u4"
        assert np.fromfile(prep.data_dir / "val.bin", dtype="<u4").tolist() == [1, 2]
        assert prep.get_existing_token_counts() == (2, 2)
        with (prep.data_dir / "meta.pkl").open("rb") as file:
            assert pickle.load(file)["dtype"] == "uint32"

    def test_bytes_stay_bytes(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        for split in ("train", "val"):
            prep.write_binary_file(np.frombuffer(b"hello", dtype=np.uint8), split)
        prep.save_meta(vocab_size=256, tokenizer="byte", byte_level=True)
        assert (prep.data_dir / "train.bin").read_bytes() == b"hello"
        assert prep.get_existing_token_counts() == (5, 5)
        assert pickle.load(io.BytesIO((prep.data_dir / "meta.pkl").read_bytes())) == {
            "vocab_size": 256,
            "tokenizer": "byte",
            "byte_level": True,
        }

    @pytest.mark.parametrize("tokens", [[-1, 2], [1, 1 << 33]])
    def test_tokens_that_fit_nowhere_are_refused(self, data: Path, tokens: list[int]) -> None:
        prep = DataPrep(data, "mine")
        with pytest.raises(OptionError, match="expected 0 to"):
            prep.write_binary_file(np.array(tokens), "train")
        assert not (prep.data_dir / "train.bin").exists()
        assert [p for p in (data / ".tieredstore" / "stage").iterdir() if p.is_file()] == []

    def test_a_split_wider_than_the_one_before_is_refused(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        prep.write_binary_file(np.array([1, 2]), "val")
        with pytest.raises(OptionError, match="uint16 holds"):
            prep.write_binary_file(np.array([1, 70000]), "train")

    def test_an_empty_split(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        assert prep.write_binary_file(np.array([], dtype=np.uint16), "val") == 0
        assert prep.write_binary_file([], "train") == 0

    @pytest.mark.realdata
    def test_gpt2_tokens(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = Path(__file__).parents[2] / "shared/data/tiktoken-cache"
        if not cache.is_dir():
            pytest.skip(f"no {cache}")
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        prep = DataPrep(data, "mine")
        assert prep.tokenize_text("hello world") == [31373, 995, 50256]
        assert prep.tokenize_text("hello world", add_eot=False) == [31373, 995]
        assert prep.tokenize_text("<|endoftext|>", add_eot=False) != [50256]
        function = pickle.loads(pickle.dumps(prep.create_tokenization_function("body")))
        assert function({"body": "hello world"}) == {"ids": [31373, 995, 50256], "len": 3}

    def test_a_named_type_for_rows_that_need_more_than_16_bits(self, data: Path) -> None:
        prep = DataPrep(data, "mine")
        rows = Rows([[1], [70000]])
        with pytest.raises(OptionError, match="dtype='uint32'"):
            prep.write_binary_file(rows, "train", batch_size=1)
        assert prep.write_binary_file(rows, "train", batch_size=1, dtype="uint32") == 2
        assert np.fromfile(prep.data_dir / "train.bin", dtype="<u4").tolist() == [1, 70000]
        with pytest.raises(OptionError, match="expected one of uint8"):
            prep.write_binary_file(rows, "train", dtype="float32")
