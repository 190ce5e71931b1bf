"""Fill in the tables of README.md from the figures beside it, as `make bench` does at its end.

The page says where by ``<!-- begin NAME -->`` and ``<!-- end -->``; what stands between them is
made of NAME.json.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from benchmarks.measuring import FOLDER

BLOCK = re.compile(r"<!-- begin ([a-z]+) -->\n.*?<!-- end -->", re.DOTALL)
Found = Mapping[str, Any]


def built(page: str) -> str:
    """Return the page with its blocks filled in; a figure that was not measured is left blank."""

    def block(match: re.Match[str]) -> str:
        path = FOLDER / f"{match[1]}.json"
        text = "Not measured yet."
        if path.exists():
            found = json.loads(path.read_text("utf-8"))
            text = "\n\n".join([
                f"Measured on {_machine(found['machine'])}.",
                *TABLES[match[1]](found),
            ])
        return f"<!-- begin {match[1]} -->\n\n{text}\n\n<!-- end -->"

    return BLOCK.sub(block, page)


def _machine(machine: Found) -> str:
    gpu = machine["gpu"] or "no GPU"
    return f"{machine['cores']} cores of {machine['cpu']}, {gpu}; torch {machine['torch']}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table; numbers with three digits, large ones whole."""
    texts = [[_told(cell) for cell in row] for row in rows]
    align = ["left", *["right"] * (len(head) - 1)]
    return str(tabulate(texts, head, "github", disable_numparse=True, colalign=align))


def _told(cell: Any) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{cell:,.0f}" if abs(cell) >= 100 or cell == int(cell) else f"{cell:.3g}"


def mixing(found: Found) -> Iterator[str]:
    """Yield the kernels beside their peers, the types, and all methods."""
    ours = [*found["sizes"][0]["times_faster_than_the_best_peer"]]
    peers = ("torchvision", "timm", "kornia", "Algorithm 1")
    for size in found["sizes"]:
        copies, faster = size["copies"], size["times_faster_than_the_best_peer"]
        head = [f"{size['size']} pixels, in copies", "ours", *peers, "times faster than the best"]
        yield _table(head, [
            [
                name,
                copies[name],
                *(copies.get(f"{name.split(',')[0]}, {peer}") for peer in peers),
                faster[name],
            ]
            for name in ours
        ])  # fmt: skip
    types = ("float32", "bfloat16", "uint8")
    rows = [
        [f"{name}, {size}", *(by_type[kind].get(name) for kind in types)]
        for size, by_type in found["types"].items()
        for name in ours
    ]
    yield _table(["in copies of that type", *types], rows)
    methods = [[f"`{n}`", m["copies"], m["growth"]] for n, m in found["methods"].items()]
    yield _table(["method, 112 pixels", "copies", "256 images over 128"], methods)


def loader(found: Found) -> Iterator[str]:
    """Yield what a batch takes."""
    ms = found["ms_per_batch"]
    yield _table(
        ["", "ms per batch", "times faster than 0 workers", "than 2 workers"],
        [
            ["PIL images, DataLoader with 0 workers", ms["pil_0_workers"], None, None],
            ["PIL images, DataLoader with 2 workers", ms["pil_2_workers"], None, None],
            [
                "resident",
                ms["resident"],
                found["times_faster_than_0_workers"],
                found["times_faster_than_2_workers"],
            ],
            [
                "resident, mixed by Random PatchMix",
                ms["resident_mixed"],
                found["mixed_times_faster_than_0_workers"],
                found["mixed_times_faster_than_2_workers"],
            ],
        ],
    )
    yield (
        f"Mixing adds {found['mixing_adds_percent']:.0f} % to the resident batch. Unaugmented "
        f"pixels of both ways are equal to {found['largest_difference_of_pixels']:.0e}."
    )


def train(found: Found) -> Iterator[str]:
    """Yield what the harness adds to a step."""
    columns = ("plain_ms", "harness_ms", "overhead_percent_median", "overhead_percent_total")
    head = ["net", "plain, ms per step", "harness", "overhead in %, median of steps", "their sum"]
    yield _table(head, [[m["model"], *(m[c] for c in columns)] for m in found["models"]])


def wsol(found: Found) -> Iterator[str]:
    """Yield what the boxes of a map take."""
    maps = [points for points in found if points.endswith(("x14", "x28"))]
    ms = {
        "opencv_1000_thresholds": "OpenCV at 1,000 thresholds, ms per map",
        "opencv_255_thresholds": "OpenCV at the 255 that differ",
        "one_pass": "one pass",
    }
    times = {
        "times_faster_than_1000_thresholds": "times faster than at 1,000",
        "times_faster_than_255_thresholds": "times faster than at 255",
    }
    rows = [[told, *(found[m]["ms_per_map"][name] for m in maps)] for name, told in ms.items()]
    rows += [[told, *(found[m][name] for m in maps)] for name, told in times.items()]
    yield _table(["", *maps], rows)


