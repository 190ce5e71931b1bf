"""Fill the tables of README.md with the results of the benchmarks, as `make bench` does at its end.

README.md marks each table with ``<!-- begin NAME -->`` and ``<!-- end -->``; the text in between is
generated from NAME.json.
"""

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from benchmarks.measuring import FOLDER

BLOCK = re.compile(r"<!-- begin ([a-z_]+) -->\n.*?<!-- end -->", re.DOTALL)
Found = Mapping[str, Any]


def built(page: str) -> str:
    """Return the page with its blocks filled; a missing result becomes "Not measured yet."."""

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
    """Return a table; numbers have three significant digits, large ones no decimals."""
    texts = [[_formatted(cell) for cell in row] for row in rows]
    align = ["left", *["right"] * (len(head) - 1)]
    return str(tabulate(texts, head, "github", disable_numparse=True, colalign=align))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 128, break_long_words=False, break_on_hyphens=False)


def _formatted(cell: Any) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{cell:,.0f}" if abs(cell) >= 100 or cell == int(cell) else f"{cell:.3g}"


def mixing(found: Found) -> Iterator[str]:
    """Yield the tables of the kernels and their peers, of data types, and of all methods."""
    ours = [*found["sizes"][0]["times_faster_than_the_best_peer"]]
    peers = ("torchvision", "timm", "kornia", "Algorithm 1")
    for size in found["sizes"]:
        copies, faster = size["copies"], size["times_faster_than_the_best_peer"]
        side = f"{size['size']} x {size['size']} pixels"
        head = [f"{side}, time (copies)", "mixbench", *peers, "speedup over the best peer"]
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
        [f"{name}, {size} x {size} pixels", *(by_type[kind].get(name) for kind in types)]
        for size, by_type in found["types"].items()
        for name in ours
    ]
    yield _table(["time by data type (copies of that type)", *types], rows)
    methods = [
        [f"`{n}`", m["copies"], m["copies_224"], m["growth"]] for n, m in found["methods"].items()
    ]
    head = ["method, copies of the batch", "112 x 112", "224 x 224", "time of 256 images / 128"]
    yield _table(head, methods)


def loader(found: Found) -> Iterator[str]:
    """Yield the table of the time per batch, and the share of mixing."""
    ms = found["ms_per_batch"]
    yield _table(
        ["", "time (ms/batch)", "speedup over 0 workers", "speedup over 2 workers"],
        [
            ["PIL images, DataLoader with 0 workers", ms["pil_0_workers"], None, None],
            ["PIL images, DataLoader with 2 workers", ms["pil_2_workers"], None, None],
            [
                "resident split",
                ms["resident"],
                found["times_faster_than_0_workers"],
                found["times_faster_than_2_workers"],
            ],
            [
                "resident split, mixed by Random PatchMix",
                ms["resident_mixed"],
                found["mixed_times_faster_than_0_workers"],
                found["mixed_times_faster_than_2_workers"],
            ],
        ],
    )
    yield _paragraph(
        f"Mixing adds {found['mixing_adds_percent']:.0f} % to the time of a resident batch. "
        "Without augmentation, the pixels of the two pipelines differ by at most "
        f"{found['largest_difference_of_pixels']:.0e}."
    )
    names = {
        "torchvision_pil": "torchvision: PIL, RandomResizedCrop, flip",
        "torchvision_tensor": "torchvision: decode_jpeg, transforms of tensors",
        "files": "mixbench, from files",
        "packed_256": "mixbench, packed at 256",
        "decode_only": "decoding alone, without crop",
    }
    jpeg, faster = found["jpeg_ms_per_image"], found["jpeg_times_faster_than_torchvision"]
    rows = [[label, jpeg[name], faster[name]] for name, label in names.items()]
    yield _table(["JPEG of 500 x 375 pixels", "time (ms/image)", "speedup over PIL"], rows)


def train(found: Found) -> Iterator[str]:
    """Yield the table of the harness's overhead per training step."""
    columns = ("plain_ms", "harness_ms", "overhead_percent_median", "overhead_percent_total")
    head = ["model", "plain loop (ms/step)", "harness (ms/step)", "overhead, median of steps (%)"]
    head += ["overhead, sum of steps (%)"]
    yield _table(head, [[m["model"], *(m[c] for c in columns)] for m in found["models"]])


