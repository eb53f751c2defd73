"""Tables and lists beside images: labels and splits of public data sets, and refusals where they contradict folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.listing import Listing
from core.data.readers import ReadOptions, detect, read_listing
from core.runtime.errors import UserError
from tests.data.pictures import column, mutated, picture, read_or_rejected, write_files, write_zip


def placed(listing: Listing) -> dict[str, tuple[str, str]]:
    """Return the class and split of every image by its id."""
    return {image: (name, split) for image, name, split in listing.table[["id", "class", "split"]].to_numpy().tolist()}


def make_texts(folder: Path, images: list[str], texts: Mapping[str, str]) -> Path:
    write_files(folder, images)
    return write_files(folder, {name: text.encode() for name, text in texts.items()})


JSON_LINES = "".join(json.dumps({"file_name": f"{n}.jpg", "label": "ab"[n % 2]}) + "\n" for n in range(4))
FLAT = [f"train_images/{n}.jpg" for n in range(4)] + ["test_images/9.jpg"]


@pytest.mark.parametrize(
    "texts",
    [
        {"train.csv": "image_id,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n3.jpg,b\n", "submission.csv": "image_id,label\n9,a"},
        {"train.csv": "id_code,diagnosis\n0,a\n1,b\n2,a\n3,b\n", "test.csv": "id_code\n9\n"},
        {"labels.csv": "Id;Category\r\n0;a\r\n1;b\r\n2;a\r\n3;b\r\n"},
        {"train_images/metadata.csv": "file_name,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n3.jpg,b\n"},
        {"train_images/metadata.jsonl": JSON_LINES},
        {"all.csv": "file,colour,class\n" + "".join(f"/me/train_images/{n}.jpg,{n},{'ab'[n % 2]}\n" for n in range(4))},
    ],
)  # fmt: skip
def test_a_table_gives_the_classes_of_images_without_class_folders(texts: dict[str, str], tmp_path: Path) -> None:
    folder = make_texts(tmp_path / "mine", FLAT, texts)
    packed = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.*")}
    for path in (folder, write_zip(tmp_path / "mine.zip", packed)):
        listing = read_listing(path)
        assert {name: found for name, (found, _) in placed(listing).items()} == {
            f"train_images/{n}.jpg": "ab"[n % 2] for n in range(4)
        }
        assert [listing.read(n) for n in range(4)] == [picture(n) for n in range(4)]
        assert any("'test_images/9.jpg'" in note for note in listing.notes)


def test_a_table_without_labels_is_named_with_its_columns(tmp_path: Path) -> None:
    make_texts(tmp_path, FLAT, {"boxes.csv": "image,left,top\n0.jpg,1,2\n", "more.csv": "a,b\n1,2\n2,3\n"})
    with pytest.raises(UserError) as error:
        read_listing(tmp_path)
    for part in ("boxes.csv", "'image', 'left', 'top'", "more.csv", "'a', 'b'"):
        assert part in str(error.value)


CUB = ["001.Albatross/a_1.jpg", "001.Albatross/a_2.jpg", "002.Auklet/b_1.jpg", "002.Auklet/b_2.jpg"]
CUB_TEXTS = {
    "CUB_200_2011/images.txt": "".join(f"{n} {name}\n" for n, name in enumerate(CUB, 1)),
    "CUB_200_2011/image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "CUB_200_2011/train_test_split.txt": "1 1\n2 0\n3 0\n4 1\n",
    "CUB_200_2011/classes.txt": "1 001.Albatross\n2 002.Auklet\n",
    "CUB_200_2011/bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n",
    "attributes.txt": "1 has_bill_shape::curved\n",
}


def test_cub_200_2011(tmp_path: Path) -> None:
    images = [f"CUB_200_2011/images/{name}" for name in CUB]
    masks = [f"segmentations/{name.replace('.jpg', '.png')}" for name in CUB]
    listing = read_listing(make_texts(tmp_path, images + masks, CUB_TEXTS))
    assert placed(listing) == {
        CUB[0]: ("001.Albatross", "train"),
        CUB[1]: ("001.Albatross", "test"),
        CUB[2]: ("002.Auklet", "test"),
        CUB[3]: ("002.Auklet", "train"),
    }
    assert any("'segmentations/001.Albatross/a_1.png'" in note for note in listing.notes)


def test_cub_without_class_folders(tmp_path: Path) -> None:
    images = [f"CUB_200_2011/images/{name.replace('/', '-')}" for name in CUB]
    texts = {name: text.replace("ss/", "ss-").replace("et/", "et-") for name, text in CUB_TEXTS.items()}
    listing = read_listing(make_texts(tmp_path, images, texts))
    assert sorted(set(placed(listing).values())) == [
        (name, split) for name in ("001.Albatross", "002.Auklet") for split in ("test", "train")
    ]


TINY = [f"tiny-imagenet-200/train/n0{c}/images/n0{c}_{n}.JPEG" for c in (1, 2) for n in range(2)]
TINY_OTHER = [f"tiny-imagenet-200/{part}/images/{part}_{n}.JPEG" for part in ("val", "test") for n in range(3)]
TINY_TEXTS = {
    "tiny-imagenet-200/val/val_annotations.txt": "".join(
        f"val_{n}.JPEG\tn0{n % 2 + 1}\t0\t0\t62\t62\n" for n in range(3)
    ),
    "tiny-imagenet-200/wnids.txt": "n01\nn02\n",
    "tiny-imagenet-200/words.txt": "n01\tentity\n",
    "tiny-imagenet-200/train/n01/n01_boxes.txt": "n01_0.JPEG\t0\t0\t62\t62\n",
}


def test_tiny_imagenet(tmp_path: Path) -> None:
    listing = read_listing(make_texts(tmp_path, TINY + TINY_OTHER, TINY_TEXTS))
    assert column(listing, "class") == ["n01", "n01", "n02", "n02", "n01", "n01", "n02"]
    assert column(listing, "split") == ["train"] * 4 + ["val"] * 3
    assert any("'tiny-imagenet-200/test/images/test_0.JPEG'" in note for note in listing.notes)
    assert not any("Not used" in note for note in listing.notes)


def test_tiny_imagenet_without_annotations_leaves_the_unsorted_images_out(tmp_path: Path) -> None:
    listing = read_listing(make_texts(tmp_path, TINY + TINY_OTHER, {}))
    assert set(column(listing, "class")) == {"n01", "n02"}
    assert set(column(listing, "split")) == {"train"}


EASYFSL = {"train": ("n1", "n2"), "val": ("n3",), "test": ("n4", "n5")}


def test_lists_of_images_by_class_as_easyfsl_has_them(tmp_path: Path) -> None:
    images = [f"images/{one}/{one}_{n}.JPEG" for names in EASYFSL.values() for one in names for n in range(2)]
    texts = {
        f"{split}.csv": "class_name,image_name\n"
        + "".join(f"{one},{one}_{n}.JPEG\n" for one in names for n in range(2))
        for split, names in EASYFSL.items()
    }
    listing = read_listing(make_texts(tmp_path, images, texts))
    assert dict(placed(listing).values()) == {one: split for split, names in EASYFSL.items() for one in names}
    assert len(listing) == len(images)


def test_class_lists_beside_the_images(tmp_path: Path) -> None:
    images = [f"CUB/{one}/{n}.jpg" for names in EASYFSL.values() for one in names for n in range(2)]
    for number, form in enumerate(
        (
            lambda names: {"class_names": list(names), "class_roots": [f"./CUB/{one}" for one in names]},
            lambda names: {
                "label_names": ["n1", "n2", "n3", "n4", "n5"],
                "image_labels": [int(one[1]) - 1 for one in names],
            },
            list,
        )
    ):
        lists = {f"CUB/{split}.json": json.dumps(form(names)) for split, names in EASYFSL.items()}
        listing = read_listing(make_texts(tmp_path / str(number), images, lists))
        assert dict(placed(listing).values())["n4"] == "test"
        assert set(column(listing, "split")) == {"train", "val", "test"}


def test_lists_of_images_without_an_extension_give_the_split(tmp_path: Path) -> None:
    images = [f"food-101/images/{one}/{n}.jpg" for one in ("pie", "soup") for n in (1, 2)]
    texts = {"food-101/meta/train.txt": "pie/1\nsoup/1\n", "food-101/meta/test.txt": "pie/2\nsoup/2\n"}
    assert placed(read_listing(make_texts(tmp_path, images, texts))) == {
        "pie/1.jpg": ("pie", "train"),
        "pie/2.jpg": ("pie", "test"),
        "soup/1.jpg": ("soup", "train"),
        "soup/2.jpg": ("soup", "test"),
    }


def test_lists_of_images_and_numbers_of_classes(tmp_path: Path) -> None:
    texts = {"train.txt": "images/a b.jpg 0\nimages/c.jpg 1\n", "val.txt": "images/d.jpg 1\n"}
    listing = read_listing(make_texts(tmp_path, ["images/a b.jpg", "images/c.jpg", "images/d.jpg"], texts))
    assert placed(listing) == {
        "images/a b.jpg": ("0", "train"),
        "images/c.jpg": ("1", "train"),
        "images/d.jpg": ("1", "val"),
    }


SORTED = [f"{split}/{name}/{n}.jpg" for split in ("train", "valid") for name in ("cat", "dog") for n in (1, 2)]


def test_a_table_that_agrees_with_the_folders_changes_no_class(tmp_path: Path) -> None:
    rows = "".join(f"{file},{int('dog' in file)}\n" for file in SORTED)
    listing = read_listing(make_texts(tmp_path, SORTED, {"all.csv": f"path,label\n{rows}"}))
    assert set(column(listing, "class")) == {"cat", "dog"}
    assert set(column(listing, "split")) == {"train", "val"}


def test_a_table_that_contradicts_the_folders_is_refused_until_one_is_chosen(tmp_path: Path) -> None:
    rows = "".join(f"{file},{'pet' if '1' in file else 'toy' if 'dog' in file else 'rug'}\n" for file in SORTED)
    make_texts(tmp_path, SORTED, {"all.csv": f"path,label\n{rows}"})
    with pytest.raises(UserError, match=r"2 classes \('cat', 'dog'\).* 3 \('pet', 'rug', 'toy'\).*--table all\.csv"):
        read_listing(tmp_path)
    assert set(column(read_listing(tmp_path, options=ReadOptions(table="none")), "class")) == {"cat", "dog"}
    by_table = read_listing(tmp_path, options=ReadOptions(table="all.csv"))
    assert set(column(by_table, "class")) == {"pet", "rug", "toy"}
    by_level = read_listing(tmp_path, options=ReadOptions(class_levels=(1, 1)))
    assert set(column(by_level, "class")) == {"cat", "dog"}


def test_two_tables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    texts = {"a.csv": "path,label\nimages/1.jpg,x\n", "b.csv": "path,label\nimages/1.jpg,y\nimages/2.jpg,y\n"}
    make_texts(tmp_path, ["images/1.jpg", "images/2.jpg"], texts)
    with pytest.raises(UserError, match=r"b\.csv, line 2.*'y'.*'x' in a\.csv, line 2.*--table"):
        read_listing(tmp_path)
    assert set(column(read_listing(tmp_path, options=ReadOptions(table="b.csv")), "class")) == {"y"}


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make_texts(tmp_path, SORTED, {"all.csv": "path,label\n"})
    with pytest.raises(UserError, match=r"no table 'other\.csv'; there are 'all\.csv'"):
        read_listing(tmp_path, options=ReadOptions(table="other.csv"))
    with pytest.raises(UserError, match="--class-level"):
        read_listing(tmp_path, options=ReadOptions(table="all.csv", class_levels=(1, 1)))


def test_tables_of_another_kind_do_not_disturb_folders(tmp_path: Path) -> None:
    texts = {
        "stats.csv": "epoch,loss\n1,0.5\n",
        "broken.csv": 'a,b\n"1,2\n',
        "notes.txt": "hello",
        "page.csv": "<html>",
    }
    listing = read_listing(make_texts(tmp_path, SORTED, texts))
    assert len(listing) == len(SORTED)
    for name in ("stats.csv", "broken.csv", "notes.txt", "page.csv"):
        assert any(name in note for note in listing.notes), name


def test_a_table_per_image_is_not_looked_at(tmp_path: Path) -> None:
    listing = read_listing(
        make_texts(tmp_path, SORTED, {f"train/cat/{n}.csv": "path,label\n1.jpg,x\n" for n in range(30)})
    )
    assert set(column(listing, "class")) == {"cat", "dog"}
    assert any("30 tables" in note for note in listing.notes)


def test_train_csv_of_another_data_set_is_not_mini_imagenet(tmp_path: Path) -> None:
    make_texts(tmp_path, FLAT, {"train.csv": "filename,label\n0.jpg,a\n1.jpg,b\n"})
    assert detect(tmp_path) != "mini-imagenet"
    assert set(column(read_listing(tmp_path), "class")) == {"a", "b"}


@pytest.mark.parametrize(
    "header_and_rows",
    [
        ("id,name,label", "1,images/3.jpg,a", "2,images/1.jpg,b", "3,images/2.jpg,a"),
        ("id,photo,label", "3,1.jpg,b", "1,2.jpg,a", "2,3.jpg,a"),
        ("index,image,label,id", "1,images/3.jpg,a,x1", "2,images/1.jpg,b,x2", "3,images/2.jpg,a,x3"),
    ],
)
def test_row_numbers_are_not_names_of_images(header_and_rows: tuple[str, ...], tmp_path: Path) -> None:
    images = [f"images/{n}.jpg" for n in (1, 2, 3)]
    make_texts(tmp_path, images, {"labels.csv": "\n".join(header_and_rows) + "\n"})
    for path in (tmp_path, tmp_path / "labels.csv"):
        listing = read_listing(path)
        assert {listing.read(n): name for n, name in enumerate(column(listing, "class"))} == {
            picture(0): "b",
            picture(1): "a",
            picture(2): "a",
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\nimages/1.jpg,a;b\nimages/2.jpg,a\nimages/3.jpg,b\n", "line 2 has several labels"),
        ("path;label\nimages/1.jpg;['a', 'b']\nimages/2.jpg;['a']\n", "line 2 has several labels"),
        ("images/1.jpg,a\nimages/2.jpg,b\n", "no header"),
        ("path,label\nimages/1.jpg,0.37\nimages/2.jpg,1.0\n", "line 2.*real number"),
        (
            "path,label\nimages/1.jpg,a\nimages/1.jpg,b\n",
            r"line 3: the label of 'images/1\.jpg' is 'b'.*'a' in.*line 2",
        ),
        ("path,width\nimages/1.jpg,3\nimages/2.jpg,4\n", "'path', 'width'"),
        ("filename,x,y\n1.jpg,3,4\n2.jpg,4,5\n", "'filename', 'x', 'y'"),
        ("file_name,text\n1.jpg,A cat.\n2.jpg,A dog.\n", "'file_name', 'text'"),
    ],
)
def test_columns_that_are_no_classes_are_refused_with_their_names(text: str, expected: str, tmp_path: Path) -> None:
    make_texts(tmp_path, [f"images/{n}.jpg" for n in (1, 2, 3)], {"labels.csv": text})
    for path in (tmp_path, tmp_path / "labels.csv"):
        if "label of" not in expected or path == tmp_path:  # a table by itself says that the path occurs twice
            with pytest.raises(UserError, match=expected):
                read_listing(path)


def test_one_column_per_class(tmp_path: Path) -> None:
    """As Roboflow and ISIC export classes."""
    rows = "1.jpg, 1.0, 0.0\n2.jpg, 0, 1\n3.jpg, 1, 0\n"
    make_texts(tmp_path, [f"images/{n}.jpg" for n in (1, 2, 3)], {"labels.csv": f"filename, cat, dog\n{rows}"})
    for path in (tmp_path, tmp_path / "labels.csv"):
        assert column(read_listing(path), "class") == ["cat", "dog", "cat"]
    (tmp_path / "labels.csv").write_text("filename,cat,dog\n1.jpg,1,1\n2.jpg,0,1\n")
    with pytest.raises(UserError, match="'cat', 'dog'"):
        read_listing(tmp_path)


def test_the_label_says_which_of_several_files_of_one_name_is_meant(tmp_path: Path) -> None:
    images = [f"{name}/{n}.jpg" for name in ("cat", "dog") for n in (0, 1)]
    text = "filename,label,split\n0.jpg,cat,train\n0.jpg,dog,test\n1.jpg,cat,test\n1.jpg,dog,train\n"
    assert placed(read_listing(make_texts(tmp_path, images, {"split.csv": text}))) == {
        "cat/0.jpg": ("cat", "train"),
        "cat/1.jpg": ("cat", "test"),
        "dog/0.jpg": ("dog", "test"),
        "dog/1.jpg": ("dog", "train"),
    }


def test_a_table_that_exchanges_the_classes_of_the_folders_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{file},{'dog' if 'cat' in file else 'cat'}\n" for file in SORTED)
    with pytest.raises(UserError, match="--table"):
        read_listing(make_texts(tmp_path, SORTED, {"all.csv": f"path,label\n{rows}"}))


def test_labels_of_other_images_in_other_words_are_not_used(tmp_path: Path) -> None:
    images = [*SORTED, "test/t0.jpg", "test/t1.jpg"]
    for labels in ("01", ("Cat", "Dog")):
        text = f"filename,label\nt0.jpg,{labels[0]}\nt1.jpg,{labels[1]}\n"
        listing = read_listing(make_texts(tmp_path, images, {"test_labels.csv": text}))
        assert set(column(listing, "class")) == {"cat", "dog"}
        assert any("test_labels.csv" in note and repr(labels[0]) in note for note in listing.notes)
    make_texts(tmp_path, [], {"test_labels.csv": "filename,label\nt0.jpg,cat\nt1.jpg,dog\n"})
    assert len(read_listing(tmp_path)) == len(images)


def test_lists_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    texts = {f"labels/{split}{n}.txt": f"cat/{n}.jpg\n" for split, n in (("train", 1), ("test", 2), ("train", 2))}
    with pytest.raises(UserError, match=r"the split of 'images/cat/2\.jpg'"):
        read_listing(make_texts(tmp_path, [f"images/{pet}/{n}.jpg" for pet in ("cat", "dog") for n in (1, 2)], texts))


def test_a_split_of_a_table_that_differs_from_the_folders_is_reported(tmp_path: Path) -> None:
    rows = "".join(f"{file},{'dog' if 'dog' in file else 'cat'},test\n" for file in SORTED)
    listing = read_listing(make_texts(tmp_path, SORTED, {"all.csv": f"path,label,split\n{rows}"}))
    assert set(column(listing, "split")) == {"train", "val"}
    assert any("8 images" in note and "all.csv" in note for note in listing.notes)


def test_several_tables_of_different_images_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    texts = dict.fromkeys(("labels.csv", "labels (1).csv"), "path,label\nimages/1.jpg,x\nimages/2.jpg,y\n")
    make_texts(tmp_path, [f"images/{n}.jpg" for n in (1, 2, 3)], texts)
    assert len(read_listing(tmp_path)) == 2  # two equal tables
    (tmp_path / "labels_all.csv").write_text("path,label\nimages/1.jpg,x\nimages/2.jpg,y\nimages/3.jpg,y\n")
    with pytest.raises(UserError, match=r"labels_all\.csv to 3 images.*--table"):
        read_listing(tmp_path)
    assert len(read_listing(tmp_path, options=ReadOptions(table="labels_all.csv"))) == 3


def test_tables_of_one_name_are_given_with_their_folders(tmp_path: Path) -> None:
    texts = {f"{split}/labels.csv": "path,label\n1.jpg,x\n2.jpg,y\n" for split in ("train", "test")}
    make_texts(tmp_path, [f"{split}/{n}.jpg" for split in ("train", "test") for n in (1, 2)], texts)
    with pytest.raises(UserError, match=r"test/labels\.csv,train/labels\.csv"):
        read_listing(tmp_path, options=ReadOptions(table="labels.csv"))
    both = ReadOptions(table="train/labels.csv,test/labels.csv")
    assert len(read_listing(tmp_path, options=both)) == 4
    assert set(column(read_listing(tmp_path), "split")) == {"train", "test"}


def test_an_encoding_without_text_is_refused(tmp_path: Path) -> None:
    make_texts(tmp_path, ["images/1.jpg", "images/2.jpg"], {})
    pd.DataFrame({"path": ["images/1.jpg", "images/2.jpg"], "label": ["a", "b"]}).to_parquet(tmp_path / "m.parquet")
    for path in (tmp_path, tmp_path / "m.parquet"):
        assert len(read_listing(path)) == 2
        with pytest.raises(UserError, match="--encoding"):
            read_listing(path, options=ReadOptions(encoding="cp1252"))


def test_files_that_may_hold_labels_are_named_in_a_refusal(tmp_path: Path) -> None:
    names = ["labels.xlsx", "annotations/instances.json", "list.txt"]
    make_texts(tmp_path, FLAT, dict.fromkeys(names, "x"))
    with pytest.raises(UserError) as error:
        read_listing(tmp_path)
    assert [name for name in names if name not in str(error.value)] == []


def test_lists_that_miss_a_class_are_named_and_not_applied(tmp_path: Path) -> None:
    listing = read_listing(make_texts(tmp_path, SORTED_CLASSES, {"train.txt": "cat\n", "test.txt": "dog\n"}))
    assert set(column(listing, "class")) == {"cat", "dog", "cow"}
    assert any("'train.txt'" in note and "'cow'" in note for note in listing.notes)


def test_a_missing_file_does_not_take_another_of_its_name(tmp_path: Path) -> None:
    text = "path,label\na/1.png,cat\na/2.png,dog\na/3.png,cat\n"
    make_texts(tmp_path, ["a/2.png", "a/3.png", "b/1.png"], {"labels.csv": text})
    for path, options in ((tmp_path, ReadOptions(table="labels.csv")), (tmp_path / "labels.csv", ReadOptions())):
        listing = read_listing(path, options=options)
        assert column(listing, "id") == ["a/1.png", "a/2.png", "a/3.png"]
        assert any("'a/1.png'" in note and "missing" in note for note in listing.notes)
    other = make_texts(
        tmp_path / "other", ["cat/2.png", "dog/1.png"], {"labels.csv": "path,label\ncat/1.png,dog\ncat/2.png,cat\n"}
    )
    assert placed(read_listing(other)) == {"cat/2.png": ("cat", ""), "dog/1.png": ("dog", "")}


def test_groups_and_splits_of_another_table_are_used(tmp_path: Path) -> None:
    texts = {
        "labels.csv": "path,label\nimages/1.jpg,x\nimages/2.jpg,y\n",
        "meta.csv": "path,Split,group\nimages/1.jpg,train,w1\nimages/2.jpg,test,w2\n",
    }
    listing = read_listing(make_texts(tmp_path, ["images/1.jpg", "images/2.jpg"], texts))
    assert column(listing, "group") == ["w1", "w2"]
    assert column(listing, "split") == ["train", "test"]
    (tmp_path / "meta.csv").write_text("path,group\nimages/1.jpg,w1\nimages/2.jpg,w2\n")
    assert column(read_listing(tmp_path), "group") == ["w1", "w2"]


@pytest.mark.parametrize(
    "text",
    [
        "path,label,set\nimages/1.jpg,x,\nimages/2.jpg,y,\n",
        "path,label,fold\nimages/1.jpg,x,1\nimages/2.jpg,y,2\n",
        ",path,label\n0,images/1.jpg,x\n1,images/2.jpg,y\n",
    ],
)
def test_columns_of_other_meaning_do_not_disturb(text: str, tmp_path: Path) -> None:
    make_texts(tmp_path, ["images/1.jpg", "images/2.jpg"], {"labels.csv": text})
    for path in (tmp_path, tmp_path / "labels.csv"):
        assert column(read_listing(path), "class") == ["x", "y"]


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    make_texts(tmp_path, ["images/1.jpg"], {"labels.csv": "path,label,set\n"})
    pd.DataFrame({"path": [], "label": [], "set": []}).to_parquet(tmp_path / "labels.parquet")
    for name in ("labels.csv", "labels.parquet"):
        with pytest.raises(UserError, match="rows"):
            read_listing(tmp_path / name)


def test_rows_of_missing_files_before_the_others_do_not_hide_them(tmp_path: Path) -> None:
    rows = [f"images/x{n}.jpg,x\n" for n in range(900)] + ["images/1.jpg,x\n", "images/2.jpg,y\n"] * 1
    images = [f"images/{n}.jpg" for n in (1, 2)] + [f"images/x{n}.jpg" for n in range(700, 900)]
    for lines in (rows, rows[::-1]):
        make_texts(tmp_path, images, {"labels.csv": "path,label\n" + "".join(lines)})
        assert len(read_listing(tmp_path)) == len(images)


def test_a_column_id_beside_class_folders_is_named(tmp_path: Path) -> None:
    rows = "".join(f"{file},{'dog' if 'dog' in file else 'cat'},{n}\n" for n, file in enumerate(SORTED))
    listing = read_listing(make_texts(tmp_path, SORTED, {"all.csv": f"path,label,id\n{rows}"}))
    assert any("id" in note and "all.csv" in note and "not used" in note for note in listing.notes)


def test_class_lists_are_named_with_their_option_where_classes_are_not_clear(tmp_path: Path) -> None:
    images = [f"{animal}/{name}/1.jpg" for animal, names in (("pet", "ab"), ("wild", "cd")) for name in names]
    lists = {
        f"lists/{split}.json": json.dumps({"class_names": list(names)})
        for split, names in (("train", "ab"), ("val", "cd"))
    }
    make_texts(tmp_path, images, lists)
    with pytest.raises(UserError, match=f"--splits {tmp_path / 'lists'}"):
        read_listing(tmp_path)
    listing = read_listing(tmp_path, options=ReadOptions(class_levels=(2, 2), splits=tmp_path / "lists"))
    assert dict(placed(listing).values()) == {"a": "train", "b": "train", "c": "val", "d": "val"}


def test_many_lists_are_not_looked_at(tmp_path: Path) -> None:
    listing = read_listing(make_texts(tmp_path, SORTED, {f"train/cat/train_{n}.txt": "0 0.5 0.5\n" for n in range(30)}))
    assert any("30 lists" in note for note in listing.notes)


def test_class_lists_are_not_reported_as_unused(tmp_path: Path) -> None:
    texts = {"train.txt": "\ufeffcat\ncow\n", "test.txt": "dog\n"}
    listing = read_listing(make_texts(tmp_path, SORTED_CLASSES, texts))
    assert dict(placed(listing).values()) == {"cat": "train", "cow": "train", "dog": "test"}
    assert not any("Not used" in note for note in listing.notes)


@pytest.mark.parametrize(
    "texts",
    [
        {"train.txt": "cat\ncow\n", "test.txt": "dog\ncow\n"},
        {"train.txt": "cat\n", "base.txt": "cow\n", "test.txt": "dog\n"},
    ],
)
def test_class_lists_with_contradictions_are_named_and_not_applied(texts: dict[str, str], tmp_path: Path) -> None:
    listing = read_listing(make_texts(tmp_path, SORTED_CLASSES, texts))
    assert set(column(listing, "split")) == {""}
    assert any("Not used" in note and "'train.txt'" in note for note in listing.notes)
    with pytest.raises(UserError):
        read_listing(tmp_path, options=ReadOptions(splits=tmp_path))


def test_names_in_other_unicode_forms_and_cases(tmp_path: Path) -> None:
    names = ["caf\u00e9.jpg", "a.jpg", "A.jpg"]
    write_files(tmp_path / "images", {"cafe\u0301.jpg": picture(1), "a.jpg": picture(2), "A.jpg": picture(3)})
    rows = "".join(f"{name},{label}\n" for name, label in zip(names, "xyz", strict=True))
    (tmp_path / "labels.csv").write_text(f"filename,label\n{rows}", encoding="utf-8")
    listing = read_listing(tmp_path)
    assert {listing.read(n): name for n, name in enumerate(column(listing, "class"))} == {
        picture(1): "x",
        picture(2): "y",
        picture(3): "z",
    }


def test_lists_of_paths_of_which_some_end_in_a_number(tmp_path: Path) -> None:
    texts = {"train.txt": "cat/cat 0\ncat/dog\n", "test.txt": "dog/1\n"}
    listing = read_listing(make_texts(tmp_path, ["cat/cat 0.jpg", "cat/dog.jpg", "dog/1.jpg"], texts))
    assert {name: split for name, (_, split) in placed(listing).items()} == {
        "cat/cat 0.jpg": "train",
        "cat/dog.jpg": "train",
        "dog/1.jpg": "test",
    }


SORTED_CLASSES = [f"{name}/{n}.jpg" for name in ("cat", "dog", "cow") for n in (1, 2)]
texts = {**CUB_TEXTS, **TINY_TEXTS, "train.csv": "class_name,image_name\n001.Albatross,a_1.jpg\n", "val.txt": "a_1 3\n"}


@given(st.data(), st.sampled_from(sorted(texts)))
def test_damaged_tables_are_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        write_files(folder, [f"CUB_200_2011/images/{one}" for one in CUB] + TINY + TINY_OTHER)
    for one, text in texts.items():
        group = one.split("/")[0]
        if group == name.split("/")[0]:
            write_files(folder, {one: mutated(data, text.encode()) if one == name else text.encode()})
        else:
            (folder / one).unlink(missing_ok=True)
    read_or_rejected(folder, "auto")


@given(
    st.dictionaries(st.sampled_from(["a.csv", "train.csv", "x/b.jsonl", "val.txt"]), st.binary(max_size=80), max_size=3)
)
def test_any_tables_are_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, tables: dict[str, bytes]) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-tables"
    for file in folder.rglob("*.*"):
        if file.suffix != ".jpg":
            file.unlink()
    write_files(folder, SORTED)
    write_files(folder, {name: b"path,label\ntrain/cat/1.jpg,cat\n" + raw for name, raw in tables.items()})
    read_or_rejected(folder, "auto")
