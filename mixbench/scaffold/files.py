"""Render the templates of a new method or task."""

from jinja2 import Environment, PackageLoader, StrictUndefined

import mixbench
from mixbench.registry.modules import Kind

PACKAGE = {
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    ".github/workflows/ci.yml": "ci.yml.j2",
    "tests/test_contract.py": "test_contract.py.j2",
}


def unit_file(kind: Kind, name: str) -> str:
    """Return the source code of a new method or task."""
    return _filled(f"{kind}.py.j2", kind, name)


def package_files(kind: Kind, name: str) -> dict[str, str]:
    """Return the texts of the files of a package with one method or task, by path."""
    top = f"mixbench-{name}"
    files = {
        f"{top}/{path}": _filled(f"package/{source}", kind, name)
        for path, source in PACKAGE.items()
    }
    return files | {
        f"{top}/mixbench_{name}/__init__.py": f'"""The {kind} {name}, for mixbench."""\n',
        f"{top}/mixbench_{name}/{name}.py": unit_file(kind, name),
    }


def _filled(template: str, kind: Kind, name: str) -> str:
    pages = Environment(
        loader=PackageLoader("mixbench.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # the templates are Python and TOML, not HTML
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
    )
    camel = "".join(part.capitalize() for part in name.split("_"))
    told = {"kind": kind, "name": name, "camel": camel, "version": mixbench.__version__}
    return pages.get_template(template).render(told)