def wsol(found: Found) -> Iterator[str]:
    """Yield the table of the time to find the boxes of a map."""
    maps = [points for points in found if points.endswith(("x14", "x28"))]
    ms = {
        "opencv_1000_thresholds": "OpenCV, 1,000 thresholds (ms/map)",
        "opencv_255_thresholds": "OpenCV, the 255 distinct thresholds (ms/map)",
        "one_pass": "mixbench, one pass (ms/map)",
    }
    times = {
        "times_faster_than_1000_thresholds": "speedup over 1,000 thresholds",
        "times_faster_than_255_thresholds": "speedup over 255 thresholds",
    }
    rows = [[label, *(found[m]["ms_per_map"][name] for m in maps)] for name, label in ms.items()]
    rows += [[label, *(found[m][name] for m in maps)] for name, label in times.items()]
    yield _table(["", *maps], rows)


def engines(found: Found) -> Iterator[str]:
    """Yield the table of the overhead of the engines."""
    available = [name for name in ("local", "ray") if name in found]
    names = {
        "start_s": "start, including imports (s)",
        "s_per_job": "overhead per stage (s)",
        "pss_mb": "memory of the launcher, PSS (MiB)",
    }
    rows = [[label, *(found[name][what] for name in available)] for what, label in names.items()]
    yield _table(["", *available], rows)


def search(found: Found) -> Iterator[str]:
    """Yield the tables of the search and the plain implementation, and of its own overhead."""
    full = found["full"]
    runs = [found["search"], *([full] if full else [])]
    names = {
        "plain_s": "plain, scaled (s)",
        "search_s": "search (s)",
        "times_faster": "speedup",
        "plain_forwards": "plain, images forwarded",
        "search_forwards": "search, images forwarded",
        "times_fewer_forwards": "images forwarded, plain / search",
        "largest_fitness_difference": "largest difference in fitness",
        "best_fitness": "best fitness (lower is harder)",
    }
    head = ["", *(f"population {r['population']}, {r['generations']} generations" for r in runs)]
    yield _table(head, [[label, *(run[name] for run in runs)] for name, label in names.items()])
    yield _paragraph(
        "The genetic algorithm alone, without a model, with population 500 and 250 generations "
        "(for 200 and 1000 classes, 25 generations were run and the time was scaled):"
    )
    machinery = [
        [str(m["classes"]), m["bytes_per_individual"], m["machinery_s"]] for m in found["machinery"]
    ]
    yield _table(["classes", "memory per individual (bytes)", "time (s)"], machinery)
    if full:
        yield from _full_search(full)


def _full_search(full: Found) -> Iterator[str]:
    """Yield the result of the direct search, and how well masks generalize to other image pairs."""
    direct = full["direct"]
    yield _paragraph(
        "The run with population 500 and 250 generations was measured on "
        f"{_machine(full['machine'])}. For the same problem, `search=direct` took "
        f"{direct['seconds']:.0f} s and was {direct['times_faster_than_plain']:.0f} times faster "
        f"than the plain implementation; it scored {direct['items_per_pair']:.0f} masks per pair, "
        f"and its fitness is {direct['fitness']:.3f}."
    )
    yield _paragraph(
        "The next table shows the best masks of ten class pairs by the number of image pairs that "
        "the search used. It compares the patch accuracy on these image pairs with the accuracy on "
        "128 other image pairs, and shows how much of the improvement over random masks (accuracy "
        f"{full['transfer']['random_masks']:.3f}) remains on the others."
    )
    rows = [
        [
            str(m["image_pairs"]),
            m["found"],
            m["on_others"],
            f"{100 * m['share_of_the_gain_kept']:.0f}",
        ]
        for m in full["transfer"]["best_masks"]
    ]
    head = ["image pairs", "accuracy, searched pairs", "accuracy, other pairs"]
    yield _table([*head, "improvement kept (%)"], rows)


def search_real(found: Found) -> Iterator[str]:
    """Yield the table of the searches with a real network."""
    head = ["", "images scored", "accuracy, search's images (%)", "accuracy, unseen images (%)"]
    rows: list[list[Any]] = [["random pairs", None, None, 100 * found["random"]["unseen"], None]]
    rows += [
        [name, one["images"], *(100 * one[part] for part in ("seen", "unseen", "kept"))]
        for name, one in found.items()
        if isinstance(one, dict) and "kept" in one
    ]
    yield _paragraph(
        f"The network classifies {found['validation_top1']:.1f} % of its validation images "
        f"correctly. Each search looks for {found['pairs']} pairs, with {found['image_pairs']} "
        "image pairs each. The accuracy is that of patches; lower is harder."
    )
    yield _table([*head, "improvement kept (%)"], rows)


