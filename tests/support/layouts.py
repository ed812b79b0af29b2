"""Writers of small data sets in every layout."""

import csv
import io
import json
import tarfile
from pathlib import Path

LISTS = {"train": "train", "val": "dev", "test": "test"}  # split: its name in Flickr8k's lists


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"never opened: {path}".encode())  # no two images have the same content


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def write_flickr8k(root, captions, lists, *, text="Flickr8k_text", images="Flicker8k_Dataset"):
    """captions: name -> captions; lists: split -> names."""
    rows = [f"{name}#{i}\t{c}\n" for name, texts in captions.items() for i, c in enumerate(texts)]
    write(root / text / "Flickr8k.token.txt", "".join(rows))
    for split, names in lists.items():
        path = root / text / f"Flickr_8k.{LISTS[split]}Images.txt"
        write(path, "".join(f"{name}\n" for name in names))
    for name in captions:
        touch(root / images / name)
    return root


def write_kaggle(root, captions):
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(["image", "caption"])
    table.writerows((name, c) for name, texts in captions.items() for c in texts)
    write(root / "captions.txt", content.getvalue())
    for name in captions:
        touch(root / "Images" / name)
    return root


def coco(captions):
    """The JSON of images with these captions by id; image 1 is 1.jpg."""
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in captions]
    annotations = [
        {"id": 10 * i + k, "image_id": i, "caption": c}
        for i, texts in captions.items()
        for k, c in enumerate(texts)
    ]
    return {"images": images, "annotations": annotations}


def write_coco(root, name, content, *, directory=None):
    write(root / "annotations" / f"captions_{name}.json", json.dumps(content, ensure_ascii=False))
    for image in content["images"]:
        touch(root / (directory or name) / image["file_name"])
    return root


def numbered_images(count):
    return {f"{i:02}.jpg": [f"a dog number {i}", f"the dog {i}"] for i in range(count)}


def write_karpathy(root, images, name="coco"):
    """images: (split, directory or None, name, captions); with a directory, COCO ids are added."""
    content = {"images": [], "dataset": name}
    for number, (split, directory, file, captions) in enumerate(images):
        sentences = [
            {"tokens": c.split(), "raw": c, "imgid": number, "sentid": 10 * number + k}
            for k, c in enumerate(captions)
        ]
        image = {"sentids": [s["sentid"] for s in sentences], "imgid": number, "split": split}
        image |= {"sentences": sentences, "filename": file}
        if directory:
            image |= {"filepath": directory, "cocoid": 1000 + number}
        content["images"].append(image)
        touch(root / (directory or "Flicker8k_Dataset") / file)
    write(root / f"dataset_{name}.json", json.dumps(content, ensure_ascii=False))
    return root


def write_flickr30k(root, captions):
    rows = [f"{name}#{i}\t{c}\n" for name, cs in captions.items() for i, c in enumerate(cs)]
    write(root / "results_20130124.token", "".join(rows))
    for name in captions:
        touch(root / "flickr30k-images" / name)
    return root


def write_kaggle30k(root, captions):
    rows = [f"{name}| {i}| {c}\n" for name, cs in captions.items() for i, c in enumerate(cs)]
    write(root / "results.csv", "image_name| comment_number| comment\n" + "".join(rows))
    for name in captions:
        touch(root / "flickr30k_images" / name)
    return root


def write_jsonl(root, captions, name="captions.jsonl", column="image"):
    rows = [{column: image, "caption": c} for image, cs in captions.items() for c in cs]
    write(root / name, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    for image_name in captions:
        touch((root / name).parent / image_name)
    return root


def write_relations(root, captions):
    rows = [{"image": image, "text": c, "labels": {}} for image, cs in captions.items() for c in cs]
    write(root / "relations.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    for image_name in captions:
        touch(root / image_name)
    return root


def write_csv(root, captions, name="captions.csv"):
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(["id", "filename", "caption"])
    rows = [(image_name, c) for image_name, cs in captions.items() for c in cs]
    table.writerows((number, *row) for number, row in enumerate(rows))
    write(root / name, content.getvalue())
    for image_name in captions:
        touch((root / name).parent / image_name)
    return root


def write_pairs(root, captions):
    for name, texts in captions.items():
        touch(root / name)
        write((root / name).with_suffix(".txt"), "".join(f"{c}\n" for c in texts))
    return root


def write_tar(path, members, format=tarfile.GNU_FORMAT, mode="w"):
    """members: pairs of a name and the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=format) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_webdataset(root, captions, name="00000.tar"):
    members = []
    for image_name, texts in captions.items():
        text = "".join(f"{c}\n" for c in texts).encode()
        members += [(image_name, b"never opened"), (f"{Path(image_name).stem}.txt", text)]
    write_tar(root / name, members)
    return root


def write_multi30k(root, captions, split="train", language="en"):
    rows = [(name, c) for name, texts in captions.items() for c in texts]
    write(root / "raw" / f"{split}.{language}", "".join(f"{c}\n" for _, c in rows))
    write(root / "image_splits" / f"{split}.txt", "".join(f"{name}\n" for name, _ in rows))
    for name in captions:
        touch(root / "images" / name)
    return root


WRITERS = {  # functions of a directory and captions by image name
    "coco": lambda root, captions: write_coco(
        root, "train", coco(dict(enumerate(captions.values())))
    ),
    "flickr8k": lambda root, captions: write_flickr8k(root, captions, {"train": list(captions)}),
    "karpathy": lambda root, captions: write_karpathy(
        root, [("train", "train2014", name, texts) for name, texts in captions.items()]
    ),
    "flickr30k": write_flickr30k,
    "kaggle": write_kaggle,
    "kaggle30k": write_kaggle30k,
    "multi30k": write_multi30k,
    "huggingface": lambda root, captions: write_jsonl(
        root, captions, "train/metadata.jsonl", "file_name"
    ),
    "relations": write_relations,
    "jsonl": write_jsonl,
    "csv": write_csv,
    "webdataset": write_webdataset,
    "pairs": write_pairs,
}