def engines(found: Found) -> Iterator[str]:
    """Yield what the engines take."""
    there = [name for name in ("local", "ray") if name in found]
    names = {
        "start_s": "seconds until it is there, with imports",
        "s_per_job": "seconds per stage, beyond its own",
        "pss_mb": "launcher's memory (PSS), MB",
    }
    rows = [[told, *(found[engine][name] for engine in there)] for name, told in names.items()]
    yield _table(["", *there], rows)


def search(found: Found) -> Iterator[str]:
    """Yield the search beside the plain one, and its machinery."""
    full = found["full"]
    runs = [found["search"], *([full] if full else [])]
    names = {
        "plain_s": "plain, seconds (scaled)",
        "search_s": "search, seconds",
        "times_faster": "times faster",
        "plain_forwards": "plain, images forwarded",
        "search_forwards": "search, images forwarded",
        "times_fewer_forwards": "times fewer",
        "largest_fitness_difference": "largest difference in fitness",
        "best_fitness": "best fitness (lower is harder)",
    }
    head = ["", *(f"population {r['population']}, {r['generations']} generations" for r in runs)]
    yield _table(head, [[told, *(run[name] for run in runs)] for name, told in names.items()])
    yield "Without a network, 500 x 250 (200 and 1000 classes: 25 generations, scaled):"
    machinery = [
        [str(m["classes"]), m["bytes_per_individual"], m["machinery_s"]] for m in found["machinery"]
    ]
    yield _table(["classes", "bytes per individual", "seconds of machinery"], machinery)
    if full:
        yield from _full_search(full)


def _full_search(full: Found) -> Iterator[str]:
    """Yield the direct search, and how much of what is found on few images holds for others."""
    direct = full["direct"]
    yield (
        f"500 x 250 was measured on {_machine(full['machine'])}. There `search=direct` solved the "
        f"same problem in {direct['seconds']:.0f} s, {direct['times_faster_than_plain']:.0f} times "
        f"faster than plain, with {direct['items_per_pair']:.0f} masks per pair; its fitness is "
        f"{direct['fitness']:.3f}. The best masks of ten class pairs, and how much of their gain "
        f"over random masks ({full['transfer']['random_masks']:.3f}) is left on 128 other image "
        "pairs:"
    )
    rows = [
        [
            str(m["image_pairs"]),
            m["found"],
            m["on_others"],
            f"{100 * m['share_of_the_gain_kept']:.0f} %",
        ]
        for m in full["transfer"]["best_masks"]
    ]
    yield _table(["image pairs", "accuracy found", "on others", "share of the gain kept"], rows)


def startup(found: Found) -> Iterator[str]:
    """Yield what starts take."""
    rows = [[f"`{n}`", s, found["times_pythons_start"][n]] for n, s in found["seconds"].items()]
    yield _table(["", "seconds", "times Python's own start"], rows)


def gpu(found: Found) -> Iterator[str]:
    """Yield what a GPU makes of it."""
    yield _table(["in copies of the batch", ""], [[n, c] for n, c in found["mixes"].items()])
    for part in ("steps", "forwards", "searched", "large"):
        yield _table([part, ""], [[n.replace("_", " "), v] for n, v in found[part].items()])
    head = ["18 packed runs", "times faster than computed", "than recorded, one after the other"]
    yield _table(head, [[model, *times.values()] for model, times in found["packs"].items()])


def growth(found: Found) -> Iterator[str]:
    """Yield the curves' numbers."""
    kernels = ("blend", "box", "grid")
    for by, rows in found["mixing"].items():
        column = by.removeprefix("by_")
        told = [[str(row[column]), *(row[name] for name in kernels)] for row in rows]
        yield _table([f"mixing: {column}", *(f"{name}, ms" for name in kernels)], told)
    told = [[str(m["classes"]), m["machinery_s"]] for m in found["search"]]
    yield _table(["search: classes", "seconds of machinery, 500 x 250"], told)
    for name, columns in (
        ("reporting", ("records", "first_s", "again_s", "peak_mib")),
        ("planning", ("cells", "seconds", "peak_mib")),
        ("scheduling", ("stages", "ms")),
    ):
        head = [f"{name}: {columns[0]}", *(c.replace("_", " ") for c in columns[1:])]
        yield _table(
            head, [[f"{r[columns[0]]:,}", *(r[c] for c in columns[1:])] for r in found[name]]
        )


TABLES: Mapping[str, Callable[[Found], Iterator[str]]] = {
    table.__name__: table
    for table in (mixing, loader, train, search, wsol, engines, startup, growth, gpu)
}


def main() -> None:
    """Rewrite the page."""
    page = FOLDER / "README.md"
    page.write_text(built(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