def scale(found: Found) -> Iterator[str]:
    """Yield the tables of searches by number of classes, of guided steps and of ImageNet."""
    head = ["classes", "search", "images scored", "share of the gain (%)"]
    rows = [
        [classes, name, one["images"], f"{100 * one['share']:.0f}", _percent(one)]
        for name in ("genetic", "direct")
        for classes, one in found[name].items()
    ]
    yield _table([*head, "largest share of one first solution (%)"], rows)
    steps = found["steps"]
    yield _table(
        ["training step, 64 photographs", "time (ms)", "guided step / this step"],
        [
            ["guided_patchmix", steps["guided_ms"], None],
            ["random_patchmix", steps["random_ms"], steps["guided_to_random"]],
            [
                "random_patchmix, decoding as many images",
                steps["decodes_more_ms"],
                steps["guided_to_decodes_more"],
            ],
        ],
    )
    yield _paragraph(
        f"A held-out image of 224 pixels takes {found['held_out_kb_per_image']:.1f} kB."
    )
    imagenet = found["imagenet"]
    yield _paragraph(
        "The ImageNet column of Table 2, five methods and three seeds, trains on "
        f"{imagenet['images_trained']:,} images, scores at most "
        f"{imagenet['images_searched_at_most']:,} in searches and predicts "
        f"{imagenet['images_predicted']:,}. If a GPU trains ResNet-50 on "
        f"{imagenet['assumed_images_per_s']:,.0f} images per second, which NVIDIA reports for an "
        "A100 in mixed precision, and a forward pass takes a third of a training step, that is "
        f"{imagenet['hours_1_gpu']:.0f} hours on one GPU and {imagenet['hours_8_gpus']:.0f} on "
        "eight, if the images are read as fast."
    )


def _percent(one: Found) -> str:
    return f"{100 * one['first_pairs']:.0f}" if "first_pairs" in one else ""


def startup(found: Found) -> Iterator[str]:
    """Yield the table of start-up times."""
    rows = [[f"`{n}`", s, found["times_pythons_start"][n]] for n, s in found["seconds"].items()]
    yield _table(["", "time (s)", "multiple of `python -c pass`"], rows)


def survey(found: Found) -> Iterator[str]:
    """Yield the table of a survey at ImageNet's size."""
    rows = [[name, s, found["times_the_floor"][name]] for name, s in found["seconds"].items()]
    yield _table([f"{found['files']:,} files", "time (s)", "multiple of the floor"], rows)
    yield _paragraph(
        f"A comparison of two methods over five seeds and 50,000 test images takes "
        f"{found['ms_per_comparison']:.0f} ms."
    )


def gpu(found: Found) -> Iterator[str]:
    """Yield the tables of the GPU benchmarks."""
    yield _table(["kernel", "time (copies)"], [[n, c] for n, c in found["mixes"].items()])
    parts = {
        "steps": "training step",
        "forwards": "forward passes",
        "searched": "search",
        "large": "ResNet-50 at 224 pixels",
    }
    for part, title in parts.items():
        yield _table([title, ""], [[n.replace("_", " "), v] for n, v in found[part].items()])
    head = ["18 interleaved runs", "speedup over eager steps", "speedup over CUDA graphs"]
    yield _table(head, [[model, *times.values()] for model, times in found["packs"].items()])


def launcher(found: Found) -> Iterator[str]:
    """Yield the table of a launcher's cost."""
    rows = [
        [f"{one['cells']:,}", one["core_percent"], one["peak_mib"]] for one in found["launchers"]
    ]
    yield _table(["cells", "share of a core (%)", "peak memory (MiB)"], rows)


def growth(found: Found) -> Iterator[str]:
    """Yield the tables of the numbers that growth.svg shows."""
    kernels = ("blend", "box", "grid")
    for by, rows in found["mixing"].items():
        column = by.removeprefix("by_")
        cells = [[str(row[column]), *(row[name] for name in kernels)] for row in rows]
        unit = "images" if column == "batch" else "pixels"
        yield _table([f"mixing: {column} ({unit})", *(f"{name} (ms)" for name in kernels)], cells)
    cells = [[str(m["classes"]), m["machinery_s"]] for m in found["search"]]
    yield _table(["search: classes", "time without a model, 500 x 250 (s)"], cells)
    columns = {
        "first_s": "first time (s)",
        "again_s": "second time (s)",
        "seconds": "time (s)",
        "peak_mib": "peak memory (MiB)",
    }
    for name, title, by in (
        ("reporting", "`mixbench report`: records", "records"),
        ("planning", "`mixbench plan`: cells", "cells"),
    ):
        shown = [column for column in columns if column in found[name][0]]
        rows = [[f"{row[by]:,}", *(row[column] for column in shown)] for row in found[name]]
        yield _table([title, *(columns[column] for column in shown)], rows)


TABLES: Mapping[str, Callable[[Found], Iterator[str]]] = {
    table.__name__: table
    for table in (
        *(mixing, loader, train, search, search_real, scale, wsol, engines, launcher, startup),
        *(survey, growth, gpu),
    )
}


def main() -> None:
    """Rewrite README.md."""
    page = FOLDER / "README.md"
    page.write_text(built(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
