#!/bin/sh
# torchvision 0.29.1: batched_nms shifts the boxes of a group by its index times the largest
# coordinate, in float32. If the groups are numbered by, say, image ids of Visual Genome, that rounds
# coordinates to multiples of 128 pixels, and duplicates are kept that go if the same groups have the
# numbers 0 and 1 or nms is called for each. The docstring puts no limit on the indices. Status 0
# while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1
venv/bin/python - <<'PYTHON'
import torch
import torchvision
from torchvision.ops import batched_nms, box_iou, nms

print("torchvision", torchvision.__version__, "torch", torch.__version__)
print("expected by the docstring of batched_nms: the boxes that nms keeps in each group")
# In each of two images: two boxes of the same object, of which the second is to go, and one beside.
boxes = torch.tensor([[100, 100, 140, 140], [104, 100, 144, 140], [600, 400, 639, 439]] * 2).float()
scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
print(f"overlap (IoU) of the first two boxes: {box_iou(boxes, boxes)[0, 1]:.2f}, threshold 0.5")
kept = {}
for ids in ([0, 1], [2417996, 2417997]):
    groups = torch.tensor(ids).repeat_interleave(3)
    kept[ids[0]] = sorted(batched_nms(boxes, scores, groups, 0.5).tolist())
    single = sorted(
        int(index)
        for id in ids
        for rows in [(groups == id).nonzero()[:, 0]]
        for index in rows[nms(boxes[rows], scores[rows], 0.5)]
    )
    print(f"groups {ids}: batched_nms keeps {kept[ids[0]]}, nms of each group {single}")
    assert single == [0, 2, 3, 5], single
assert kept[0] == [0, 2, 3, 5], kept
assert kept[2417996] != kept[0], "the behaviour has changed: ids of groups do not matter"
PYTHON
