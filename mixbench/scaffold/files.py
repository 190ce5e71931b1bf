"""Fill in the templates of a new method."""

from jinja2 import Environment, PackageLoader, StrictUndefined

import mixbench

PACKAGE = {
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    ".github/workflows/ci.yml": "ci.yml.j2",
    "tests/test_contract.py": "test_contract.py.j2",
}


def method_file(name: str) -> str:
    """Return a method's file."""
    return _filled("method.py.j2", name)


def package_files(name: str) -> dict[str, str]:
    """Return the files of a package with one method, by their paths."""
    top = f"mixbench-{name}"
    files = {
        f"{top}/{path}": _filled(f"package/{source}", name) for path, source in PACKAGE.items()
    }
    return files | {
        f"{top}/mixbench_{name}/__init__.py": f'"""The mixing method {name}."""\n',
        f"{top}/mixbench_{name}/{name}.py": method_file(name),
    }


def _filled(template: str, name: str) -> str:
    pages = Environment(
        loader=PackageLoader("mixbench.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Python and TOML, not pages
        variable_start_string="<<",
        variable_end_string=">>",
    )
    camel = "".join(part.capitalize() for part in name.split("_"))
    return pages.get_template(template).render(name=name, camel=camel, version=mixbench.__version__)
