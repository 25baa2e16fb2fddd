"""A task of one's own in ten lines: `mmrl train` with `data.task=examples/exact_task.py:count`.

Records are lines such as {"id": "1", "image": "images/1.png", "count": 3}. Look at it with
`mmrl tasks examples/exact_task.py:count --data records.jsonl`, check it with `--check`.
"""

from mmrl.rewards.exact import task


@task("count the digits")
def count(row):
    if row["count"] < 0:
        raise ValueError("a count below 0")  # the record is left out, with this reason
    return row["image"], "How many digits are in the picture?", row["count"]
