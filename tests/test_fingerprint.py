from pathlib import Path

from mixbench.registry.cards import read_card
from mixbench.registry.fingerprint import digest, fingerprint
from mixbench.registry.units import find

CODE = '''
"""What it does."""

# Why.
def double(x):
    """Return twice x."""
    return 2 * x  # plainly
'''


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return digest(path)


def test_comments_and_docstrings_do_not_count(tmp_path: Path) -> None:
    reworded = CODE.replace("Why.", "Because.").replace("twice x", "x, doubled")

    assert written(tmp_path, "a.py", CODE) == written(tmp_path, "b.py", reworded)


def test_code_counts(tmp_path: Path) -> None:
    changed = CODE.replace("2 * x", "3 * x")

    assert written(tmp_path, "a.py", CODE) != written(tmp_path, "b.py", changed)


def test_a_helper_counts_for_all_that_rest_on_it() -> None:
    modules = fingerprint(("mixbench.train.loop",), (find("method", "manifold_mixup"),))

    assert {
        "mixbench.contract.method",
        "mixbench.kernels",
        "mixbench.methods.manifold_mixup",
        "mixbench.methods.mixup",
        "mixbench.train.mixing",
        "mixbench.train.loop",
    } <= modules.keys()


def test_what_cannot_change_a_result_does_not_count() -> None:
    modules = fingerprint(
        ("mixbench.train.loop", "mixbench.train.evaluation"), (find("task", "digits"),)
    )

    irrelevant = {"cli", "engines", "errors", "plan", "records", "registry", "storage"}
    found = {name for name in modules if name.split(".")[1] in irrelevant}
    assert found == {"mixbench.registry.model_names"}  # decides which models are timm's


def test_a_plugin_file_counts_with_what_it_imports(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        '"""Mine."""\nfrom mixbench.contract import Method\nfrom mixbench.kernels import blend\n'
        "class Mine(Method):\n    version = 1\n"
    )

    modules = fingerprint((), (read_card(path, "method", "file"),))

    assert {"mixbench.plugins.mine", "mixbench.kernels"} <= modules.keys()
